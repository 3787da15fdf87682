"""The Python client and the commands that stand for all routes, by way of the same origin as the page."""

import asyncio
import json

import pytest
from page.looking import World
from typer.testing import CliRunner

from services.cli.main import app
from services.client import Client, Refused

pytestmark = [pytest.mark.loop, pytest.mark.asyncio(loop_scope="session")]


async def test_what_the_page_does_a_program_does(world: World) -> None:
    def work() -> None:
        with Client(world.url, world.stack.token, "waiting") as client:
            before = client.label_queue.get_stats()["accepted"]
            (task,) = client.label_queue.post_tasks_claim(json={"n": 1, "annotator": "program"})["tasks"]
            assert client.ingest.get_sample_content(task["sample_id"]).startswith(b"\x89PNG")
            answer = {"annotator": "program", "epoch": task["lease"]["epoch"], "value": "3"}
            given = client.label_queue.post_task_annotations(task["id"], json=answer)
            assert client.label_queue.get_stats()["accepted"] == before + 1
            client.label_queue.delete_annotation(given["id"])
            assert client.label_queue.get_stats()["accepted"] == before
            with pytest.raises(Refused) as refused:
                client.label_queue.get_task("tsk_nothing")
            assert refused.value.status == 404
            with client.portal.get_events() as lines:
                assert next(lines).startswith((":", "event:", "data:", "id:", "retry:"))

    await asyncio.to_thread(work)


async def test_models_and_every_route_have_a_command(world: World) -> None:
    token = {"HALFSURE_TOKEN": world.stack.token, "HALFSURE_URL": world.url, "HALFSURE_PROJECT": "learning"}

    def halfsure(*arguments: str) -> str:
        ended = CliRunner().invoke(app, arguments, env=token)
        assert ended.exit_code == 0, f"{ended.output}{ended.exception}"
        return ended.output

    models = json.loads(await asyncio.to_thread(halfsure, "models", "list", "--json"))
    active = next(model["version"] for model in models if model["state"] == "ACTIVE")
    assert active[:12] in await asyncio.to_thread(halfsure, "models", "list")
    await asyncio.to_thread(halfsure, "models", "promote", active, "--reason", "a test")
    shown = json.loads(await asyncio.to_thread(halfsure, "api", "GET", "retrain-trigger", f"/v1/models/{active}"))
    assert shown["version"] == active
    tasks = json.loads(await asyncio.to_thread(halfsure, "api", "GET", "label-queue", "/v1/tasks", "limit=1"))
    assert len(tasks["items"]) == 1
