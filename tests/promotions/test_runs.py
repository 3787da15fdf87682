"""Training runs on the real runtime: `kill -9` of anything at any step, cancelling, schedules, and following them."""

import asyncio
import itertools
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import pytest_asyncio
import redis
from conftest import require_runtime, wait_until
from listening import Listener
from stacks import run_file
from training import SPEC, N, evaluation, label, striped

from services.cli.rest import Rest
from services.cli.settings import StackSettings, default_root
from services.cli.stack import Stack
from services.contracts.envelope import wrap
from services.contracts.events import (
    Content,
    LabelAccepted,
    ModelActivated,
    ModelRegistered,
    TrainingCancelled,
    TrainingRequested,
    TrainingStarted,
    TrainingSucceeded,
)
from services.contracts.ids import sample_id, sha256
from services.runtime.blobs import blob_store
from services.runtime.memory import SystemClock

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

OFFSET = 3400
SERVICE = "retrain-trigger"
VICTIMS = (SERVICE, f"{SERVICE}-sidecar", "placement", "scheduler", "redis")
TRAINER = "trainer"  # the process that trains, a child of the service
# Who is held at `judge` has the one trainer, at `snapshot` the one rule: they come after the others, in this order.
POINTS = ("register", "promote", "end", "submit", "judge", "snapshot")
ONCE = (TrainingRequested, TrainingStarted, TrainingSucceeded, ModelRegistered, ModelActivated)


class Plant:
    """retrain-trigger and the portal with their sidecars; label-queue's part is played on the broker."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.stack = stack
        self._folder = folder
        self._rest = Rest(stack.url, stack.token, "default")

    async def get(self, project: str, path: str) -> Any:
        return await self._rest.get(SERVICE, path, project=project)

    async def project(self, name: str, **trigger: Any) -> None:
        """A project whose labels are enough for a run."""
        document = {**SPEC, "name": name, "trigger": {**SPEC["trigger"], **trigger}, "training": {"head": "logistic"}}
        await self._rest.post(SERVICE, "/v1/projects", json=document)
        await self.labels(name, evaluation())

        async def judged() -> bool:
            return (await self.get(name, f"/v1/triggers/{name}"))["counters"]["evaluation"] == 20

        await wait_until(judged, 60)
        await self.labels(name, [label(number) for number in range(N)])

    async def labels(self, project: str, events: list[LabelAccepted]) -> None:
        """As label-queue's sidecar publishes them, their contents in the store."""
        blobs, rng = blob_store(self.stack.blobs(SERVICE)), np.random.default_rng(len(events))
        bus = redis.Redis(port=self.stack.ports["redis"])
        for event in events:
            content = striped(event.value, rng)
            uri = await blobs.put(f"samples/{project}/{sha256(content)}", content)
            claim = Content(uri=uri, sha256=sha256(content), bytes=len(content), media_type="image/png")
            own = sample_id(project, event.sample_id)  # no two projects have a sample of the same id
            placed = event.model_copy(update={"content": claim, "project": project, "sample_id": own})
            bus.xadd(event.topic, {"data": wrap(placed, siteid="test", service="test", now=SystemClock().now())})
        bus.close()

    async def bring_to(self, project: str, point: str) -> None:
        """A project whose run is held at a point."""
        place = self._folder / f"{project}.{point}"
        place.touch()
        await self.project(project)
        await wait_until(place.with_name(f"{place.name}.reached").exists, 90)

    def release(self, project: str, point: str) -> None:
        (self._folder / f"{project}.{point}").unlink()

    async def kill(self, victim: str) -> None:
        """Everything is ready again afterwards."""
        if victim == TRAINER:
            children = psutil.Process(self.stack.pid(SERVICE)).children(recursive=True)
            assert children
            for child in children:
                child.kill()
            return
        self.stack.kill(victim)
        for name in (victim, f"{SERVICE}-sidecar", SERVICE):
            await self.stack.wait_ready(name, 60)

    async def ended(self, project: str, count: int = 1) -> list[dict[str, Any]]:
        """The runs, newest first, once `count` have ended."""

        async def enough() -> list[dict[str, Any]] | None:
            done = [run for run in (await self.get(project, "/v1/runs"))["items"] if run["ended_at"]]
            return done if len(done) >= count else None

        return await wait_until(enough, 150)

    def said(self, project: str) -> Counter[str]:
        """How many facts of each type there are on the broker; the same one told again is the same fact."""
        bus, facts = redis.Redis(port=self.stack.ports["redis"]), set()
        for topic in ("training", "model"):
            for _, fields in bus.xrange(topic):
                envelope = json.loads(fields[b"data"])
                if envelope["data"]["project"] == project:
                    facts.add((envelope["type"], envelope["id"]))
        bus.close()
        return Counter(kind for kind, _ in facts)

    async def cancel(self, project: str, run: str) -> None:
        await self._rest.post(SERVICE, f"/v1/runs/{run}:cancel", params={"project": project})

    async def force(self, project: str) -> None:
        await self._rest.post(SERVICE, "/v1/runs", params={"project": project}, json={"force": True})

    async def close(self) -> None:
        await self._rest.close()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def plant(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Plant]:
    require_runtime()
    folder = tmp_path_factory.mktemp("runs")
    holds = folder / "holds"
    holds.mkdir()
    program = ("python", str(Path(__file__).with_name("retrain_probe.py")), str(holds))
    environment = {
        "HALFSURE_RETRAIN_TRIGGER_BACKEND": "command",
        "HALFSURE_RETRAIN_TRIGGER_COMMAND": f"{sys.executable} {default_root() / 'examples' / 'trainer' / 'train.py'}",
        "HALFSURE_RETRAIN_TRIGGER_PAUSE_AFTER_FAILURE": "0",
    }
    file = run_file(folder, (SERVICE, "portal"), {SERVICE: program}, environment)
    async with Stack(StackSettings(home=folder / "home", run_file=file, port_offset=OFFSET)).running() as stack:
        one = Plant(stack, holds)
        yield one
        await one.close()


