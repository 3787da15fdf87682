"""uplink: what goes up and comes down, once each, with its content, whoever is away or crashes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from conftest import Running, started, wait_until
from worlds import NOON, classifier, packaged, png, project, stored

from services.contracts.envelope import wrap
from services.contracts.events import (
    BufferFlushRequested,
    Content,
    Event,
    LabelAccepted,
    ModelActivated,
    PolicyRef,
    SampleScored,
    SampleSelected,
    SampleUploaded,
    SampleWithdrawn,
)
from services.contracts.ids import sample_id, sha256
from services.runtime.folder import FolderBlobs
from services.runtime.memory import MemoryBus
from services.runtime.ports import Ports
from services.uplink.app import create
from services.uplink.traffic import DOWN, UP


class Site:
    """A site with its uplink, and the cloud's side of it: a broker and a folder of blobs."""

    def __init__(self, running: Running, cloud: MemoryBus, far: FolderBlobs) -> None:
        self.running = running
        self.cloud = cloud
        self.far = far

    async def selected(self, shade: int, round_id: str = "rnd_1") -> SampleSelected:
        picture = png(shade)
        content = await stored(self.running.blobs, f"samples/default/{sha256(picture)}", picture, "image/png")
        return selection(content, round_id)

    async def went_up(self) -> list[dict[str, Any]]:
        for lane in ("cloud", "content"):
            await self.running.service.outboxes[lane].drain()
        return [envelope for _, envelope in self.cloud.take()]

    async def came_down(self) -> list[dict[str, Any]]:
        return [envelope for _, envelope in await self.running.published()]

    async def dead(self) -> list[dict[str, Any]]:
        return (await self.running.call("GET", "/v1/deadletters")).json()["items"]


def selection(content: Content, round_id: str = "rnd_1") -> SampleSelected:
    return SampleSelected(
        project="default",
        sample_id=sample_id("default", content.sha256),
        round_id=round_id,
        content=content,
        priority=0.5,
        reasons=["margin 0.01"],
        policy=PolicyRef(id="default", version=1),
        strategy="margin",
        seed=0,
    )


@pytest.fixture
def cloud() -> MemoryBus:
    return MemoryBus()


@pytest.fixture
def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderBlobs:
    monkeypatch.setenv("HALFSURE_CLOUD_BLOBS", (tmp_path / "far").as_uri())
    return FolderBlobs(tmp_path / "far")


@contextlib.asynccontextmanager
async def site(tmp_path: Path, ports: Ports, cloud: MemoryBus, far: FolderBlobs) -> AsyncIterator[Site]:
    ports.bus = {"cloud": cloud}.__getitem__
    async with started(create, tmp_path, ports, siteid="edge-1", projects_owner="uplink") as running:
        yield Site(running, cloud, far)


def raw(event: Event) -> dict[str, Any]:
    return orjson.loads(wrap(event, siteid="elsewhere", service="select-uncertain", now=NOON))


def test_no_fact_goes_both_ways() -> None:
    assert not {event.topic for event in UP} & {event.topic for event in DOWN}


async def test_what_is_asked_about_goes_up_once_and_as_it_was(
    tmp_path: Path, ports: Ports, cloud: MemoryBus, far: FolderBlobs
) -> None:
    async with site(tmp_path, ports, cloud, far) as edge:
        event = await edge.selected(10)
        envelope = raw(event)
        for _ in range(3):
            assert await edge.running.deliver_raw("sample-selected", [envelope] * 5) == ["SUCCESS"] * 5
        assert await edge.went_up() == [envelope]
        assert await far.get(event.content.uri) == png(10)
        # At the site, ingest hears that the cloud has a copy.
        (told,) = await edge.came_down()
        assert (told["type"], told["subject"]) == (SampleUploaded.type, event.sample_id)


async def test_what_nobody_asks_about_stays_at_the_site(
    tmp_path: Path, ports: Ports, cloud: MemoryBus, far: FolderBlobs
) -> None:
    async with site(tmp_path, ports, cloud, far) as edge:
        scored = SampleScored(
            project="default",
            sample_id=sample_id("default", "a"),
            model_version="none",
            task="image-classification",
            content=(await edge.selected(11)).content,
            latency_ms=1,
            provider="cpu",
        )
        assert await edge.running.deliver(scored) == ["SUCCESS"]
        assert await edge.went_up() == []
        assert not (tmp_path / "far").exists()


async def test_while_the_cloud_is_away_everything_waits_and_survives_a_restart(
    tmp_path: Path, ports: Ports, cloud: MemoryBus, far: FolderBlobs
) -> None:
    cloud.down = True
    async with site(tmp_path, ports, cloud, far) as edge:
        first = await edge.selected(1)
        await edge.running.deliver(first)
        # The way down does not wait for the way up.
        await edge.running.deliver(await project(far))
        await wait_until(lambda: edge.running.bus.published)
        await wait_until(lambda: edge.running.service.outboxes["content"].waiting)
    async with site(tmp_path, ports, cloud, far) as edge:
        second = await edge.selected(2)
        await edge.running.deliver(second, first)
        uplink = (await edge.running.call("GET", "/v1/uplink")).json()
        assert uplink["site"] == "edge-1"
        assert uplink["up"]["waiting"] >= 1
        cloud.down = False
        subjects = [envelope["subject"] for envelope in await edge.went_up()]
        assert sorted(subjects) == sorted([first.sample_id, second.sample_id])


