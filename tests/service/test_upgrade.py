"""What earlier versions left in their stores (tests/versions) is read by this one, and the loop goes on from it."""

import base64
import gzip
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import Running, memory_ports, started, wait_until

from services.contracts.events import Content, LabelAccepted, ModelActivated, PolicyRef, SampleIngested, SampleSelected
from services.infer import app as infer
from services.ingest import app as ingest
from services.label_queue import app as label_queue
from services.retrain_trigger import app as retrain_trigger
from services.runtime import schema
from services.runtime.memory import MemoryState, SteppedClock
from services.runtime.ports import Ports, Put
from services.select_uncertain import app as select_uncertain

LEFT = sorted((Path(__file__).parents[1] / "versions").glob("*.jsonl.gz"))
PROJECT = {"project": "upgrade"}
LATER = datetime(2027, 6, 1, tzinfo=UTC)
pytestmark = [pytest.mark.usefixtures("brisk")]
POOL, ASKED = 40, 16  # tests/versions/record.py


class Stores:
    """The stores of all services, as a version left them."""

    def __init__(self, file: Path) -> None:
        self.rows = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]

    def records(self, app: str) -> dict[str, Any]:
        """Of one service, by key."""
        begin = f"{app}||"
        return {
            row["key"].removeprefix(begin): row["value"] for row in self.rows if row.get("key", "").startswith(begin)
        }

    async def ports(self, app: str) -> Ports:
        ports = memory_ports({"ingest": lambda path, params: {"items": [], "cursor": None}})
        ports.clock = SteppedClock(LATER)
        ports.state = MemoryState(ports.clock)
        await ports.state.commit([Put(key, value) for key, value in self.records(app).items()])
        for row in self.rows:
            if "blob" in row:
                await ports.blobs.put(row["blob"], base64.b64decode(row["content"]))
        return ports

    @asynccontextmanager
    async def running(self, module: Any, app: str, folder: Path) -> AsyncIterator[Running]:
        async with started(module.create, folder, await self.ports(app)) as one:
            yield one

    @property
    def samples(self) -> dict[str, dict[str, Any]]:
        begin = "smp:upgrade:"
        return {k.removeprefix(begin): v for k, v in self.records("ingest").items() if k.startswith(begin)}


@pytest.fixture(params=LEFT, ids=[file.name for file in LEFT])
def stores(request: pytest.FixtureRequest) -> Stores:
    return Stores(request.param)


async def asked(one: Running, path: str, method: str = "GET", **how: Any) -> Any:
    answer = await one.call(method, path, params={**PROJECT, **how.pop("params", {})}, **how)
    assert answer.status_code < 300, answer.text
    return answer.json()


def test_something_was_left() -> None:
    assert LEFT, "tests/versions/record.py makes it"


async def test_ingest_knows_its_samples_and_takes_more(stores: Stores, tmp_path: Path) -> None:
    async with stores.running(ingest, "ingest", tmp_path) as one:
        rows = (await asked(one, "/v1/samples", params={"limit": 100}))["items"]
        assert {row["sample_id"] for row in rows} == stores.samples.keys()
        assert len(rows) == POOL
        content = await one.call("GET", f"/v1/samples/{rows[0]['sample_id']}/content", params=PROJECT)
        known = await one.call("POST", "/v1/samples", params=PROJECT, json={"row": content.json()})
        assert (known.status_code, known.json()["sample_id"]) == (200, rows[0]["sample_id"])
        new = await one.call("POST", "/v1/samples", params=PROJECT, json={"row": {"x": 7.5, "y": 1.0}})
        assert new.status_code == 201, new.text
        assert len(await one.data(SampleIngested)) == 1
        assert (await asked(one, "/v1/stats"))["states"]["STORED"] == POOL + 1
        story = await asked(one, f"/v1/samples/{rows[0]['sample_id']}/history")
        assert {"sample.ingested", "sample.scored"} <= {event["type"] for event in story["events"]}


async def test_infer_serves_the_model_that_served(stores: Stores, tmp_path: Path) -> None:
    pointer = stores.records("retrain-trigger")["ptr:active:upgrade"]
    async with stores.running(infer, "infer", tmp_path) as one:
        await wait_until(lambda: not one.service.unready())
        said = await asked(one, "/v1/predict", "POST", json={"inputs": [{"row": {"x": 0.0, "y": 0.0}}]})
        assert said["model_version"] == pointer["version"]
        known = next(iter(stores.samples))
        assert (await asked(one, "/v1/predict", "POST", json={"sample_id": known}))["predictions"]


