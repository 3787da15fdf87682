"""How a run goes on, as people can follow it: by REST, by events, and by the portal's stream."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from conftest import Running, started, wait_until
from listening import Listener, on_a_socket
from training import N, Rehearsal, ask, ended, evaluation, label, make, running, runs

from services.portal.app import create as portal_app

pytestmark = pytest.mark.usefixtures("brisk")


@asynccontextmanager
async def watched(folder: Path, backend: Rehearsal) -> AsyncIterator[tuple[Running, Running, Listener]]:
    """retrain-trigger, the portal, and somebody who listens to its stream."""
    for name in ("trigger", "portal"):
        (folder / name).mkdir()
    async with (
        running(folder / "trigger", backend) as one,
        started(portal_app, folder / "portal") as portal,
        on_a_socket(portal) as port,
        Listener(port, query="?project=default") as listener,
    ):
        await make(one)
        await one.deliver_batch(evaluation())
        yield one, portal, listener


async def told(one: Running, portal: Running) -> None:
    """What the broker does: the portal hears what retrain-trigger has said."""
    heard = {event.topic for event in portal.service.inbox.subscriptions}
    for topic, envelope in await one.published():
        if topic in heard:
            assert await portal.deliver_raw(topic, [envelope]) == ["SUCCESS"]


async def under_way(one: Running) -> str | None:
    found = await runs(one)
    return found[0]["run_id"] if found and found[0]["state"] == "RUNNING" else None


async def test_every_stage_of_a_run_is_seen(tmp_path: Path) -> None:
    """Row 4.25: over REST, and in the stream that the page listens to."""
    backend = Rehearsal()
    backend.hold.clear()
    async with watched(tmp_path, backend) as (one, portal, listener):
        await one.deliver_batch([label(number) for number in range(N)])
        run = await wait_until(lambda: under_way(one))
        shown = await ask(one, f"/v1/runs/{run}")
        assert (shown["state"], shown["progress"]["step"], shown["ended_at"]) == ("RUNNING", "follow", None)
        await told(one, portal)
        for kind in ("training.requested", "training.started"):
            (row,) = await listener.heard(kind)
            assert row["data"]["run_id"] == run
        assert listener.told("training.succeeded") == []
        backend.hold.set()
        (over,) = await ended(one)
        assert (await ask(one, f"/v1/runs/{run}"))["progress"]["step"] == "end"
        await told(one, portal)
        assert (await listener.heard("training.succeeded"))[0]["data"]["run_id"] == run
        for kind in ("model.registered", "model.activated"):
            (row,) = await listener.heard(kind)
            assert row["data"]["version"] == over["model_version"]


async def test_a_run_that_fails_and_one_that_is_cancelled_are_seen_to(tmp_path: Path) -> None:
    backend = Rehearsal()
    backend.fail = "not-trainable: because"
    async with watched(tmp_path, backend) as (one, portal, listener):
        await one.deliver_batch([label(number) for number in range(N)])
        (failed,) = await ended(one)
        await told(one, portal)
        (row,) = await listener.heard("training.failed")
        assert row["data"] == {"run_id": failed["run_id"], "error": "not-trainable: because"}
        backend.fail = None
        backend.hold.clear()
        one.clock.step(31)
        await one.deliver_batch([label(number) for number in range(N, 2 * N)])
        run = await wait_until(lambda: under_way(one))
        assert (await one.call("POST", f"/v1/runs/{run}:cancel")).status_code == 202
        await ended(one, 2)
        await told(one, portal)
        assert [row["data"]["run_id"] for row in await listener.heard("training.cancelled")] == [run]
