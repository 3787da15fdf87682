"""The connector of Label Studio: the same tests on a stand-in, and on the real server where it is installed.

For the real one, where FOLDER is a virtual environment with `pip install label-studio` in it (1 GB):
`HALFSURE_LABEL_STUDIO_VENV=FOLDER pytest tests/service/test_label_studio.py -m labelstudio`.
"""

import asyncio
import io
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from conftest import TOKENS, Running, started, wait_until
from crowd import project, selected
from PIL import Image
from sources.processes import free_port
from studios import TOKEN, People, real, standing_in, until_up
from typer.testing import CliRunner

from services.cli.main import app
from services.cli.studio.server import StudioRefused
from services.contracts.events import (
    Content,
    LabelAccepted,
    LabelRetracted,
    LabelSubmitted,
    SampleReranked,
    SampleWithdrawn,
    Top,
)
from services.contracts.ids import sha256, task_id
from services.label_queue.app import create
from services.label_queue.facts import pseudonym
from services.runtime.memory import MemoryBlobs, MemoryBus, MemoryPeers, MemoryState, SystemClock
from services.runtime.memory_workflows import MemoryWorkflows
from services.runtime.ports import Ports

ANNA = "label-studio:anna@example.org"
VENV = os.environ.get("HALFSURE_LABEL_STUDIO_VENV")
BOTH = [
    "stand-in",
    pytest.param(
        "real",
        marks=[
            pytest.mark.labelstudio,
            pytest.mark.timeout(900),
            pytest.mark.skipif(not VENV, reason="HALFSURE_LABEL_STUDIO_VENV names no environment of Label Studio"),
        ],
    ),
]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The real one, once for all tests."""
    with real(Path(VENV or ""), tmp_path_factory.mktemp("label-studio")) as url:
        yield url


@pytest.fixture(params=BOTH)
async def people(request: pytest.FixtureRequest) -> AsyncIterator[People]:
    if request.param == "real":
        url = request.getfixturevalue("server")
        await until_up(url)
        yield People(url)
    else:
        async with standing_in() as url:
            yield People(url)


class Both:
    """A project's queue, people over there, and the command between them."""

    def __init__(self, queue: Running, port: int, people: People, name: str, folder: Path) -> None:
        self.queue, self.people, self.name, self._port, self._folder = queue, people, name, port, folder
        self.number = 0

    @property
    def environment(self) -> dict[str, str]:
        return {
            "HALFSURE_PORTS__LABEL_QUEUE": str(self._port),
            "HALFSURE_TOKEN": TOKENS["operator"],
            "HALFSURE_HOME": str(self._folder / "home"),
            "HALFSURE_PROJECT": self.name,
            "LABEL_STUDIO_URL": self.people.url,
            "LABEL_STUDIO_API_KEY": TOKEN,
        }

    async def sync(self, *options: str) -> dict[str, int]:
        arguments = ["label-studio", "sync", "--json", *options]
        done = await asyncio.to_thread(CliRunner().invoke, app, arguments, env=self.environment)
        assert done.exit_code == 0, done.output + repr(done.exception)
        counts = json.loads(done.stdout)
        self.number = counts.pop("studio_project")
        return counts

    async def serve(self, *options: str) -> asyncio.subprocess.Process:
        command = (sys.executable, "-m", "services.cli.main", "label-studio", "serve", *options)
        return await asyncio.create_subprocess_exec(*command, env={**os.environ, **self.environment})

    async def ask(self, shade: int, sample: str, **more: Any) -> None:
        """Have a picture asked about."""
        raw = io.BytesIO()
        Image.new("L", (4, 4), shade).save(raw, "PNG")
        digest = sha256(raw.getvalue())
        uri = await self.queue.blobs.put(f"samples/{self.name}/{digest}", raw.getvalue())
        content = Content(uri=uri, sha256=digest, bytes=len(raw.getvalue()), media_type="image/png")
        await self.queue.deliver(selected(sample, project=self.name, content=content.model_dump(), **more))
        await self.queue.published()

    async def hold(self, sample: str) -> dict[str, Any]:
        """The task, claimed by somebody on our page."""
        body = {"annotator": "page", "tasks": [task_id(self.name, sample)]}
        answer = await self.queue.call("POST", f"/v1/tasks:claim?project={self.name}", json=body)
        return answer.json()["tasks"][0]

    async def answer(self, task: dict[str, Any], value: str) -> None:
        body = {"epoch": task["lease"]["epoch"], "value": value, "annotator": "page"}
        path = f"/v1/tasks/{task['id']}/annotations?project={self.name}"
        assert (await self.queue.call("POST", path, json=body)).status_code == 201

    async def ours(self, sample: str) -> dict[str, Any]:
        return (await self.queue.call("GET", f"/v1/tasks/{task_id(self.name, sample)}?project={self.name}")).json()

    async def theirs(self) -> dict[str, dict[str, Any]]:
        return await self.people.tasks(self.number)

    async def until(self, sample: str, state: str) -> None:
        async def there() -> bool:
            return (await self.ours(sample))["state"] == state

        await wait_until(there, 60)


