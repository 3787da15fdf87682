"""infer: rescoring by a schedule; each sample once by each version, whatever calls, crashes or is asked for twice."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import SIDECAR_TOKEN, Running, started, wait_until
from inferring import inferring, model, samples, serve
from worlds import png

from services.contracts.events import SampleIngested, SampleScored
from services.infer.app import create
from services.infer.schedules import PREFIX
from services.runtime.memory import MemoryPeers
from services.runtime.ports import Ports

NIGHT = {"filter": {"tag": "night"}, "schedule": "@every 10h"}


class Ingest:
    """Answers ingest's list, forty at a time."""

    def __init__(self) -> None:
        self.samples: list[SampleIngested] = []

    def __call__(self, path: str, params: Mapping[str, str]) -> Any:
        assert (path, params["tag"]) == ("v1/samples", "night")
        start = int(params.get("cursor", "0"))
        rows = [{"sample_id": e.sample_id, "content": e.content.model_dump()} for e in self.samples[start : start + 40]]
        return {"items": rows, "cursor": str(start + 40) if start + 40 < len(self.samples) else None}


@pytest.fixture
def ingest(ports: Ports) -> Ingest:
    made = Ingest()
    ports.peers = MemoryPeers({"ingest": made})
    return made


async def order(running: Running, **more: Any) -> str:
    answer = await running.call("POST", "/v1/rescore", json={**NIGHT, **more})
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


async def tick(running: Running, name: str, token: str = SIDECAR_TOKEN) -> int:
    """What the sidecar does when the time has come."""
    answer = await running.client.post(f"/job/{PREFIX}{name}", headers={"dapr-api-token": token})
    return answer.status_code


async def done(running: Running, name: str, count: int) -> bool:
    rows = (await running.call("GET", "/v1/rescore")).json()["items"]
    last = next(row["last"] for row in rows if row["id"] == name)
    job = (await running.call("GET", f"/v1/rescore/{last}")).json()
    return (job["state"], job["done"]) == ("DONE", count)


async def test_what_is_new_is_scored_once_a_version_at_each_call(tmp_path: Path, ports: Ports, ingest: Ingest) -> None:
    async with inferring(tmp_path, ports=ports) as running:
        ingest.samples += await samples(running, [png(n) for n in range(100)])
        name = await order(running)
        jobs: Any = running.service.jobs
        await wait_until(lambda: jobs.schedules == {PREFIX + name: "@every 10h"})
        assert await tick(running, name, "nonsense") == 401
        told: Counter[tuple[str, str]] = Counter()

        async def called(count: int) -> None:
            assert await tick(running, name) == 204
            await wait_until(lambda: done(running, name, count))
            told.update((row["sample_id"], row["model_version"]) for row in await running.data(SampleScored))

        await called(100)
        await called(100)
        assert len(told) == 100
        ingest.samples += await samples(running, [png(n) for n in range(100, 120)])
        await called(120)
        assert len(told) == 120
        await serve(running, await model(running))
        await called(120)
        assert len(told) == 240
        assert set(told.values()) == {1}
        assert {version for _, version in told} == {"none", "mdl_1"}


async def test_an_order_goes_on_after_a_crash_in_the_middle_of_its_job(
    tmp_path: Path, ports: Ports, ingest: Ingest
) -> None:
    async with inferring(tmp_path, ports=ports) as running:
        await serve(running, await model(running))
        ingest.samples += await samples(running, [png(n % 250, n // 250) for n in range(300)])
        name = await order(running)
        await running.published()
        commit, calls = running.state.commit, []

        async def failing(ops: Any) -> None:
            if any(op.key.startswith("prd:") for op in ops):
                calls.append(1)
                if len(calls) > 1:
                    raise ConnectionError("gone")
            await commit(ops)

        running.state.commit = failing  # type: ignore[method-assign]
        assert await tick(running, name) == 204
        await wait_until(lambda: len(calls) > 1)
        first = await running.data(SampleScored)
    running.state.commit = commit  # type: ignore[method-assign]
    assert 0 < len(first) < 300
    running.clock.step(60)
    async with started(create, tmp_path, ports=ports) as again:
        await wait_until(lambda: done(again, name, 300))
        await wait_until(lambda: ports.jobs.schedules == {PREFIX + name: "@every 10h"})  # type: ignore[union-attr]
        told = Counter(row["sample_id"] for row in [*first, *await again.data(SampleScored)])
        assert len(told) == 300
        assert set(told.values()) == {1}


async def test_an_order_is_changed_taken_back_and_refused(tmp_path: Path, ports: Ports, ingest: Ingest) -> None:
    async with inferring(tmp_path, ports=ports) as running:
        jobs: Any = running.service.jobs
        name = await order(running)
        assert await order(running, schedule="0 3 * * *") == name
        await wait_until(lambda: jobs.schedules == {PREFIX + name: "0 3 * * *"})
        (row,) = (await running.call("GET", "/v1/rescore")).json()["items"]
        assert (row["model_version"], row["where"], row["last"]) == ("active", {"tag": "night"}, None)
        for wrong, status in (
            ({**NIGHT, "schedule": "at night"}, 422),
            ({"sample_ids": ["smp_1"], "schedule": "@daily"}, 422),
            ({**NIGHT, "model_version": "mdl_9"}, 404),
        ):
            assert (await running.call("POST", "/v1/rescore", json=wrong)).status_code == status, wrong
        assert (await running.call("POST", "/v1/rescore", "viewer", json=NIGHT)).status_code == 403
        assert (await running.call("DELETE", f"/v1/rescore/{name}", "viewer")).status_code == 403
        assert (await running.call("DELETE", f"/v1/rescore/{name}")).status_code == 204
        assert (await running.call("DELETE", f"/v1/rescore/{name}")).status_code == 404
        await wait_until(lambda: jobs.schedules == {})
        jobs.schedules[PREFIX + "gone"] = "@daily"
        assert await tick(running, "gone") == 204
        assert jobs.schedules == {}