async def test_select_uncertain_has_its_pool_and_opens_a_round(stores: Stores, tmp_path: Path) -> None:
    async with stores.running(select_uncertain, "select-uncertain", tmp_path) as one:
        stats = await asked(one, "/v1/stats")
        assert (stats["seen"], stats["asked"], stats["states"]["CANDIDATE"]) == (POOL, ASKED, POOL - ASKED)
        etag = (await one.call("GET", "/v1/policies/default", params=PROJECT)).headers["etag"]
        policy = {"budget": ASKED + 4, "batch": 4, "min_pool": 1, "settle_seconds": 0, "audit": 0, "control": 0}
        await asked(one, "/v1/policies/default", "PUT", json=policy, headers={"if-match": etag})

        async def four_more() -> bool:
            return (await asked(one, "/v1/stats"))["asked"] == ASKED + 4

        await wait_until(four_more)
        picked = {row["sample_id"] for row in await one.data(SampleSelected)}
        before = {key for key, row in stores.records("label-queue").items() if key.startswith("tsk:")}
        assert len(picked) == 4
        assert picked <= stores.samples.keys()
        assert before


async def test_label_queue_has_its_labels_and_takes_more(stores: Stores, tmp_path: Path) -> None:
    async with stores.running(label_queue, "label-queue", tmp_path) as one:
        rows = (await asked(one, "/v1/tasks", params={"limit": 500}))["items"]
        labelled = {row["sample_id"] for row in rows if row["state"] == "ACCEPTED" and row["round_id"]}
        assert len(labelled) == ASKED
        free = sorted(stores.samples.keys() - {row["sample_id"] for row in rows})[0]
        content = Content.model_validate(stores.samples[free]["content"])
        event = SampleSelected(
            project="upgrade", sample_id=free, round_id="rnd_later", content=content, priority=0.9,
            reasons=["uncertain"], policy=PolicyRef(id="default", version=1), strategy="margin", seed=0,
        )  # fmt: skip
        assert await one.deliver(event) == ["SUCCESS"]
        (task,) = (await asked(one, "/v1/tasks:claim", "POST", json={"annotator": "ann", "n": 5}))["tasks"]
        assert task["sample_id"] == free
        body = {"annotator": "ann", "epoch": task["lease"]["epoch"], "value": "high"}
        await asked(one, f"/v1/tasks/{task['id']}/annotations", "POST", json=body)
        (told,) = await one.data(LabelAccepted)
        assert (told["sample_id"], told["value"]) == (free, "high")
        exported = await one.call("GET", "/v1/export", params={**PROJECT, "format": "jsonl"})
        assert len(exported.text.splitlines()) == len([row for row in rows if row["state"] == "ACCEPTED"]) + 1


async def test_retrain_trigger_has_its_runs_and_trains_the_next(stores: Stores, tmp_path: Path) -> None:
    async with stores.running(retrain_trigger, "retrain-trigger", tmp_path) as one:
        runs = (await asked(one, "/v1/runs"))["items"]
        assert Counter(run["state"] for run in runs) == {"SUCCEEDED": 2}
        last = max(runs, key=lambda run: run["ended_at"])
        before = await asked(one, f"/v1/snapshots/{last['snapshot']['id']}/content")
        assert len(before["train"]) == ASKED
        models = (await asked(one, "/v1/models"))["items"]
        assert {row["version"] for row in models} == {run["model_version"] for run in runs}
        trained = {row["sample_id"] for row in before["train"]}
        fresh = sorted(stores.samples.keys() - trained)[:8]
        assert await one.deliver_batch([_label(stores, name) for name in fresh]) == ["SUCCESS"] * 8
        ended = await wait_until(_third_run(one), 120)
        after = await asked(one, f"/v1/snapshots/{ended['snapshot']['id']}/content")
        assert {row["sample_id"] for row in after["train"]} == trained | set(fresh)
        if ended["promoted"]:
            assert [row["version"] for row in await one.data(ModelActivated)] == [ended["model_version"]]


def _label(stores: Stores, name: str) -> LabelAccepted:
    content = Content.model_validate(stores.samples[name]["content"])
    value = "high" if int(name[-1], 36) % 2 else "low"
    return LabelAccepted(project="upgrade", sample_id=name, label_revision=1, value=value, content=content)


def _third_run(one: Running) -> Callable[[], Any]:
    async def ended() -> Any:
        runs = (await asked(one, "/v1/runs"))["items"]
        assert not [run for run in runs if run["state"] in ("FAILED", "CANCELLED")], runs
        return runs[0] if len(runs) == 3 and all(run["state"] == "SUCCEEDED" for run in runs) else None

    return ended


async def test_a_store_of_a_newer_version_is_left_alone(tmp_path: Path, ports: Ports) -> None:
    await ports.state.commit([Put(schema.KEY, {"form": schema.FORM + 1})])
    with pytest.raises(schema.NewerState, match="start the version that wrote them"):
        async with started(ingest.create, tmp_path, ports):
            pass
    assert ports.state.rows() == [schema.KEY]


async def test_a_new_store_notes_its_form(tmp_path: Path, ports: Ports) -> None:
    async with started(ingest.create, tmp_path, ports):
        assert (await ports.state.get([schema.KEY]))[schema.KEY].value == {"form": schema.FORM}
