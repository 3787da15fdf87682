"""The loop over three hosts: a device that runs a deployment manifest, its cloud, and people; its link is cut."""

import base64
import contextlib
import json
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import iothub
import pytest
from edge.hosts import ROOT, Hosts, require_machine, until
from edge.network import Network, run
from edge.noting import counted, noted
from edge.runner import SOCKET, Device, prepare

from services.cli.backing import KEY, servicebus_connection
from services.cli.commands.iotedge import TEMPLATE, wanted
from services.cli.datasets import digits, split
from services.cli.edge.deployment import fill, rendered
from services.cli.edge.rules import faults
from services.cli.profiles import SITE, UPLINK
from services.cli.runfile import read_run_file

pytestmark = [pytest.mark.edge, pytest.mark.timeout(590)]

BUDGET, BATCH, CUT_SECONDS = 60, 10, 30.0
CLOUD = "10.79.1.1"  # as the device reaches it, over the link that is cut
OFFICE, DEVICE = "10.79.2.2", "10.79.3.2"  # the cloud and the device as people reach them
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2)"
GET = """
import sys, urllib.request
asked = urllib.request.Request(sys.argv[1], headers={"authorization": f"Bearer {sys.argv[2]}"})
print(urllib.request.urlopen(asked, timeout=10).read().decode())
"""
PUBLISH = """
import sys, paho.mqtt.publish as publish
host, topic, file, password = sys.argv[1:]
auth = {"username": "sensors", "password": password}
publish.single(topic, open(file, "rb").read(), 1, hostname=host, client_id="camera", auth=auth)
"""


class World(Hosts):
    """The three hosts, and what runs on them."""

    def __init__(self, network: Network, folder: Path, closing: contextlib.ExitStack) -> None:
        super().__init__(network, folder, closing)
        self.device: Device
        self.token = ""
        self.broker: tuple[str, int] = ("", 0)
        self.sensors = ""  # password
        ports = {app.app_id: app.app_port for app in read_run_file(ROOT / "dapr/dapr.yaml").apps} | {"uplink": UPLINK}
        self.urls = {
            app_id: f"http://{OFFICE if app_id in ('label-queue', 'retrain-trigger') else DEVICE}:{port}"
            for app_id, port in ports.items()
        }

    def get(self, app_id: str, path: str) -> Any:
        """What a service answers to people."""
        said = self.network.run("people", sys.executable, "-c", GET, self.urls[app_id] + path, self.token)
        return json.loads(said)

    def reaches_the_cloud(self) -> bool:
        """Whether uplink's own network does."""
        host, port = self.broker
        asked = [*self.network.inside("uplink"), sys.executable, "-c", CONNECT, host, str(port)]
        return subprocess.run(asked, check=False, capture_output=True).returncode == 0

    def want(self, **properties: Any) -> None:
        """Patch the desired properties of the device's twin."""
        file = self.folder / "device/edgehub/desired.json"
        file.with_suffix(".tmp").write_text(json.dumps(properties))
        file.with_suffix(".tmp").replace(file)

    def twin(self) -> dict[str, Any]:
        """What the device has reported of its models."""
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            return json.loads((self.folder / "device/edgehub/reported.json").read_text()).get("models", {})
        return {}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    require_machine()
    with contextlib.ExitStack() as closing:
        network = Network("halfsure-")
        closing.callback(network.close)
        for host in ("cloud", "device", "people"):
            network.add(host, forwards=True)
        network.link("wan", "cloud", f"{CLOUD}/24", "device", "10.79.1.2/24")
        network.link("office", "people", "10.79.2.1/24", "cloud", f"{OFFICE}/24")
        network.link("site", "people", "10.79.3.1/24", "device", f"{DEVICE}/24")
        made = World(network, tmp_path_factory.mktemp("edge"), closing)
        cloud = made.place("cloud", "cloud")()
        made.token, made.broker = cloud["token"], (CLOUD, cloud["ports"]["servicebus"])
        (made.folder / "token").write_text(made.token)
        made.device = device_side(made, cloud)
        closing.callback(made.device.stop)
        made.device.start()
        yield made


