"""ingest under a budget of bytes: what is kept, what goes, who hears of it; with conflicts, failures and restarts."""

import contextlib
import random
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import Running, started, wait_until
from worlds import png, project

from services.contracts.events import (
    BufferFlushRequested,
    Content,
    LabelAccepted,
    PolicyRef,
    SampleDiscarded,
    SampleExpired,
    SampleIngested,
    SampleScored,
    SampleSelected,
    SampleUploaded,
)
from services.ingest.app import create
from services.runtime.errors import Unavailable
from services.runtime.ports import Ports

SIZE = 96
POLICY = PolicyRef(id="default", version=1)


def picture(shade: int) -> bytes:
    """All of one size; what stands after a picture's end is of no matter."""
    return png(shade).ljust(SIZE, b"\0")


@pytest.fixture
def budget(monkeypatch: pytest.MonkeyPatch) -> Any:
    def of(samples: float) -> None:
        monkeypatch.setenv("HALFSURE_INGEST_BUFFER_BYTES", str(int(SIZE * samples)))

    return of


@contextlib.asynccontextmanager
async def ingesting(tmp_path: Path, ports: Ports, **kwargs: Any) -> AsyncIterator[Running]:
    async with started(create, tmp_path, ports, **kwargs) as running:
        await running.deliver(await project(running.blobs))
        yield running


async def send(running: Running, shade: int) -> Any:
    return await running.call("POST", "/v1/samples", content=picture(shade), headers={"content-type": "image/png"})


def content(record: Mapping[str, Any]) -> Content:
    return Content.model_validate(record["content"])


async def score(running: Running, record: Mapping[str, Any], margin: float, version: str = "mdl_1") -> None:
    await running.deliver(
        SampleScored(
            project="default",
            sample_id=record["sample_id"],
            model_version=version,
            task="image-classification",
            content=content(record),
            scores={"margin": margin},
        )
    )


async def select(running: Running, record: Mapping[str, Any], priority: float) -> None:
    await running.deliver(
        SampleSelected(
            project="default",
            sample_id=record["sample_id"],
            round_id="rnd_1",
            content=content(record),
            priority=priority,
            reasons=["x"],
            policy=POLICY,
            strategy="margin",
            seed=0,
        )
    )


def held(running: Running) -> int:
    """Bytes of samples that are really in the store."""
    return sum(len(raw) for uri, raw in running.blobs.contents.items() if uri.startswith("blob:samples/"))


async def buffer(running: Running) -> dict[str, Any]:
    return (await running.call("GET", "/v1/buffer")).json()


async def test_under_a_tenth_of_the_room_the_best_stay_and_the_others_are_told(
    tmp_path: Path, ports: Ports, budget: Any
) -> None:
    budget(20)
    rng = random.Random(7)
    values: dict[str, float] = {}
    async with ingesting(tmp_path, ports) as running:
        for shade in range(1, 201):
            answer = await send(running, shade)
            assert answer.status_code == 202
            assert answer.json()["state"] == "BUFFERED"
            values[answer.json()["sample_id"]] = rng.random()
            await score(running, answer.json(), values[answer.json()["sample_id"]])
            assert held(running) <= 20 * SIZE
        expired = await running.data(SampleExpired)
        gone = {row["sample_id"]: values[row["sample_id"]] for row in expired}
        kept = {name: value for name, value in values.items() if name not in gone}
        assert len(gone) == len(expired)
        # The share for newcomers is kept free, a little later.
        await wait_until(lambda: held(running) == 18 * SIZE)
        gone |= {row["sample_id"]: values[row["sample_id"]] for row in await running.data(SampleExpired)}
        kept = {name: value for name, value in values.items() if name not in gone}
        assert min(kept.values()) >= sum(gone.values()) / len(gone)
        seen = await buffer(running)
        assert (seen["bytes"], seen["depth"]) == (held(running), len(kept))
        assert seen["dropped"] == {"samples": len(gone), "bytes": len(gone) * SIZE, "by_reason": {"value": len(gone)}}
        stats = (await running.call("GET", "/v1/stats")).json()
        assert stats["states"] == {"STORED": len(kept), "WITHDRAWN": 0, "EXPIRED": len(gone)}
        assert stats["bytes"] == held(running)
        lost = next(iter(gone))
        assert (await running.call("GET", f"/v1/samples/{lost}")).json()["state"] == "EXPIRED"
        assert (await running.call("GET", f"/v1/samples/{lost}/content")).status_code == 410
        story = (await running.call("GET", f"/v1/samples/{lost}/history")).json()["events"]
        assert {row["type"] for row in story} == {"sample.ingested", "sample.scored", "sample.expired"}
        listed = (await running.call("GET", "/v1/samples?state=STORED&limit=500")).json()["items"]
        assert {row["sample_id"] for row in listed} == set(kept)
    # After a restart the same is known, and the same goes on.
    async with ingesting(tmp_path, ports) as running:
        assert await buffer(running) == seen
        assert (await send(running, 201)).status_code == 202
        assert held(running) <= 20 * SIZE


