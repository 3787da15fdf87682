"""Rescoring by a schedule, on the real scheduler and broker: each sample once a version, also through a kill."""

import base64
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
import redis
from conftest import require_runtime, wait_until
from stacks import run_file
from training import SPEC
from worlds import classifier, png

from services.cli.rest import Rest
from services.cli.settings import StackSettings
from services.cli.stack import Stack
from services.contracts.events import SampleScored

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

OFFSET = 4400
SAMPLES = 20


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    require_runtime()
    folder = tmp_path_factory.mktemp("rescoring")
    file = run_file(folder, ("ingest", "infer", "retrain-trigger"))
    async with Stack(StackSettings(home=folder / "home", run_file=file, port_offset=OFFSET)).running() as running:
        yield running


async def send(stack: Stack, contents: list[bytes]) -> None:
    headers = {"authorization": f"Bearer {stack.token}", "content-type": "image/png"}
    async with httpx2.AsyncClient(base_url=stack.url("ingest"), headers=headers, timeout=30) as client:
        for content in contents:
            answer = await client.post("/v1/samples", content=content)
            assert answer.status_code == 201, answer.text


def scored(stack: Stack) -> Counter[tuple[str, str]]:
    """(sample, version) -> how many facts of it are on the broker."""
    bus, facts = redis.Redis(port=stack.ports["redis"]), []
    for _, fields in bus.xrange(SampleScored.topic):
        envelope: dict[str, Any] = json.loads(fields[b"data"])
        facts.append((envelope["data"]["sample_id"], envelope["data"]["model_version"], envelope["id"]))
    bus.close()
    return Counter((sample, version) for sample, version, _ in set(facts))


async def test_a_schedule_scores_every_sample_once_by_the_version_in_service(stack: Stack, tmp_path: Path) -> None:
    rest = Rest(stack.url, stack.token, "default")
    await rest.post("retrain-trigger", "/v1/projects", json=SPEC)
    await send(stack, [png(10 * number) for number in range(SAMPLES)])
    await wait_until(lambda: len(scored(stack)) == SAMPLES, 60)
    order = await rest.post("infer", "/v1/rescore", json={"filter": {}, "schedule": "@every 2s"})
    content, manifest = classifier()
    body = {"artefact": base64.b64encode(content).decode(), "manifest": manifest.model_dump(mode="json")}
    version = (await rest.post("retrain-trigger", "/v1/models", json=body))["version"]
    await wait_until(lambda: sum(by == version for _, by in scored(stack)) == SAMPLES, 60)
    for victim in ("infer", "infer-sidecar"):
        stack.kill(victim)
        for name in (victim, "infer-sidecar", "infer"):
            await stack.wait_ready(name, 60)
        before = (await rest.get("infer", "/v1/rescore"))["items"][0]["called_at"]
        await wait_until(lambda at=before: _called_after(rest, at), 30)
    assert set(scored(stack).values()) == {1}
    assert len(scored(stack)) == 2 * SAMPLES, "once by the extractor when they came, once by the model"
    await rest.call("DELETE", "infer", f"/v1/rescore/{order['id']}")
    assert (await rest.get("infer", "/v1/rescore"))["items"] == []
    await rest.close()


async def _called_after(rest: Rest, at: str) -> bool:
    rows = (await rest.get("infer", "/v1/rescore"))["items"]
    if rows[0]["called_at"] <= at:
        return False
    return (await rest.get("infer", f"/v1/rescore/{rows[0]['last']}"))["state"] == "DONE"