def device_side(world: World, cloud: dict[str, Any]) -> Device:
    """The template, filled as whoever deploys it would, and a device for it with edgeHub's stand-in."""
    template = (ROOT / TEMPLATE).read_text()
    assert faults(json.loads(template), wanted(ROOT)) == []
    # The stand-ins know no Microsoft Entra: here the way to the cloud is a connection string.
    document = json.loads(template)
    bus = document["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"]["daprd-uplink"]["env"]
    for name in [name for name in bus if name.startswith(("HALFSURE_ENTRA_", "HALFSURE_SERVICEBUS_"))]:
        del bus[name]
    bus["HALFSURE_SERVICEBUS_CONNECTION"] = {"value": "${HALFSURE_SERVICEBUS_CONNECTION}"}
    template = rendered(document)
    password, ports = secrets.token_urlsafe(12), cloud["ports"]
    values = {
        "REGISTRY": "registry.example",
        "TAG": "dev",
        "REGISTRY_USER": "",
        "REGISTRY_PASSWORD": "",
        "HALFSURE_SITEID": SITE,
        "HALFSURE_ENTRA_TENANT": "",
        "HALFSURE_ENTRA_CLIENT": "",
        "HALFSURE_SERVICEBUS_CONNECTION": servicebus_connection(ports["servicebus"]).replace("127.0.0.1", CLOUD),
        "HALFSURE_CLOUD_BLOBS": f"http://{CLOUD}:{ports['azurite']}/devstoreaccount1/halfsure?{cloud['signature']}",
        "DAPR_API_TOKEN": secrets.token_urlsafe(24),
        "APP_API_TOKEN": secrets.token_urlsafe(24),
    }
    manifest = world.folder / "deployment.json"
    manifest.write_text(fill(template, values))
    root, world.sensors = world.folder / "device", password
    root.mkdir()
    prepare(root, ROOT, cloud["tokens"], cloud["model_keys"], password)
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
        self.rows: list[dict[str, Any]] = []
        self.process = world.start(
            "people",
            "people",
            *(sys.executable, str(ROOT / "tests/k8s/play.py"), "play", str(BUDGET), str(BATCH)),
            env={"PLAY_URLS": json.dumps(world.urls), "PYTHONUNBUFFERED": "1"},
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

    def count(self, what: str) -> int:
        return max((row.get(what) or 0 for row in self.rows), default=0)

    def final(self) -> dict[str, Any] | None:
        assert self.process.poll() in (None, 0), "the play has failed"
        return next((row["final"] for row in self.rows if "final" in row), None)


@dataclass(frozen=True)
class Played:
    """The end of the play, and what was seen while the link was cut."""

    counts: dict[str, Any]
    asked_while_cut: tuple[int, int]
    device_answers: int
    seconds: float


@pytest.fixture(scope="module")
def played(world: World) -> Played:
    """One play, with thirty seconds in which the device has no cloud, and loses uplink and its sidecar."""
    play = Play(world)
    until(lambda: play.count("accepted") >= 20 or play.final(), 240, "20 labels are in")
    assert world.reaches_the_cloud()
    cut_at = time.monotonic()
    world.network.cut("wan", "device")
    world.device.kill("uplink")
    world.device.kill("daprd-uplink")
    # What had crossed already is asked about and shown first.
    until(lambda: time.monotonic() - cut_at > 5, 10, "five seconds")
    asked, answers = play.count("asked"), 0
    while time.monotonic() - cut_at < CUT_SECONDS:
        assert not world.reaches_the_cloud()
        assert world.get("infer", "/v1/loaded-models?project=digits")["items"]
        answers += 1
    seen = (asked, play.count("asked"))
    assert play.final() is None
    world.network.mend("wan", "device")
    seconds = time.monotonic() - cut_at
    counts = until(play.final, 280, "the loop closes")
    assert play.process.wait(30) == 0
    return Played(counts, seen, answers, seconds)


def test_the_loop_closes_over_a_link_that_is_cut(world: World, played: Played) -> None:
    counts = played.counts
    noted(counts=counts, cut_seconds=played.seconds)
    counted("the manifest on a device", lost=counts["lost"], doubled=counts["doubled"])
    assert (counts["lost"], counts["doubled"], counts["dead_letters"]) == (0, 0, 0)
    assert counts["ingested"] == counts["scored"] == 1237
    assert counts["asked"] == counts["accepted"] == counts["in_snapshots"] == BUDGET
    assert played.asked_while_cut[0] == played.asked_while_cut[1] < BUDGET
    assert played.device_answers > 3
    restarts = {name: module.restarts for name, module in world.device.modules.items()}
    assert restarts["uplink"] >= 1
    assert restarts["redis"] == restarts["ingest"] == restarts["infer"] == 0
    noted(restarts=restarts)


def test_the_twin_says_what_serves_and_a_broken_model_changes_nothing(world: World, played: Played) -> None:
    active = [one for one in world.get("infer", "/v1/loaded-models?project=digits")["items"] if one["active"]]
    until(lambda: world.twin().get("digits", {}).get("active") == active[0]["version"], 20, "the twin has it")
    broken = {"uri": f"blob:models/digits/{'0' * 64}.onnx", "sha256": "0" * 64, "bytes": 1, "media_type": "a/b"}
    files = {"artefact": broken, "manifest": broken}
    world.want(model={"project": "digits", "version": "mdl_none", "activation_epoch": 1000, **files})
    until(lambda: world.twin()["digits"]["status"] == "failed", 20, "the broken model is reported")
    row = world.twin()["digits"]
    assert row["active"] == active[0]["version"]
    assert "there is nothing at" in row["error"]
    assert world.get("infer", "/v1/loaded-models?project=digits")["items"]


def test_the_twin_changes_the_policy_within_five_seconds(world: World, played: Played) -> None:
    document = world.get("uplink", "/v1/projects/digits")
    policy = {**document["policy"], "version": 2, "strategy": "margin"}
    revision = document["revision"] + 1
    assert world.get("select-uncertain", "/v1/policies/default?project=digits")["strategy"] != "margin"
    project = {"name": "digits", "revision": revision, "document": {**document, "policy": policy, "revision": revision}}
    world.want(project=project)

    def in_force() -> bool:
        said = world.get("select-uncertain", "/v1/policies/default?project=digits")
        return (said["strategy"], said["version"]) == ("margin", 2)

    until(in_force, 5, "the policy of the twin is in force")


def test_a_camera_brings_a_sample_with_the_broker_s_password_only(world: World, played: Played) -> None:
    picture = world.folder / "picture.png"
    picture.write_bytes(base64.b64decode(split(digits(), 0).test[0].body["data"]))
    publish = (*world.network.inside("people"), sys.executable, "-c", PUBLISH, DEVICE, "halfsure/digits/camera-1")
    refused = subprocess.run([*publish, str(picture), "guess"], check=False, capture_output=True, text=True)
    assert "not authori" in refused.stderr.lower()
    # The way of ingest's own sidecar, which needs none, is on the device's container network alone.
    for host, port, reached in (("uplink", 1884, True), ("people", 1884, False), ("people", 1883, True)):
        where = world.device.modules["mosquitto"].address if host == "uplink" else DEVICE
        asked = [*world.network.inside(host), sys.executable, "-c", CONNECT, where, str(port)]
        assert (subprocess.run(asked, check=False, capture_output=True).returncode == 0) == reached, (host, port)
    run([*publish, str(picture), world.sensors])
    path = "/v1/samples?project=digits&stream=camera-1"
    until(lambda: len(world.get("ingest", path)["items"]) == 1, 20, "the picture is a sample")


def test_a_module_has_what_the_manifest_gives_it_and_no_more(world: World, played: Played) -> None:
    for name, module in world.device.modules.items():
        assert module.process is not None
        own = Path(f"/proc/{module.process.pid}")
        said = dict(line.split(":", 1) for line in (own / "status").read_text().splitlines() if ":" in line)
        user = module.options.get("User", "65532:65532").split(":")[0]
        assert said["Uid"].split() == [user] * 4, name
        assert (int(said["CapEff"], 16), int(said["CapBnd"], 16), said["NoNewPrivs"].strip()) == (0, 0, "1"), name
        pairs = [pair.split("=", 1) for pair in (own / "environ").read_text().split("\0") if "=" in pair]
        environment = {key: value for key, value in pairs}
        # Redis writes its title over its environment, and is given none.
        assert environment.items() >= module.environment.items() or name == "redis", name
        ours = {key for key in environment if key.startswith(("HALFSURE_", "APP_", "DAPR_", "AZURE_"))}
        assert ours <= module.environment.keys(), name
        mounts = [line.split() for line in (own / "mounts").read_text().splitlines()]
        modes = {place: options.split(",")[0] for _, place, _, options, *_ in mounts}
        assert modes["/"] == "ro", name
        bound = {inside: "ro" if read_only else "rw" for _, inside, read_only in module.binds}
        assert {place: modes[place] for place in bound} == bound, name
        assert {place for place in modes if "halfsure" in place} == {place for place in bound if "halfsure" in place}


def test_nothing_of_the_stand_ins_is_in_the_manifest() -> None:
    assert KEY not in (ROOT / TEMPLATE).read_text()
    assert "UseDevelopmentEmulator" not in (ROOT / TEMPLATE).read_text()
