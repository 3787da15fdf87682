"""uplink steered by a module twin: what is wanted comes to the site once, whichever way, and is reported on."""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import Running, started, wait_until
from worlds import classifier, packaged, project

from services.contracts.events import Content, ModelActivated, ModelLoaded, ModelLoadFailed, ModelRegistered
from services.contracts.ids import event_id, sha256
from services.runtime.errors import Unavailable
from services.runtime.folder import FolderBlobs
from services.runtime.memory import MemoryBus
from services.runtime.ports import Ports
from services.uplink import twin
from services.uplink.app import create


class MemoryHub:
    """IoT Hub in memory: the twin of one module."""

    def __init__(self) -> None:
        self.properties: dict[str, Any] = {"$version": 1}
        self.reported: dict[str, Any] = {}
        self.messages: list[Mapping[str, Any]] = []
        self.down = False
        self._changed: Callable[[], None] = lambda: None

    def want(self, **properties: Any) -> None:
        self.properties |= {**properties, "$version": self.properties["$version"] + 1}
        self._changed()

    async def connect(self, changed: Callable[[], None]) -> None:
        self._answer()
        self._changed = changed

    async def desired(self) -> Mapping[str, Any]:
        self._answer()
        return self.properties

    async def report(self, properties: Mapping[str, Any]) -> None:
        self._answer()
        self.reported = dict(properties)

    async def say(self, output: str, content: Mapping[str, Any]) -> None:
        self._answer()
        self.messages.append({"output": output, **content})

    async def close(self) -> None: ...

    def _answer(self) -> None:
        if self.down:
            raise Unavailable("no way to IoT Hub")


class Site:
    """uplink at a site, its twin, and the cloud's blobs."""

    def __init__(self, running: Running, hub: MemoryHub, far: FolderBlobs) -> None:
        self.running = running
        self.hub = hub
        self.far = far

    async def model(self, version: str, epoch: int, sharpness: float = 8.0) -> dict[str, Any]:
        """A model in the cloud's store, as a twin wants it."""
        files = await packaged(self.far, "default", *classifier(sharpness))
        plain = {name: content.model_dump() for name, content in files.items()}
        return {"project": "default", "version": version, "activation_epoch": epoch, **plain}

    async def status(self, wanted: str) -> dict[str, Any]:
        await wait_until(lambda: self.hub.reported.get("models", {}).get("default", {}).get("status") == wanted)
        return self.hub.reported["models"]["default"]

    async def said(self) -> list[dict[str, Any]]:
        for outbox in self.running.service.outboxes.values():
            await outbox.drain()
        return [envelope for _, envelope in self.running.bus.take()]

    async def infer_says(self, kind: type[ModelLoaded] | type[ModelLoadFailed], version: str, epoch: int) -> None:
        event = kind(
            project="default", site="edge-1", instance="i", version=version, activation_epoch=epoch, error="odd"
        )
        assert await self.running.deliver(event) == ["SUCCESS"]


@pytest.fixture
def hub() -> MemoryHub:
    return MemoryHub()


@pytest.fixture
def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderBlobs:
    monkeypatch.setenv("HALFSURE_CLOUD_BLOBS", (tmp_path / "far").as_uri())
    monkeypatch.setenv("HALFSURE_UPLINK_TWIN", "true")
    return FolderBlobs(tmp_path / "far")


@contextlib.asynccontextmanager
async def site(tmp_path: Path, ports: Ports, hub: MemoryHub, far: FolderBlobs) -> AsyncIterator[Site]:
    cloud = MemoryBus()
    ports.bus = {"cloud": cloud}.__getitem__

    def made(settings: Any, connect: Any) -> Any:
        return create(settings, connect, hub)

    async with started(made, tmp_path, ports, siteid="edge-1", projects_owner="uplink") as running:
        yield Site(running, hub, far)


async def test_a_model_comes_to_the_site_with_the_ids_that_the_cloud_gives(
    tmp_path: Path, ports: Ports, hub: MemoryHub, far: FolderBlobs
) -> None:
    async with site(tmp_path, ports, hub, far) as edge:
        model = await edge.model("mdl_1", 1)
        hub.want(model=model)
        await edge.status("loading")
        registered, activated = await edge.said()
        assert registered["id"] == event_id(ModelRegistered.type, "mdl_1")
        assert activated["id"] == event_id(ModelActivated.type, "default|1")
        assert sha256(edge.running.blobs.contents[activated["data"]["artefact"]["uri"]]) == model["artefact"]["sha256"]
        # The same by the cloud's own way is the same fact, and so is the twin's repetition.
        event = ModelActivated.model_validate(activated["data"])
        assert await edge.running.deliver(event) == ["SUCCESS"]
        hub.want()
        await edge.infer_says(ModelLoaded, "mdl_1", 1)
        row = await edge.status("serving")
        assert row == {"active": "mdl_1", "previous": None, "status": "serving", "error": None, "version_seen": 3}
        assert await edge.said() == []
        assert {"output": "model-status", "project": "default", "site": "edge-1", **row} in hub.messages