async def test_what_was_let_go_and_comes_again_needs_no_room(tmp_path: Path, ports: Ports, budget: Any) -> None:
    budget(2)
    async with ingesting(tmp_path, ports) as running:
        first = (await send(running, 1)).json()
        await score(running, first, 0.1)
        for shade in (2, 3):
            await score(running, (await send(running, shade)).json(), 0.9)
        assert [row["sample_id"] for row in await running.data(SampleExpired)] == [first["sample_id"]]
        for _ in range(3):
            again = await send(running, 1)
            assert (again.status_code, again.json()["state"], again.json()["duplicate"]) == (200, "EXPIRED", True)
        assert await running.data(SampleExpired) == []
        assert held(running) == 2 * SIZE


async def test_what_is_asked_about_refuses_newcomers_until_it_is_uploaded_or_its_time_is_over(
    tmp_path: Path, ports: Ports, budget: Any
) -> None:
    budget(2)
    async with ingesting(tmp_path, ports) as running:
        asked = [(await send(running, shade)).json() for shade in (1, 2)]
        for record, priority in zip(asked, (0.3, 0.6), strict=True):
            await select(running, record, priority)
        refused = await send(running, 3)
        assert refused.status_code == 507
        assert refused.json()["type"].endswith("buffer-full")
        stats = (await running.call("GET", "/v1/stats")).json()
        assert stats["rejected"] == {"quota": 1}
        # Uploaded: the copy here may go, and this is no loss for anybody.
        up = SampleUploaded(project="default", sample_id=asked[1]["sample_id"], content=content(asked[1]))
        await running.deliver(up, up)
        assert (await running.call("GET", f"/v1/samples/{asked[1]['sample_id']}")).json()["state"] == "STORED"
        assert (await send(running, 3)).status_code == 202
        (gone,) = await running.data(SampleExpired)
        assert (gone["sample_id"], gone["reason"]) == (asked[1]["sample_id"], "uploaded")
        # Over its time, it competes; a newcomer that nobody has scored goes first as long as there is one.
        running.clock.step(7201)
        assert (await send(running, 4)).status_code == 202
        await score(running, (await send(running, 4)).json(), 0.9)
        assert (await send(running, 5)).status_code == 202
        reasons = [(row["sample_id"], row["reason"]) for row in await running.data(SampleExpired)]
        assert reasons[-1] == (asked[0]["sample_id"], "ttl")


async def test_labels_stay_and_discarded_go_first(tmp_path: Path, ports: Ports, budget: Any) -> None:
    budget(3)
    async with ingesting(tmp_path, ports) as running:
        records = [(await send(running, shade)).json() for shade in (1, 2, 3)]
        for record, margin in zip(records, (0.1, 0.2, 0.9), strict=True):
            await score(running, record, margin)
        one = records[0]
        await running.deliver(
            LabelAccepted(
                project="default",
                sample_id=one["sample_id"],
                label_revision=1,
                value="dark",
                content=content(one),
                is_audit=False,
                schema_version=1,
            ),
            SampleDiscarded(project="default", sample_id=records[2]["sample_id"], policy=POLICY),
        )
        for shade in (4, 5):
            assert (await send(running, shade)).status_code == 202
        told = {row["sample_id"]: row["reason"] for row in await running.data(SampleExpired)}
        assert told[records[2]["sample_id"]] == "discarded"
        assert one["sample_id"] not in told


