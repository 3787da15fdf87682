"""The loop over three hosts: a device that runs a deployment manifest, its cloud, and people; its link is cut."""

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import iothub
import pytest
from conftest import require_runtime
from edge.network import Network
from edge.runner import SOCKET, Device, prepare

from services.cli.backing import KEY, NoBacking, needs, servicebus_connection
from services.cli.commands.iotedge import TEMPLATE, wanted
from services.cli.edge.deployment import fill
from services.cli.edge.rules import faults
from services.cli.profiles import SITE, UPLINK
from services.cli.runfile import read_run_file
from services.cli.settings import StackSettings, default_root

pytestmark = [pytest.mark.edge, pytest.mark.timeout(590)]

ROOT = default_root()
REPORT = Path("out/edge/report.json")
BUDGET, BATCH, CUT_SECONDS = 60, 10, 30.0
CLOUD, DEVICE = "10.79.1.1", "10.79.1.2"  # the link between them, which is cut
PEOPLE_TO_CLOUD, PEOPLE_TO_DEVICE = "10.79.2.1", "10.79.3.1"


def require_machine() -> None:
    """Skips where namespaces cannot be made, or the servers behind the profile are missing."""
    require_runtime()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("network namespaces need Linux and root")
    for tool in ("ip", "iptables", "unshare", "setpriv", "openssl", "mosquitto_passwd"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool}: apt install iproute2 iptables util-linux openssl mosquitto")
    try:
        for _, look in needs(StackSettings(profile="iotedge")):
            look()
    except NoBacking as error:
        pytest.skip(str(error))


def until(what: Callable[[], Any], seconds: float, said: str) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := what():
            return answer
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds:.0f} s: {said}")


class World:
    """The three hosts, and what runs on them."""

    def __init__(self, network: Network, folder: Path, closing: contextlib.ExitStack) -> None:
        self.network = network
        self.folder = folder
        self._closing = closing
        self.device: Device

    def start(self, host: str, name: str, *command: str, **more: Any) -> "subprocess.Popen[str]":
        """A program on a host, ended with the test."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("HALFSURE_")}
        environment |= {"PYTHONPATH": f"{ROOT}/tests:{ROOT}", **more.pop("env", {})}
        with (self.folder / f"{name}.log").open("w") as log:
            process = subprocess.Popen(
                [*self.network.inside(host), *command],
                **{"stdout": log, "stderr": log, "text": True, "env": environment, "start_new_session": True, **more},
            )
        self._closing.callback(_end, process)
        return process

    def twin(self) -> dict[str, Any]:
        """What the device has reported of its models."""
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            return json.loads((self.folder / "device/edgehub/reported.json").read_text()).get("models", {})
        return {}


def _end(process: "subprocess.Popen[str]") -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    require_machine()
    with contextlib.ExitStack() as closing:
        network = Network("halfsure-")
        closing.callback(network.close)
        for host in ("cloud", "device", "people"):
            network.add(host, forwards=True)
        network.link("wan", "cloud", f"{CLOUD}/24", "device", f"{DEVICE}/24")
        network.link("office", "people", f"{PEOPLE_TO_CLOUD}/24", "cloud", "10.79.2.2/24")
        network.link("site", "people", f"{PEOPLE_TO_DEVICE}/24", "device", "10.79.3.2/24")
        made = World(network, tmp_path, closing)
        cloud = cloud_side(made)
        made.device = device_side(made, cloud)
        closing.callback(made.device.stop)
        made.device.start()
        (tmp_path / "token").write_text(cloud["token"])
        yield made


def cloud_side(world: World) -> dict[str, Any]:
    """The servers and services of the cloud, each at a port of the host."""
    home = world.folder / "cloud"
    process = world.start("cloud", "cloud", sys.executable, str(ROOT / "tests/edge/cloud.py"), str(home))
    ready = home / "ready.json"
    until(lambda: ready.exists() or process.poll() is not None, 150, "the cloud's side is up")
    assert process.poll() is None, (world.folder / "cloud.log").read_text()[-3000:]
    cloud = json.loads(ready.read_text())
    for port in cloud["ports"].values():
        world.network.publish("cloud", port, f"127.0.0.1:{port}")
    return cloud


def device_side(world: World, cloud: dict[str, Any]) -> Device:
    """The template, filled as whoever deploys it would, and a device for it with edgeHub's stand-in."""
    template = (ROOT / TEMPLATE).read_text()
    assert faults(json.loads(template), wanted(ROOT)) == []
    password, ports = secrets.token_urlsafe(12), cloud["ports"]
    values = {
        "REGISTRY": "registry.example",
        "TAG": "dev",
        "REGISTRY_USER": "",
        "REGISTRY_PASSWORD": "",
        "HALFSURE_SITEID": SITE,
        "HALFSURE_SERVICEBUS_NAMESPACE": "",
        "HALFSURE_SERVICEBUS_CONNECTION": servicebus_connection(ports["servicebus"]).replace("127.0.0.1", CLOUD),
        "HALFSURE_CLOUD_BLOBS": f"http://{CLOUD}:{ports['azurite']}/devstoreaccount1/halfsure?{cloud['signature']}",
        "HALFSURE_MQTT_URL": f"tcp://ingest:{password}@mosquitto:1883",
        "DAPR_API_TOKEN": secrets.token_urlsafe(24),
        "APP_API_TOKEN": secrets.token_urlsafe(24),
    }
    manifest = world.folder / "deployment.json"
    manifest.write_text(fill(template, values))
    root = world.folder / "device"
    root.mkdir()
    prepare(root, ROOT, cloud["tokens"], password)
    device = Device(manifest, world.network, "device", root, iothub.edge_environment(Path(SOCKET), "edgehub"))
    device.wire()
    hub = root / "edgehub"
    hub.mkdir()
    world.start("edgehub", "edgehub", sys.executable, str(ROOT / "tests/iothub.py"), str(hub), "edgehub")
    until((hub / "ready").exists, 20, "edgeHub's stand-in is up")
    return device


