"""A module twin steers the site: the real device SDK over TLS, uplink and infer, and a stand-in for IoT Hub."""

import asyncio
import base64
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Running, started, wait_until
from iothub import PORT, HubStandIn, edge_environment, standing_in
from worlds import classifier, packaged, png, project

from services.cli.ports import is_free
from services.infer.app import create as infer
from services.runtime.folder import FolderBlobs
from services.runtime.memory import MemoryBus, MemoryPeers, MemoryState, SystemClock
from services.runtime.ports import Ports
from services.uplink.app import create as uplink

pytestmark = [pytest.mark.profiles, pytest.mark.timeout(120)]

OWN = "HALFSURE_TEST_OWN_NETWORK"  # set where nobody else can have the SDK's only port


class Device:
    """uplink and infer on one bus, with the blobs that they share."""

    def __init__(self, hub: HubStandIn, up: Running, scorer: Running, far: FolderBlobs) -> None:
        self.hub = hub
        self.up = up
        self.scorer = scorer
        self.far = far

    async def carry(self) -> None:
        """What the bus would do: each hears what the other says."""
        while True:
            for source, target in ((self.up, self.scorer), (self.scorer, self.up)):
                for topic, envelope in source.bus.take():
                    if topic in {kind.topic for kind in target.service.inbox.subscriptions}:
                        assert await target.deliver_raw(topic, [envelope]) == ["SUCCESS"]
            await asyncio.sleep(0.02)

    async def model(self, version: str, epoch: int, sharpness: float) -> dict[str, Any]:
        files = await packaged(self.far, "default", *classifier(sharpness))
        plain = {name: content.model_dump() for name, content in files.items()}
        return {"project": "default", "version": version, "activation_epoch": epoch, **plain}

    async def reported(self, status: str, seen: int) -> dict[str, Any]:
        def there() -> dict[str, Any] | None:
            row = self.hub.reported.get("models", {}).get("default", {})
            return row if row.get("status") == status and row["version_seen"] == seen else None

        return await wait_until(there, 40)

    async def answers(self) -> str:
        picture = {"data": base64.b64encode(png(200)).decode(), "media_type": "image/png"}
        answer = await self.scorer.call("POST", "/v1/predict", json={"inputs": [picture]})
        return answer.json()["model_version"] if answer.status_code == 200 else answer.text


@contextlib.asynccontextmanager
async def device(folder: Path, hub: HubStandIn) -> AsyncIterator[Device]:
    far, clock, near = FolderBlobs(folder / "far"), SystemClock(), FolderBlobs(folder / "near")

    async def ask(path: str, params: Any) -> Any:
        answer = await up.call("GET", f"/{path}")
        if answer.status_code == 404:
            raise KeyError(path)
        return answer.json()

    def ports() -> Ports:
        made = Ports(MemoryState(clock), MemoryBus(), near, clock, MemoryPeers({"uplink": ask}))
        made.bus = {"cloud": MemoryBus()}.__getitem__
        return made

    for name in ("uplink", "infer"):
        (folder / name).mkdir()
    at = {"siteid": "edge-1", "projects_owner": "uplink"}
    async with (
        started(uplink, folder / "uplink", ports(), **at) as up,
        started(infer, folder / "infer", ports(), **at) as scorer,
    ):
        one = Device(hub, up, scorer, far)
        carrying = asyncio.create_task(one.carry())
        try:
            yield one
        finally:
            carrying.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await carrying


async def steer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project and four models by the twin: the second broken, the fourth wanted while there is no connection."""
    monkeypatch.setenv("HALFSURE_UPLINK_TWIN", "true")
    monkeypatch.setenv("HALFSURE_CLOUD_BLOBS", (folder / "far").as_uri())
    for name, value in edge_environment(folder / "workload.sock", "localhost").items():
        monkeypatch.setenv(name, value)
    with standing_in(folder, "localhost", "127.0.0.1") as hub:
        async with device(folder, hub) as edge:
            made = await project(edge.far)
            hub.want(project={"name": "default", "revision": 1, "document": dict(made.document)})
            hub.want(model=await edge.model("mdl_1", 1, 8.0))
            row = await edge.reported("serving", 3)
            assert (row["active"], row.get("previous")) == ("mdl_1", None)  # null removes a property
            assert await edge.answers() == "mdl_1"

            broken = await edge.model("mdl_2", 2, 9.0)
            broken["artefact"]["sha256"] = "f" * 64
            hub.want(model=broken)
            row = await edge.reported("failed", 4)
            assert row["active"] == "mdl_1"
            assert "fff" in row["error"]
            assert await edge.answers() == "mdl_1"

            hub.want(model=await edge.model("mdl_3", 3, 10.0))
            row = await edge.reported("serving", 5)
            assert (row["active"], row["previous"], row.get("error")) == ("mdl_3", "mdl_1", None)
            assert await edge.answers() == "mdl_3"

            # What is wanted while there is no connection is told to nobody, so it is asked for afterwards.
            await asyncio.to_thread(hub.stop)
            hub.want(model=await edge.model("mdl_4", 4, 11.0))
            await asyncio.to_thread(hub.start)
            row = await edge.reported("serving", 6)
            assert (row["active"], row["previous"]) == ("mdl_4", "mdl_3")
            await wait_until(lambda: hub.messages and hub.messages[-1]["body"]["active"] == "mdl_4")
            assert {message["output"] for message in hub.messages} == {"model-status"}


async def test_a_twin_swaps_models_and_a_broken_one_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if os.geteuid() == 0 and shutil.which("unshare") and OWN not in os.environ:
        again = [sys.executable, "-m", "pytest", "-q", request.node.nodeid]
        alone = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *again]
        environment = {**os.environ, OWN: "1"}
        ended = await asyncio.to_thread(subprocess.run, alone, env=environment, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-2000:]
        return
    if not is_free(PORT):
        pytest.skip(f"port {PORT}, the only one that the device SDK knows, is taken")
    await steer(tmp_path, monkeypatch)