async def test_somebody_at_a_question_keeps_its_content(tmp_path: Path, ports: Ports, budget: Any) -> None:
    budget(1)
    states: dict[str, str] = {}

    def queue(path: str, _: Mapping[str, str]) -> Any:
        return {"state": states[path.rpartition("/")[2]]}

    ports.peers._answers["label-queue"] = queue  # type: ignore[attr-defined]
    async with ingesting(tmp_path, ports) as running:
        asked = (await send(running, 1)).json()
        await select(running, asked, 0.5)
        running.clock.step(7201)
        states[asked["sample_id"]] = "LEASED"
        assert (await send(running, 2)).status_code == 507
        states[asked["sample_id"]] = "QUEUED"
        running.clock.step(7201)
        assert (await send(running, 2)).status_code == 202


async def test_a_store_that_fails_midway_leaves_nothing_counted_twice_or_lost(
    tmp_path: Path, ports: Ports, budget: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget(4)
    rng = random.Random(3)
    async with ingesting(tmp_path, ports) as running:
        commit, delete = running.state.commit, running.blobs.delete

        async def flaky(ops: Any) -> None:
            fate = rng.random()
            if fate < 0.2:
                raise Unavailable("before")
            await commit(ops)
            if fate > 0.8:
                raise Unavailable("after")

        async def stuck(uri: str) -> None:
            if rng.random() < 0.2:
                raise OSError("the disk")
            await delete(uri)

        monkeypatch.setattr(running.state, "commit", flaky)
        monkeypatch.setattr(running.blobs, "delete", stuck)
        for shade in range(1, 60):
            await send(running, shade)
            assert held(running) <= 4 * SIZE
        monkeypatch.setattr(running.state, "commit", commit)
        monkeypatch.setattr(running.blobs, "delete", delete)
        for shade in range(1, 80):
            assert (await send(running, shade)).status_code in (200, 202)
        events = [(e["type"], e["subject"]) for _, e in await running.published()]
        came = {subject for kind, subject in events if kind == SampleIngested.type}
        went = {subject for kind, subject in events if kind == SampleExpired.type}
        assert len(came) == 79
        assert went < came
        seen = await buffer(running)
        assert seen["depth"] == len(came) - len(went)
        assert seen["dropped"]["samples"] == len(went)
        assert seen["bytes"] == held(running)


async def test_a_crash_between_state_and_erasure_is_ended_at_the_next_start(
    tmp_path: Path, ports: Ports, budget: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget(1)

    async def never(uri: str) -> None:
        raise OSError("the power went")

    async with ingesting(tmp_path, ports) as running:
        await send(running, 1)
        monkeypatch.setattr(running.blobs, "delete", never)
        assert (await send(running, 2)).status_code == 500
        assert held(running) == SIZE
        monkeypatch.undo()
    budget(1)
    async with ingesting(tmp_path, ports) as running:
        assert held(running) == 0
        assert (await buffer(running))["dropped"]["samples"] == 1
        assert (await send(running, 2)).status_code == 202


async def test_flush_asks_uplink_and_outside_its_window_only_by_force(tmp_path: Path, ports: Ports) -> None:
    window = {"open": False, "opens": "2026-01-01T22:00:00+00:00"}

    def uplink(path: str, _: Mapping[str, str]) -> Any:
        assert path == "v1/uplink"
        return {"window": window, "up": {"waiting": 3}}

    async with ingesting(tmp_path, ports) as running:
        alone = await running.call("POST", "/v1/buffer:flush")
        assert alone.status_code == 503
        ports.peers._answers["uplink"] = uplink  # type: ignore[attr-defined]
        closed = await running.call("POST", "/v1/buffer:flush")
        assert (closed.status_code, closed.json()["type"]) == (409, "urn:halfsure:problem:uplink-closed")
        assert "22:00" in closed.json()["detail"]
        forced = await running.call("POST", "/v1/buffer:flush", json={"force": True})
        assert (forced.status_code, forced.json()) == (202, {"waiting": 3, "force": True})
        assert [row["force"] for row in await running.data(BufferFlushRequested)] == [True]
        assert (await running.call("POST", "/v1/buffer:flush", "viewer")).status_code == 403
        window["open"] = True
        assert (await running.call("POST", "/v1/buffer:flush", json={})).status_code == 202


async def test_without_a_budget_everything_stays(tmp_path: Path, ports: Ports) -> None:
    async with ingesting(tmp_path, ports) as running:
        assert (await send(running, 1)).status_code == 201
        seen = await buffer(running)
        assert (seen["budget"], seen["dropped"]["samples"]) == (None, 0)
        await wait_until(lambda: running.service.unready() == {})