@pytest.fixture
async def both(tmp_path: Path, people: People, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Both]:
    monkeypatch.chdir(tmp_path)
    name = f"p{sha256(str(tmp_path).encode())[:10]}"
    ports = Ports(
        MemoryState(SystemClock()), MemoryBus(), MemoryBlobs(), SystemClock(), MemoryPeers(), MemoryWorkflows()
    )
    async with started(create, tmp_path, ports) as queue:
        await queue.deliver(project(name))
        port = free_port()
        server = uvicorn.Server(uvicorn.Config(queue.service.api, port=port, lifespan="off", log_level="warning"))
        serving = asyncio.create_task(server.serve())
        await wait_until(lambda: server.started)
        yield Both(queue, port, people, name, tmp_path)
        server.should_exit = True
        await serving


async def test_tasks_go_out_the_most_urgent_first_and_answers_come_back(both: Both) -> None:
    """Row 0.3, by an adapter while the labelling goes on."""
    for shade, (sample, priority) in enumerate([("smp_a", 0.2), ("smp_b", 0.9), ("smp_c", 0.5)]):
        await both.ask(shade, sample, priority=priority)
    assert await both.sync() == {"sent": 3}
    theirs = await both.theirs()
    first = await both.people.call("GET", f"/api/projects/{both.number}/next")
    assert first["data"]["sample_id"] == "smp_b"
    assert [one["result"] for one in first["predictions"]] == [[]], "what the model says is hidden"
    picture = await both.people.call("GET", theirs["smp_a"]["data"]["image"])
    assert Image.open(io.BytesIO(picture)).getpixel((0, 0)) == 0

    given = await both.people.annotate(theirs["smp_b"]["id"], "cat")
    assert await both.sync() == {"answers": 1}
    record = await both.ours("smp_b")
    (answer,) = record["answers"]
    assert (record["state"], record["value"], answer["annotator"]) == ("ACCEPTED", "cat", ANNA)
    assert (answer["seconds"], answer["suggestion"]) == (2.5, "never")
    said = [envelope["data"] for _, envelope in await both.queue.published()]
    assert {row.get("annotator") for row in said} >= {pseudonym(both.name, ANNA)}
    assert await both.sync() == {}

    await both.people.change(given, "dog")
    assert await both.sync() == {"revised": 1}
    record = await both.ours("smp_b")
    assert (record["value"], record["label_revision"]) == ("dog", 3)

    await both.queue.published()
    await both.people.delete(given)
    assert await both.sync() == {"undone": 1}
    record = await both.ours("smp_b")
    assert (record["state"], record["value"]) == ("QUEUED", None)
    assert [row["previous_revision"] for row in await both.queue.data(LabelRetracted)] == [3]
    await both.people.annotate(theirs["smp_b"]["id"], "owl")
    assert await both.sync() == {"answers": 1}
    assert [row["value"] for row in await both.queue.data(LabelAccepted)] == ["owl"]


async def test_what_is_skipped_there_is_skipped_here_and_asked_anew_in_another_round(both: Both) -> None:
    await both.ask(1, "smp_a")
    await both.sync()
    await both.people.annotate((await both.theirs())["smp_a"]["id"], None)
    assert await both.sync() == {"skipped": 1}
    record = await both.ours("smp_a")
    assert (record["state"], record["skip_reason"]) == ("SKIPPED", "skipped in Label Studio")
    await both.ask(1, "smp_a", round_id="rnd_2")
    assert await both.sync() == {"removed": 1, "sent": 1}
    after = (await both.theirs())["smp_a"]
    assert after["annotations"] == []
    await both.people.annotate(after["id"], "cat")
    assert await both.sync() == {"answers": 1}


async def test_what_is_over_here_goes_there_and_what_is_withdrawn_goes_with_its_picture(both: Both) -> None:
    for shade, sample in enumerate(("smp_a", "smp_b", "smp_c")):
        await both.ask(shade, sample)
    assert await both.sync("--most", "2") == {"sent": 2}
    theirs = await both.theirs()
    assert await both.sync("--most", "3") == {"sent": 1}
    theirs = await both.theirs()
    await both.answer(await both.hold("smp_a"), "cat")
    await both.people.annotate(theirs["smp_b"]["id"], "cat")
    assert await both.sync() == {"answers": 1, "removed": 1}
    assert set(await both.theirs()) == {"smp_b", "smp_c"}
    await both.queue.deliver(SampleWithdrawn(project=both.name, sample_id="smp_b", who="x", why="privacy"))
    await both.queue.deliver(SampleWithdrawn(project=both.name, sample_id="smp_c", who="x", why="privacy"))
    assert (await both.sync())["removed"] == 2
    assert await both.theirs() == {}
    for row in theirs.values():
        assert not (await both.people.http.get(row["data"]["image"])).is_success