async def test_a_broken_artefact_leaves_the_old_model_and_is_told(
    tmp_path: Path, ports: Ports, hub: MemoryHub, far: FolderBlobs
) -> None:
    async with site(tmp_path, ports, hub, far) as edge:
        await edge.infer_says(ModelLoaded, "mdl_1", 1)
        broken = await edge.model("mdl_2", 2)
        broken["artefact"]["sha256"] = "0" * 64
        hub.want(model=broken)
        row = await edge.status("failed")
        assert row["active"] == "mdl_1"
        assert "not 000" in row["error"]
        assert await edge.said() == []
        hub.want(model=await edge.model("mdl_3", 3, sharpness=9))
        await edge.status("loading")
        await edge.infer_says(ModelLoaded, "mdl_3", 3)
        assert await edge.status("serving") == {**row, "active": "mdl_3", "previous": "mdl_1"} | {
            "status": "serving",
            "error": None,
            "version_seen": 3,
        }


async def test_content_that_cannot_be_had_yet_is_waited_for_and_told(
    tmp_path: Path, ports: Ports, hub: MemoryHub, far: FolderBlobs
) -> None:
    async with site(tmp_path, ports, hub, far) as edge:
        model = await edge.model("mdl_1", 1)
        uri = model["artefact"]["uri"]
        model["artefact"]["uri"] = "https://localhost:1/model.onnx?sig=secret"
        hub.want(model=model)
        row = await edge.status("waiting")
        assert "https://localhost:1/model.onnx:" in row["error"]
        assert "secret" not in row["error"]
        hub.want(model={**model, "artefact": {**model["artefact"], "uri": uri}})
        await edge.status("loading")


async def test_what_infer_cannot_load_is_told(tmp_path: Path, ports: Ports, hub: MemoryHub, far: FolderBlobs) -> None:
    async with site(tmp_path, ports, hub, far) as edge:
        hub.want(model=await edge.model("mdl_1", 1))
        await edge.status("loading")
        await edge.infer_says(ModelLoadFailed, "mdl_1", 1)
        row = await edge.status("failed")
        assert (row["active"], row["error"]) == (None, "odd")


async def test_a_project_comes_by_the_twin_with_its_extractor(
    tmp_path: Path, ports: Ports, hub: MemoryHub, far: FolderBlobs
) -> None:
    async with site(tmp_path, ports, hub, far) as edge:
        event = await project(far, revision=3)
        hub.want(project={"name": "default", "revision": 3, "document": dict(event.document)})
        await wait_until(lambda: edge.running.bus.published)
        (said,) = await edge.said()
        assert said["id"] == event_id(event.type, event.key)
        assert len(edge.running.blobs.contents) == 2
        assert (await edge.running.call("GET", "/v1/projects/default")).json()["revision"] == 3


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        ({"model": {"project": "default"}}, "model.version"),
        ({"model": 7}, "model"),
        ({"project": {"name": "default", "revision": 1, "document": {}}}, "task"),
    ],
)
async def test_what_does_not_fit_is_told_and_changes_nothing(
    tmp_path: Path, ports: Ports, hub: MemoryHub, far: FolderBlobs, properties: dict[str, Any], words: str
) -> None:
    async with site(tmp_path, ports, hub, far) as edge:
        hub.want(**properties)
        await wait_until(lambda: words in (hub.reported.get("error") or ""))
        assert await edge.said() == []
        hub.want(**dict.fromkeys(properties))
        await wait_until(lambda: hub.reported["error"] is None)


async def test_while_the_hub_is_away_the_site_goes_on_and_reports_later(
    tmp_path: Path, ports: Ports, hub: MemoryHub, far: FolderBlobs
) -> None:
    hub.down = True
    async with site(tmp_path, ports, hub, far) as edge:
        await edge.infer_says(ModelLoaded, "mdl_1", 1)
        assert not hub.reported
        hub.down = False
        assert (await edge.status("serving"))["active"] == "mdl_1"


async def test_an_activation_that_is_behind_is_not_taken(
    tmp_path: Path, ports: Ports, hub: MemoryHub, far: FolderBlobs
) -> None:
    async with site(tmp_path, ports, hub, far) as edge:
        await edge.infer_says(ModelLoaded, "mdl_5", 5)
        hub.want(model=await edge.model("mdl_4", 4))
        row = await edge.status("behind")
        assert (row["active"], row["error"]) == ("mdl_5", "epoch 4 is behind the 5 that serves mdl_5")
        assert await edge.said() == []


def test_a_twin_has_no_dots_in_its_keys() -> None:
    assert twin.key_of("cats.v2") == "cats%2Ev2"


def test_content_by_url_is_kept_by_its_hash() -> None:
    content = Content(uri="https://host/m.onnx?sig=x", sha256="a" * 64, bytes=1, media_type="application/octet-stream")
    assert twin.kept_as("default", content) == f"models/default/{'a' * 64}"
