"""Services on memory ports: a project `default` with something behind each route, and an empty `other`."""

import contextlib
import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import crowd
import orjson
import pytest
import worlds
import yaml
from conftest import Running, started, wait_until
from inferring import activated, model, samples
from training import Rehearsal, make, train_first

from services.contracts.envelope import wrap
from services.contracts.events import Event, Ref, SampleScored, SampleWithdrawn
from services.contracts.ids import task_id
from services.runtime.service import Service

APPS = ("ingest", "infer", "select-uncertain", "label-queue", "retrain-trigger", "uplink", "portal")
MINE, OTHER = "default", "other"


@dataclass
class Filled:
    """A running service and a name that is real for each parameter of its paths and queries."""

    running: Running
    names: dict[str, str] = field(default_factory=dict)

    def path(self, template: str) -> str:
        """The path, its parameters filled in; what a route needs in its query comes with it."""
        query = {"/v1/models/compare": "a={version}&b={version}", "/v1/snapshots/{snapshot}/diff": "from={snapshot}"}
        whole = f"{template}?{query[template]}" if template in query else template
        return re.sub(r"\{(\w+)\}", lambda found: self.names[found[1]], whole)


def operations(service: Service) -> list[tuple[str, str]]:
    """(method, path) of every public route, by the service's own OpenAPI."""
    paths: Mapping[str, Mapping[str, Any]] = service.api.openapi()["paths"]
    return [(method.upper(), path) for path, methods in paths.items() for method in methods]


def create(app: str, **more: Any) -> Callable[..., Service]:
    """What makes a service by its app id."""
    made = import_module(f"services.{app.replace('-', '_')}.app").create
    return (lambda settings, connect: made(settings, connect, **more)) if more else made


def no_samples(path: str, params: Mapping[str, str]) -> Any:
    """An ingest that has none."""
    if path != "v1/samples":
        raise KeyError(path)
    return {"items": [], "cursor": None}


@contextlib.asynccontextmanager
async def filled(app: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> AsyncIterator[Filled]:
    """The service, started and filled by its own routes and by what it hears."""
    if app == "ingest":
        source = {"name": "drop", "kind": "folder", "path": str(folder), "settle_seconds": 3600}
        (folder / "sources.yaml").write_text(yaml.safe_dump({"sources": [source]}))
        monkeypatch.setenv("HALFSURE_INGEST_SOURCES", str(folder / "sources.yaml"))
    more = {"backend": Rehearsal()} if app == "retrain-trigger" else {}
    async with started(create(app, **more), folder, peers={"ingest": no_samples}, **settings) as running:
        one = Filled(running)
        await FILLS.get(app, _only_projects)(one)
        one.names["letter"] = await dead_letter(running)
        yield one


async def dead_letter(running: Running) -> str:
    """An event of `default` that does not fit, on the shelf; its id."""
    listens = next(iter(running.service.inbox.subscriptions))
    envelope = orjson.loads(wrap(withdrawn("smp_a"), siteid="test", service="test", now=running.clock.now()))
    await running.deliver_raw(listens.topic, [{**envelope, "type": listens.type, "data": {"project": MINE}}])
    letters = (await running.call("GET", "/v1/deadletters")).json()["items"]
    return next(row["id"] for row in letters if row["dlq"]["reason"].startswith("data does not fit"))


def withdrawn(sample: str) -> SampleWithdrawn:
    return SampleWithdrawn(project=MINE, sample_id=sample, who="ann", why="privacy", erase_content=True)


async def _heard(running: Running, *events: Event) -> None:
    assert set(await running.deliver(*events)) == {"SUCCESS"}


async def _projects(running: Running) -> None:
    for name in (MINE, OTHER):
        await _heard(running, await worlds.project(running.blobs, name))


async def _only_projects(one: Filled) -> None:
    await _projects(one.running)
    one.names["name"] = MINE


async def _ingest(one: Filled) -> None:
    await _projects(one.running)
    answer = await one.running.call("POST", "/v1/samples", content=worlds.png(1), headers={"content-type": "image/png"})
    one.names |= {"sample": answer.json()["sample_id"], "name": "drop"}


async def _infer(one: Filled) -> None:
    await _projects(one.running)
    await _heard(one.running, activated(await model(one.running)))
    found = await samples(one.running, [worlds.png(1)])
    await _heard(one.running, *found)

    async def loaded() -> bool:
        return any(row["active"] for row in (await one.running.call("GET", "/v1/loaded-models")).json()["items"])

    await wait_until(loaded)
    body = {"model_version": "mdl_1", "sample_ids": [found[0].sample_id]}
    job = await one.running.call("POST", "/v1/rescore", json=body)

    async def rescored() -> bool:
        return (await one.running.call("GET", f"/v1/rescore/{job.json()['id']}")).json()["state"] == "DONE"

    await wait_until(rescored)
    one.names |= {"version": "mdl_1", "name": job.json()["id"], "sample": found[0].sample_id}


async def _select(one: Filled) -> None:
    running = one.running
    rule = {"batch": 2, "low_water": 1, "min_pool": 4, "settle_seconds": 3600, "control": 0, "audit": 0}
    for name in (MINE, OTHER):
        event = crowd.project(name, policy=rule)
        await _heard(running, event)
    names = [f"smp_{n}" for n in range(8)]
    uri = await running.blobs.put("embeddings/x", b"\x00\x00\x80\x3f" * 16)
    for row, sample in enumerate(names):
        await _heard(
            running,
            SampleScored.model_validate(
                {
                    **{"project": MINE, "sample_id": sample, "model_version": "none", "task": "image-classification"},
                    **{"content": crowd.CONTENT, "labels": [], "probabilities": []},
                    "embedding_ref": Ref(uri=uri, row=row, dim=2),
                }
            ),
        )
    opened = await running.call("POST", "/v1/rounds", json={"budget": 2})
    assert (await running.call("PUT", "/v1/policies/mine", json=rule)).status_code == 201
    one.names |= {"policy_id": "mine", "round_id": opened.json()["id"], "sample_id": "smp_0"}


async def _label_queue(one: Filled) -> None:
    running = one.running
    uri = await running.blobs.put("samples/default/x", b"x")
    await _heard(running, crowd.project(), crowd.project(OTHER))
    content = {**crowd.CONTENT, "uri": uri}
    await _heard(running, *(crowd.selected(name, content=content) for name in ("smp_a", "smp_b")))
    (task,) = await crowd.claim(running, annotator="annotator")
    answered = (await crowd.submit(running, task, annotator="annotator")).json()
    left = {"smp_a", "smp_b"} - {task["sample_id"]}
    one.names |= {"task": task_id(MINE, left.pop()), "annotation": answered["id"]}
    one.names |= {"sample": task["sample_id"], "name": MINE}


async def _retrain(one: Filled) -> None:
    run = await train_first(one.running)
    await make(one.running, name=OTHER)
    one.names |= {"name": MINE, "run": run["run_id"], "snapshot": run["snapshot"]["id"]}
    one.names |= {"version": run["model_version"]}


FILLS = {
    "ingest": _ingest,
    "infer": _infer,
    "select-uncertain": _select,
    "label-queue": _label_queue,
    "retrain-trigger": _retrain,
}
