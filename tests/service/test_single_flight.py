"""When a run starts and when none does: enough of each class, new data, one at a time, whoever asks and how often."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Running, started, wait_until
from training import SPEC, N, Rehearsal, ask, ended, evaluation, label, make, running, runs, settled, train_first

from services.contracts.events import TrainingRequested
from services.retrain_trigger import app
from services.runtime.ports import Ports

pytestmark = pytest.mark.usefixtures("brisk")


async def test_without_15_labels_of_each_class_no_run_starts_and_the_refusal_names_them(tmp_path: Path) -> None:
    """15 is the default; a project may do with 2."""
    async with running(tmp_path, Rehearsal()) as one:
        await make(one, trigger={"n": 1})
        await one.deliver_batch(evaluation())
        await one.deliver_batch([label(number) for number in range(28)])  # 14 of each
        await settled(one)
        refused = await one.call("POST", "/v1/runs", json={})
        assert (refused.status_code, refused.json()["title"]) == (409, "not enough labels")
        assert [(row["pointer"], row["message"]) for row in refused.json()["errors"]] == [
            ("/labels/dark", "'dark' lacks 1 labels"),
            ("/labels/bright", "'bright' lacks 1 labels"),
        ]
        assert await runs(one) == []
        await one.deliver(label(28))
        await settled(one)
        assert (await ask(one, "/v1/triggers/default"))["missing"] == {"per_class": {"bright": 1}}
        assert await runs(one) == []
        await one.deliver(label(29))
        assert (await ended(one))[0]["state"] == "SUCCEEDED"


@pytest.mark.parametrize(("least", "status"), [(2, 202), (3, 409)])
async def test_a_project_may_do_with_two_of_each_class(tmp_path: Path, least: int, status: int) -> None:
    async with running(tmp_path, Rehearsal()) as one:
        await make(one, trigger={"n": 100, "min_per_class": least})
        await one.deliver_batch([*evaluation()])
        await one.deliver_batch([label(number) for number in range(4)])
        assert (await one.call("POST", "/v1/runs", json={})).status_code == status


async def test_the_same_data_is_the_same_run_and_only_post_asks_for_one(tmp_path: Path) -> None:
    backend = Rehearsal()
    async with running(tmp_path, backend) as one:
        first = await train_first(one)
        for body in ({}, {"force": True}):
            again = await one.call("POST", "/v1/runs", json=body)
            assert (again.status_code, again.json()["run_id"]) == (200, first["run_id"])
        for method, path in (("GET", "/v1/runs"), ("GET", f"/v1/runs/{first['run_id']}")):
            assert (await one.call(method, path)).status_code == 200
        for method, path in (("GET", f"/v1/runs/{first['run_id']}:cancel"), ("GET", "/v1/models:rollback")):
            assert (await one.call(method, path)).status_code in (404, 405)
        await settled(one)
        assert backend.submitted == 1
        assert len(await runs(one)) == 1


async def test_two_replicas_fly_one_run_at_a_time_and_hold_no_message(tmp_path: Path, ports: Ports) -> None:
    """Both hear of labels, both look at the rule, and both are asked for a run by hand, all at once."""
    backend = Rehearsal()
    backend.hold.clear()
    (tmp_path / "two").mkdir()
    created: Callable[..., Any] = lambda settings, connect: app.create(settings, connect, backend)  # noqa: E731
    async with running(tmp_path, backend, ports) as one, started(created, tmp_path / "two", ports, replica=1) as two:
        await make(one)
        await wait_until(lambda: _knows(two))
        await one.deliver_batch(evaluation())
        labels = [label(number) for number in range(2 * N)]
        await asyncio.gather(one.deliver_batch(labels[:N]), two.deliver_batch(labels[N:]))
        asked = await asyncio.gather(*(who.call("POST", "/v1/runs", json={}) for who in (one, two) for _ in range(5)))
        assert {answer.status_code for answer in asked} <= {200, 202, 409}
        await wait_until(lambda: backend.submitted)
        await settled(one)
        assert backend.submitted == 1
        (run,) = await runs(one)
        # The run lasts as long as it likes: no message waits for it.
        more = [label(number) for number in range(2 * N, 3 * N)]
        verdicts = await asyncio.wait_for(asyncio.gather(one.deliver_batch(more), two.deliver_batch(labels)), 5)
        assert {verdict for part in verdicts for verdict in part} == {"SUCCESS"}
        assert [row["run_id"] for row in await runs(two)] == [run["run_id"]]
        assert (await two.call("POST", "/v1/runs", json={})).json()["title"] == "run active"
        backend.hold.set()
        await ended(one, 2)
        await settled(two)
        requested = [row["run_id"] for row in await one.data(TrainingRequested)]
        assert len(requested) == len(set(requested)) == len(await runs(one))
        assert max(row["snapshot"]["counts"]["train"] for row in await runs(one)) == 3 * N


async def _knows(one: Running) -> bool:
    """Whether a replica has heard of the project; the broker tells it in production."""
    await one.service.projects.load()
    return (await one.call("GET", f"/v1/projects/{SPEC['name']}")).status_code == 200
