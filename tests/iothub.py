"""A stand-in for IoT Hub and IoT Edge, for one module: the twin's topics over TLS on 8883, and the workload API.

The broker is mosquitto, its certificates are made anew by openssl; who signs in is not checked. It shows that the real
device SDK and our module understand each other by the documented topics, and nothing of IoT Hub itself.

python tests/iothub.py FOLDER HOST     serves until it ends; FOLDER/desired.json is what is wanted,
                                       FOLDER/reported.json and FOLDER/messages.jsonl what has come
"""

import base64
import contextlib
import hashlib
import hmac
import json
import re
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import IO, Any

import paho.mqtt.client as mqtt

from services.cli.backing import find_mosquitto

DEVICE, MODULE = "edge-1", "uplink"
PORT, PLAIN = 8883, 29283  # the SDK knows no other than the first; the second is the stand-in's own
_KEY = b"a key that only the security daemon would have"


def certificates(folder: Path, host: str) -> Path:
    """A certificate of a new authority for the host: ca.pem, server.pem, server.key; the authority's."""
    (folder / "names").write_text(f"subjectAltName=DNS:{host}\n")
    key = ("-newkey", "rsa:2048", "-nodes")
    steps = [
        ("req", "-x509", *key, "-days", "2", "-subj", "/CN=stand-in", "-keyout", "ca.key", "-out", "ca.pem"),
        ("req", *key, "-subj", f"/CN={host}", "-keyout", "server.key", "-out", "server.csr"),
        (
            *("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-days", "2", "-extfile", "names", "-out", "server.pem"),
        ),
    ]
    for step in steps:
        subprocess.run(["openssl", *step], cwd=folder, check=True, capture_output=True)
    return folder / "ca.pem"


class HubStandIn:
    """The twin of one module, and what the module has sent."""

    def __init__(self, broker: Sequence[str], log: IO[str]) -> None:
        self._command = broker
        self._log = log
        self._broker: subprocess.Popen[bytes] | None = None
        self.desired: dict[str, Any] = {"$version": 1}
        self.reported: dict[str, Any] = {"$version": 1}
        self.messages: list[dict[str, Any]] = []
        self._client = mqtt.Client("iot-hub")
        self._client.on_message = self._received
        self._client.on_connect = lambda client, *_: client.subscribe([("$iothub/twin/#", 0), ("devices/#", 1)])

    def start(self) -> None:
        """Bring the broker up, and answer."""
        self._broker = subprocess.Popen(self._command, stdout=self._log, stderr=self._log)
        deadline = time.monotonic() + 10
        while True:
            try:
                self._client.connect("127.0.0.1", PLAIN)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        self._client.loop_start()

    def stop(self) -> None:
        """As when edgeHub is restarted: connections end, patches are told to nobody; `start` may follow."""
        self._client.disconnect()
        self._client.loop_stop()
        if self._broker is not None:
            self._broker.terminate()
            self._broker.wait(5)

    def want(self, **properties: Any) -> None:
        """Patch the desired properties, as `az iot hub module-twin update` does."""
        self.desired |= {**properties, "$version": self.desired["$version"] + 1}
        patch = {**properties, "$version": self.desired["$version"]}
        topic = f"$iothub/twin/PATCH/properties/desired/?$version={patch['$version']}"
        self._client.publish(topic, json.dumps(patch), qos=1)

    def _received(self, _client: Any, _data: Any, message: mqtt.MQTTMessage) -> None:
        if asked := re.match(r"\$iothub/twin/GET/\?\$rid=([^&]+)", message.topic):
            self._answer(200, asked[1], {"desired": self.desired, "reported": self.reported})
        elif told := re.match(r"\$iothub/twin/PATCH/properties/reported/\?\$rid=([^&]+)", message.topic):
            self.reported = _merged(self.reported, json.loads(message.payload))
            self.reported["$version"] += 1
            self._answer(204, told[1], None, f"&$version={self.reported['$version']}")
        elif message.topic.startswith(f"devices/{DEVICE}/modules/{MODULE}/messages/events/"):
            output = re.search(r"%24\.on=([^&]+)|\$\.on=([^&]+)", message.topic)
            self.messages.append({"output": output and (output[1] or output[2]), "body": json.loads(message.payload)})

    def _answer(self, status: int, request: str, body: Any, more: str = "") -> None:
        payload = "" if body is None else json.dumps(body)
        self._client.publish(f"$iothub/twin/res/{status}/?$rid={request}{more}", payload)