async def test_what_is_on_its_way_is_told_as_waiting(
    tmp_path: Path, ports: Ports, cloud: MemoryBus, far: FolderBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, answered, publish = asyncio.Event(), asyncio.Event(), cloud.publish

    async def slow(events: Any) -> Any:
        given.set()
        await answered.wait()
        return await publish(events)

    monkeypatch.setattr(cloud, "publish", slow)
    async with site(tmp_path, ports, cloud, far) as edge:

        async def waiting() -> int:
            return (await edge.running.call("GET", "/v1/uplink")).json()["up"]["waiting"]

        await edge.running.deliver(await edge.selected(1))
        await asyncio.wait_for(given.wait(), 5)
        assert await waiting() == 1
        answered.set()
        await edge.went_up()
        assert await waiting() == 0


async def test_content_that_is_lost_costs_its_own_event_alone(
    tmp_path: Path, ports: Ports, cloud: MemoryBus, far: FolderBlobs
) -> None:
    async with site(tmp_path, ports, cloud, far) as edge:
        lost, good = await edge.selected(1), await edge.selected(2)
        await edge.running.blobs.delete(lost.content.uri)
        assert await edge.running.deliver(lost, good) == ["SUCCESS", "SUCCESS"]
        assert [envelope["subject"] for envelope in await edge.went_up()] == [good.sample_id]
        (letter,) = await edge.dead()
        assert lost.content.uri in letter["dlq"]["reason"]


async def test_a_model_comes_down_with_its_artefact_and_a_broken_one_does_not(
    tmp_path: Path, ports: Ports, cloud: MemoryBus, far: FolderBlobs
) -> None:
    async with site(tmp_path, ports, cloud, far) as edge:
        model = await packaged(far, "default", *classifier())
        good = ModelActivated(project="default", version="mdl_1", activation_epoch=1, **model)
        artefact = model["artefact"].model_copy(update={"sha256": "0" * 64})
        broken = ModelActivated(
            project="default", version="mdl_2", activation_epoch=2, artefact=artefact, manifest=model["manifest"]
        )
        await edge.running.deliver(broken, good, good)
        assert [envelope["data"]["version"] for envelope in await edge.came_down()] == ["mdl_1"]
        name = model["artefact"].uri.removeprefix("blob:")
        assert sha256(edge.running.blobs.contents[f"blob:{name}"]) == model["artefact"].sha256
        assert "sha256" in (await edge.dead())[0]["dlq"]["reason"]
        assert await edge.went_up() == []


async def test_labels_come_down_without_their_content(
    tmp_path: Path, ports: Ports, cloud: MemoryBus, far: FolderBlobs
) -> None:
    async with site(tmp_path, ports, cloud, far) as edge:
        content = await stored(far, "samples/default/elsewhere", png(3), "image/png")
        label = LabelAccepted(
            project="default",
            sample_id=sample_id("default", "b"),
            task_id="tsk_1",
            label_revision=1,
            value="dark",
            agreement=1.0,
            annotators=1,
            schema_version=1,
            content=content,
        )
        await edge.running.deliver(label)
        assert [envelope["data"]["value"] for envelope in await edge.came_down()] == ["dark"]
        assert not edge.running.blobs.contents


async def test_a_withdrawn_sample_is_taken_back_from_the_cloud(
    tmp_path: Path, ports: Ports, cloud: MemoryBus, far: FolderBlobs
) -> None:
    async with site(tmp_path, ports, cloud, far) as edge:
        event = await edge.selected(7)
        await edge.running.deliver(event)
        await edge.went_up()
        uri = event.content.uri
        assert await far.get(uri)
        await edge.running.deliver(
            SampleWithdrawn(project="default", sample_id=event.sample_id, who="somebody", why="privacy")
        )
        assert [envelope["type"] for envelope in await edge.went_up()] == [SampleWithdrawn.type]
        with pytest.raises(KeyError):
            await far.get(uri)


async def test_the_site_asks_uplink_for_projects(
    tmp_path: Path, ports: Ports, cloud: MemoryBus, far: FolderBlobs
) -> None:
    async with site(tmp_path, ports, cloud, far) as edge:
        assert (await edge.running.call("GET", "/v1/projects/default")).status_code == 404
        event = await project(far)  # its extractor is in the cloud
        await edge.running.deliver(event)
        answer = await edge.running.call("GET", "/v1/projects/default")
        assert answer.json()["revision"] == 1
        assert [envelope["type"] for envelope in await edge.came_down()] == [event.type]
        assert len(edge.running.blobs.contents) == 2


NIGHTS = '[{"rule": "weekly", "zone": "UTC", "start": "22:00", "end": "23:00"}]'


async def test_outside_its_window_content_waits_and_everything_else_goes(
    tmp_path: Path, ports: Ports, cloud: MemoryBus, far: FolderBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HALFSURE_UPLINK_WINDOWS", NIGHTS)
    async with site(tmp_path, ports, cloud, far) as edge:
        event = await edge.selected(1)
        gone = SampleWithdrawn(project="default", sample_id="smp_other", who="x", why="privacy")
        await edge.running.deliver(event, gone)
        await edge.running.service.outboxes["cloud"].drain()
        assert [envelope["subject"] for _, envelope in cloud.take()] == ["smp_other"]
        told = (await edge.running.call("GET", "/v1/uplink")).json()
        assert told["window"] == {"open": False, "opens": "2026-01-01T22:00:00+00:00", "bytes_per_second": None}
        assert told["up"]["waiting"] == 1
        assert not (tmp_path / "far" / "samples").exists()
        # A flush that is not forced changes nothing, and what is forced is known after a restart.
        await edge.running.deliver(BufferFlushRequested(project="default", request_id="1"))
        assert not (await edge.running.call("GET", "/v1/uplink")).json()["window"]["open"]
        await edge.running.deliver(BufferFlushRequested(project="default", request_id="2", force=True))
    async with site(tmp_path, ports, cloud, far) as edge:
        assert (await edge.running.call("GET", "/v1/uplink")).json()["window"]["open"]
        assert [envelope["subject"] for envelope in await edge.went_up()] == [event.sample_id]
        edge.running.clock.step(901)
        assert not (await edge.running.call("GET", "/v1/uplink")).json()["window"]["open"]
        later = await edge.selected(2)
        await edge.running.deliver(later)
        edge.running.clock.step(22 * 3600 - 900)
        assert [envelope["subject"] for envelope in await edge.went_up()] == [later.sample_id]


async def test_bytes_go_up_at_the_rate_that_is_set(
    tmp_path: Path, ports: Ports, cloud: MemoryBus, far: FolderBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HALFSURE_UPLINK_BYTES_PER_SECOND", "10")
    monkeypatch.setenv("HALFSURE_UPLINK_BURST_SECONDS", "10")
    async with site(tmp_path, ports, cloud, far) as edge:
        events = [await edge.selected(shade) for shade in (1, 2, 3, 4)]
        await edge.running.deliver(*events)
        await wait_until(lambda: len(cloud.published) >= 1)
        size = events[0].content.bytes
        # A hundred bytes saved up let two go, the second on credit; the next follow at ten bytes a second.
        for went in (2, 3, 4):
            await wait_until(lambda went=went: len(cloud.published) == went)
            edge.running.clock.step(size / 10 + 1)


async def test_what_was_carried_before_a_crash_and_let_go_here_is_not_lost(
    tmp_path: Path, ports: Ports, cloud: MemoryBus, far: FolderBlobs
) -> None:
    cloud.down = True
    async with site(tmp_path, ports, cloud, far) as edge:
        event = await edge.selected(1)
        await edge.running.deliver(event)
        await wait_until(lambda: edge.running.bus.published)
        assert [envelope["type"] for _, envelope in edge.running.bus.take()] == [SampleUploaded.type]
        await edge.running.blobs.delete(event.content.uri)
    cloud.down = False
    async with site(tmp_path, ports, cloud, far) as edge:
        assert [envelope["subject"] for envelope in await edge.went_up()] == [event.sample_id]
        assert await edge.dead() == []


async def test_what_the_other_side_has_otherwise_is_no_upload(
    tmp_path: Path, ports: Ports, cloud: MemoryBus, far: FolderBlobs
) -> None:
    async with site(tmp_path, ports, cloud, far) as edge:
        event = await edge.selected(1)
        await far.put(event.content.uri.removeprefix("blob:"), b"x" * event.content.bytes)
        await edge.running.deliver(event)
        assert await edge.went_up() == []
        assert await edge.came_down() == []
        assert "something else" in (await edge.dead())[0]["dlq"]["reason"]


async def test_of_a_thousand_samples_only_those_asked_about_write_to_the_cloud(
    tmp_path: Path, ports: Ports, cloud: MemoryBus, far: FolderBlobs
) -> None:
    """Row 0.18: no egress write for the others, neither of content nor of events."""
    async with site(tmp_path, ports, cloud, far) as edge:
        events = [await edge.selected(shade) for shade in range(1, 200)]
        scores = [
            SampleScored(
                project="default",
                sample_id=event.sample_id,
                model_version="mdl_1",
                task="image-classification",
                content=event.content,
            )
            for event in events
        ]
        await edge.running.deliver(*scores)
        asked = events[::20]
        await edge.running.deliver(*asked)
        assert {envelope["subject"] for envelope in await edge.went_up()} == {event.sample_id for event in asked}
        written = {path.name for path in (tmp_path / "far").rglob("*") if path.is_file()}
        assert written == {event.content.sha256 for event in asked}