async def check_once(plant: Plant, project: str, run: dict[str, Any]) -> None:
    """One run, one model, promoted once; the last event may still wait in the outbox for the broker to be back."""
    assert (run["state"], run["promoted"], run["error"]) == ("SUCCEEDED", True, None), run
    await wait_until(lambda: sum(plant.said(project).values()) >= len(ONCE), 30)
    said = plant.said(project)
    assert said == Counter(dict.fromkeys((kind.type for kind in ONCE), 1)), said


@pytest.mark.parametrize("victim", VICTIMS)
async def test_kill_9_at_every_step_of_a_run(plant: Plant, victim: str) -> None:
    names = {f"{point}-{victim}": point for point in POINTS}
    free = [name for name, point in names.items() if point not in ("judge", "snapshot")]
    await asyncio.gather(*(plant.bring_to(name, names[name]) for name in free))
    for name in [name for name in names if name not in free]:
        await plant.bring_to(name, names[name])
    await plant.kill(victim)
    for name, point in names.items():
        plant.release(name, point)
    for name in names:
        (run,) = await plant.ended(name)
        models = (await plant.get(name, "/v1/models"))["items"]
        assert [row["version"] for row in models] == [run["model_version"]]
        assert (await plant.get(name, f"/v1/triggers/{name}"))["active_run"] is None
        await check_once(plant, name, run)


@pytest.mark.parametrize(
    ("point", "victim"), [*itertools.product(["launch", "train"], VICTIMS), ("train", TRAINER), ("judge", TRAINER)]
)
async def test_kill_9_between_record_and_workflow_and_while_a_model_is_trained(
    plant: Plant, point: str, victim: str
) -> None:
    name = f"{point}-{victim}"
    await plant.bring_to(name, point)
    await plant.kill(victim)
    plant.release(name, point)
    (run,) = await plant.ended(name)
    await check_once(plant, name, run)


@pytest.mark.parametrize("victim", VICTIMS)
async def test_a_cancelled_run_is_cancelled_whatever_is_killed(plant: Plant, victim: str) -> None:
    name = f"cancel-{victim}"
    await plant.bring_to(name, "train")
    (row,) = (await plant.get(name, "/v1/runs"))["items"]
    await plant.cancel(name, row["run_id"])
    await plant.kill(victim)
    plant.release(name, "train")
    (run,) = await plant.ended(name)
    assert (run["state"], run["cancel"]["by"] is not None) == ("CANCELLED", True)
    await wait_until(lambda: plant.said(name)[TrainingCancelled.type], 30)
    assert plant.said(name)[TrainingCancelled.type] == 1
    await plant.force(name)
    again = (await plant.ended(name, 2))[0]
    assert (again["state"], again["promoted"]) == ("SUCCEEDED", True)


async def test_a_schedule_looks_also_after_a_restart_and_the_stream_tells_of_its_runs(plant: Plant) -> None:
    name = "scheduled"
    port = int(plant.stack.url("portal").rsplit(":", 1)[1])
    async with Listener(port, plant.stack.token, query=f"?project={name}") as listener:
        await plant.project(name, n=100_000, schedule="@every 2s")
        (first,) = await plant.ended(name)
        assert (first["state"], first["reason"]) == ("SUCCEEDED", "schedule")
        for kind in ("training.requested", "training.started", "training.succeeded"):
            (row,) = await listener.heard(kind, 1, 20)
            assert row["data"]["run_id"] == first["run_id"]
        for kind in ("model.registered", "model.activated"):
            (row,) = await listener.heard(kind, 1, 20)
            assert row["data"]["version"] == first["model_version"]
        for round_, victim in enumerate((SERVICE, "scheduler", f"{SERVICE}-sidecar"), 2):
            await plant.kill(victim)
            await plant.labels(name, [label(N * round_)])
            runs = await plant.ended(name, round_)
            assert [run["reason"] for run in runs] == ["schedule"] * round_
        assert len((await plant.get(name, "/v1/runs"))["items"]) == 4, "a look that finds no new labels starts none"