def _merged(old: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """JSON merge patch, as twins are patched."""
    whole = dict(old)
    for key, value in patch.items():
        if value is None:
            whole.pop(key, None)
        else:
            before = whole.get(key)
            whole[key] = (
                _merged(before if isinstance(before, dict) else {}, value) if isinstance(value, dict) else value
            )
    return whole


class _Workload(BaseHTTPRequestHandler):
    """What the device's security daemon answers to a module: the authority's certificate, and signatures."""

    authority = ""

    def do_GET(self) -> None:
        self._send({"certificate": self.authority} if self.path.startswith("/trust-bundle") else None)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        digest = hmac.new(_KEY, base64.b64decode(asked["data"]), hashlib.sha256).digest()
        self._send({"digest": base64.b64encode(digest).decode()} if "/sign" in self.path else None)

    def _send(self, body: Any) -> None:
        raw = json.dumps(body).encode()
        self.send_response(200 if body else 404)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def address_string(self) -> str:
        return "module"

    def log_message(self, format: str, *args: Any) -> None: ...


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


@contextlib.contextmanager
def workload_api(socket: Path, authority: Path) -> Iterator[None]:
    """The workload API on a unix socket, while the block runs."""
    handler = type("Workload", (_Workload,), {"authority": authority.read_text()})
    with _Server(str(socket), handler) as server:
        socket.chmod(0o666)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


def edge_environment(socket: Path, host: str) -> dict[str, str]:
    """What edgeAgent adds to a module's environment."""
    return {
        "IOTEDGE_IOTHUBHOSTNAME": "hub.azure-devices.net",
        "IOTEDGE_GATEWAYHOSTNAME": host,
        "IOTEDGE_DEVICEID": DEVICE,
        "IOTEDGE_MODULEID": MODULE,
        "IOTEDGE_MODULEGENERATIONID": "1",
        "IOTEDGE_WORKLOADURI": f"unix://{socket}",
        "IOTEDGE_APIVERSION": "2019-01-30",
        "IOTEDGE_AUTHSCHEME": "sasToken",
    }


@contextlib.contextmanager
def standing_in(folder: Path, host: str, listen: str) -> Iterator[HubStandIn]:
    """edgeHub's broker for `host` on an address, the hub behind it, and FOLDER/workload.sock."""
    authority = certificates(folder, host)
    config = folder / "edgehub.conf"
    config.write_text(
        f"per_listener_settings false\nallow_anonymous true\nuser root\nlog_dest stdout\n"
        f"listener {PLAIN} 127.0.0.1\nlistener {PORT} {listen}\n"
        f"cafile {authority}\ncertfile {folder}/server.pem\nkeyfile {folder}/server.key\n"
    )
    with (folder / "edgehub.log").open("w") as log:
        hub = HubStandIn([str(find_mosquitto()), "-c", str(config)], log)
        try:
            hub.start()
            with workload_api(folder / "workload.sock", authority):
                yield hub
        finally:
            hub.stop()


def main(folder: Path, host: str) -> None:
    """Serve a hub whose twin is files, until the process is ended."""
    wanted: dict[str, Any] = {}
    with standing_in(folder, host, "0.0.0.0") as hub:
        (folder / "ready").touch()
        while True:
            time.sleep(0.1)
            with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
                now = json.loads((folder / "desired.json").read_text())
                if now != wanted:
                    wanted = now
                    hub.want(**now)
            (folder / "reported.tmp").write_text(json.dumps(hub.reported))
            (folder / "reported.tmp").replace(folder / "reported.json")
            (folder / "messages.tmp").write_text("".join(json.dumps(one) + "\n" for one in hub.messages))
            (folder / "messages.tmp").replace(folder / "messages.jsonl")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