class Play:
    """The demo's player on the people's host: its lines, and how far it is."""

    def __init__(self, world: World) -> None:
        ports = {app.app_id: app.app_port for app in read_run_file(ROOT / "dapr/dapr.yaml").apps} | {"uplink": UPLINK}
        urls = {
            app_id: f"http://{'10.79.2.2' if app_id in ('label-queue', 'retrain-trigger') else '10.79.3.2'}:{port}"
            for app_id, port in ports.items()
        }
        self.rows: list[dict[str, Any]] = []
        self.process = world.start(
            "people",
            "people",
            *(sys.executable, str(ROOT / "tests/k8s/play.py"), "play", str(BUDGET), str(BATCH)),
            env={"PLAY_URLS": json.dumps(urls), "PYTHONUNBUFFERED": "1"},
            cwd=world.folder,
            stdout=subprocess.PIPE,
        )
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            print(line.rstrip(), flush=True)
            self.rows.append(json.loads(line))

    def accepted(self) -> int:
        return max((row.get("accepted", 0) for row in self.rows), default=0)

    def final(self) -> dict[str, Any] | None:
        assert self.process.poll() in (None, 0), "the play has failed"
        return next((row["final"] for row in self.rows if "final" in row), None)


def test_the_loop_closes_over_a_link_that_is_cut(world: World) -> None:
    play = Play(world)
    until(lambda: play.accepted() >= 20 or play.final(), 240, "20 labels are in")
    before = play.accepted()
    cut_at = time.monotonic()
    world.network.cut("wan", "device")
    # What is on its way survives the loss of whoever carries it, too.
    world.device.kill("uplink")
    world.device.kill("daprd-uplink")
    while time.monotonic() - cut_at < CUT_SECONDS:
        assert play.final() is None
        time.sleep(0.5)
    world.network.mend("wan", "device")
    counts = until(play.final, 280, "the loop closes")
    assert play.process.wait(30) == 0

    assert (counts["lost"], counts["doubled"], counts["dead_letters"]) == (0, 0, 0), counts
    assert counts["ingested"] == counts["scored"] == 1237
    assert counts["asked"] == counts["accepted"] == counts["in_snapshots"] == BUDGET
    assert before < BUDGET
    restarts = {name: module.restarts for name, module in world.device.modules.items()}
    assert restarts["uplink"] >= 1

    serving = until(lambda: world.twin().get("digits", {}).get("active"), 20, "the twin says what serves")
    broken = {"uri": f"blob:models/digits/{'0' * 64}.onnx", "sha256": "0" * 64, "bytes": 1, "media_type": "a/b"}
    model = {
        "project": "digits",
        "version": "mdl_none",
        "activation_epoch": 1000,
        "artefact": broken,
        "manifest": broken,
    }
    (world.folder / "device/edgehub/desired.json").write_text(json.dumps({"model": model}))
    row = until(
        lambda: world.twin()["digits"]["status"] == "failed" and world.twin()["digits"], 20, "a broken model fails"
    )
    assert row["active"] == serving
    assert "there is nothing at" in row["error"]

    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(
        json.dumps({"counts": counts, "cut_seconds": CUT_SECONDS, "restarts": restarts, "twin": row}, indent=1) + "\n"
    )


def test_nothing_of_the_stand_ins_is_in_the_manifest() -> None:
    assert KEY not in (ROOT / TEMPLATE).read_text()
    assert "UseDevelopmentEmulator" not in (ROOT / TEMPLATE).read_text()
