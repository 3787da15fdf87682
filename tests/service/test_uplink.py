"""uplink: what goes up and comes down, once each, with its content, whoever is away or crashes."""

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
    Content,
    Event,
    LabelAccepted,
    ModelActivated,
    PolicyRef,
    SampleScored,
    SampleSelected,
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
        await self.running.service.outboxes["cloud"].drain()
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
        assert await edge.came_down() == []


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
        await wait_until(lambda: edge.running.service.outboxes["cloud"].waiting)
    async with site(tmp_path, ports, cloud, far) as edge:
        second = await edge.selected(2)
        await edge.running.deliver(second, first)
        uplink = (await edge.running.call("GET", "/v1/uplink")).json()
        assert uplink["site"] == "edge-1"
        assert uplink["up"]["waiting"] >= 1
        cloud.down = False
        subjects = [envelope["subject"] for envelope in await edge.went_up()]
        assert sorted(subjects) == sorted([first.sample_id, second.sample_id])


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