async def test_predictions_are_shown_if_wanted_and_said_to_have_been_and_follow_the_model(both: Both) -> None:
    await both.ask(1, "smp_a", priority=0.9)
    await both.ask(2, "smp_b", priority=0.5)
    assert await both.sync("--predictions") == {"sent": 2}
    theirs = await both.theirs()
    (shown,) = theirs["smp_a"]["predictions"]
    assert (shown["result"][0]["value"], shown["score"]) == ({"choices": ["dog"]}, pytest.approx(0.1))
    moved = {"project": both.name, "sample_id": "smp_b", "round_id": "rnd_1", "model_version": "mdl_2"}
    await both.queue.deliver(SampleReranked(priority=0.99, prelabel=Top(label="owl", confidence=0.4), **moved))
    assert await both.sync("--predictions") == {"ranked": 1}
    first = await both.people.call("GET", f"/api/projects/{both.number}/next")
    assert first["data"]["sample_id"] == "smp_b"
    assert [one["result"][0]["value"] for one in first["predictions"]] == [{"choices": ["owl"]}]
    await both.queue.published()
    await both.people.annotate(first["id"], "cat")
    await both.sync("--predictions")
    (told,) = await both.queue.data(LabelSubmitted)
    assert (told["suggestion"], told["changed_from_prelabel"]) == ("before", True)


async def test_what_was_missed_is_found_and_what_a_reviewer_has_retracted_stays_so(both: Both) -> None:
    for shade, sample in enumerate(("smp_a", "smp_b")):
        await both.ask(shade, sample)
    await both.sync()
    theirs = await both.theirs()
    first = await both.people.annotate(theirs["smp_a"]["id"], "cat")
    await both.people.annotate(theirs["smp_b"]["id"], "dog")
    assert await both.sync() == {"answers": 2}
    # Every run of the command knows nothing of the one before.
    await both.people.delete(first)
    path = f"/v1/samples/smp_b/label:retract?project={both.name}"
    assert (await both.queue.call("POST", path, "reviewer", json={"why": "wrong"})).status_code == 200
    assert await both.sync() == {"undone": 1}
    assert {(await both.ours(name))["state"] for name in ("smp_a", "smp_b")} == {"QUEUED"}
    assert await both.sync() == {}


async def test_webhooks_bring_answers_changes_and_deletions_at_once(both: Both) -> None:
    await both.ask(1, "smp_a")
    await both.sync()
    listen = f"127.0.0.1:{free_port()}"
    process = await both.serve("--every", "3600", "--listen", listen)
    try:

        async def hooked() -> bool:
            rows = await both.people.call("GET", f"/api/webhooks/?project={both.number}")
            return any(listen in row["url"] for row in rows)

        await wait_until(hooked, 60)
        task = (await both.theirs())["smp_a"]["id"]
        given = await both.people.annotate(task, "cat")
        await both.until("smp_a", "ACCEPTED")
        await both.people.change(given, "dog")

        async def changed() -> bool:
            return (await both.ours("smp_a"))["value"] == "dog"

        await wait_until(changed, 60)
        await both.people.delete(given)
        await both.until("smp_a", "QUEUED")
        assert (await both.people.http.post(f"http://{listen}/label-studio", json={})).status_code == 401
    finally:
        process.terminate()
        await process.wait()


async def test_an_answer_that_comes_too_late_or_is_no_label_is_told(both: Both) -> None:
    for shade, sample in enumerate(("smp_a", "smp_b")):
        await both.ask(shade, sample)
    await both.sync()
    theirs = await both.theirs()
    await both.people.annotate(theirs["smp_a"]["id"], "cat")
    held = await both.hold("smp_a")
    assert await both.sync() == {"waiting": 1}, "somebody is at it here; it is looked at again"
    await both.answer(held, "owl")
    assert await both.sync() == {"late": 1}
    assert (await both.ours("smp_a"))["value"] == "owl"


async def test_a_server_that_does_not_answer_or_take_the_token_is_told_in_a_sentence(both: Both) -> None:
    arguments = ["label-studio", "sync", "--studio", "http://127.0.0.1:9"]
    done = await asyncio.to_thread(CliRunner().invoke, app, arguments, env=both.environment)
    assert isinstance(done.exception, StudioRefused)
    assert "does not answer" in str(done.exception)
