"""Runs a deployment manifest as a device would, from the file alone: a stand-in for edgeAgent and Docker.

Each module is a process in network and mount namespaces of its own. Of the manifest it has the command, environment,
user, binds, tmpfs, read-only root, lack of privileges, published ports, restart policy and start-up order; of its
image, what this machine has of it. Not kept: memory and process limits, and the log driver.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.network import Network

from services.cli.backing import find_mosquitto
from services.cli.redis import find_redis_server
from services.cli.toolchain import find_runtime

BRIDGE, SUBNET, GATEWAY = "azure-iot-edge", "172.18.0.0/16", "172.18.0.1"
SOCKET = "/run/iotedge/workload.sock"
BIN = Path(sys.executable).parent
RESTART_SECONDS = 1.0


@dataclass(frozen=True)
class Image:
    """What a container image brings: files, a user, an environment."""

    user: str
    files: Mapping[str, Path] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


def image_of(name: str) -> Image:
    """What this machine has in place of an image. Raises LookupError for one that it knows nothing of."""
    repository, _, tag = name.rpartition(":")
    base = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp"}
    if repository == "daprio/daprd":
        runtime = find_runtime()
        if runtime.version != tag:
            raise LookupError(f"the manifest wants daprd {tag}, and here is {runtime.version}")
        return Image("65532:65532", {"/daprd": runtime.folder / "daprd"}, base)
    if repository == "redis":
        return Image("999:999", {"/usr/local/bin/redis-server": find_redis_server()}, base)
    if repository == "eclipse-mosquitto":
        return Image("1883:1883", {"/usr/local/bin/mosquitto": find_mosquitto()}, base)
    if "/halfsure/" in repository:
        python = {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        return Image("10001:10001", {}, {**base, **python, "PATH": f"{BIN}:/usr/bin:/bin"})
    raise LookupError(f"nothing here stands for the image {name}")


@dataclass
class Module:
    """A module of the manifest, and its process now."""

    name: str
    document: Mapping[str, Any]
    address: str
    process: "subprocess.Popen[bytes] | None" = None
    restarts: int = -1
    ended_at: float = 0.0

    @property
    def options(self) -> dict[str, Any]:
        return json.loads(self.document["settings"].get("createOptions") or "{}")

    @property
    def host(self) -> dict[str, Any]:
        return self.options.get("HostConfig", {})

    @property
    def environment(self) -> dict[str, str]:
        return {name: given["value"] for name, given in self.document.get("env", {}).items()}

    @property
    def binds(self) -> Iterator[tuple[str, str, bool]]:
        """(path on the device, path in the container, read-only)."""
        for bind in self.host.get("Binds", ()):
            outside, inside, *mode = bind.split(":")
            yield outside, inside, mode == ["ro"]


class Device:
    """The modules of a manifest on a host of a network; `root` holds the device's own /etc and /var/lib."""

    def __init__(self, manifest: Path, network: Network, host: str, root: Path, edge: Mapping[str, str]) -> None:
        agent = json.loads(manifest.read_text())["modulesContent"]["$edgeAgent"]["properties.desired"]
        self._network = network
        self._host = host
        self._root = root
        self._edge = edge  # what edgeAgent adds to each module's environment
        self._stopping = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self.hub_address = "172.18.0.2"
        documents = sorted(agent["modules"].items(), key=lambda pair: pair[1]["startupOrder"])
        self.modules = {
            name: Module(name, document, f"172.18.0.{number}") for number, (name, document) in enumerate(documents, 3)
        }

    def wire(self) -> None:
        """The container network, a namespace for each module, and the ports that are published."""
        self._network.bridge(self._host, BRIDGE, f"{GATEWAY}/16", SUBNET)
        addresses = {"edgehub": self.hub_address, **{name: one.address for name, one in self.modules.items()}}
        for number, (name, address) in enumerate(addresses.items()):
            self._network.add(name)
            self._network.attach(name, number, self._host, BRIDGE, f"{address}/16", GATEWAY)
        for module in self.modules.values():
            for port, bindings in module.host.get("PortBindings", {}).items():
                for binding in bindings:
                    target = f"{module.address}:{port.split('/')[0]}"
                    self._network.publish(self._host, int(binding["HostPort"]), target)
        # What the container network's own name service answers.
        hosts = "".join(f"{address} {name}\n" for name, address in addresses.items())
        (self._root / "hosts").write_text(f"127.0.0.1 localhost\n{hosts}")
        (self._root / "resolv.conf").write_text("")
        (self._root / "logs").mkdir()

    def start(self) -> None:
        """In their order, as edgeAgent does: it waits for none to be ready."""
        for module in self.modules.values():
            if module.document["status"] == "running":
                self._spawn(module)
        self._keeper.start()

    def kill(self, name: str) -> None:
        """`kill -9` a module's process."""
        process = self.modules[name].process
        assert process is not None
        os.killpg(process.pid, signal.SIGKILL)

    def stop(self) -> None:
        self._stopping.set()
        if self._keeper.is_alive():
            self._keeper.join()
        running = [module.process for module in reversed(self.modules.values()) if module.process]
        for process in running:
            _signal(process, signal.SIGTERM)
        for process in running:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                _signal(process, signal.SIGKILL)
                process.wait()

    def _keep(self) -> None:
        while not self._stopping.wait(0.1):
            for module in self.modules.values():
                if module.process is None or module.process.poll() is None:
                    continue
                module.ended_at = module.ended_at or time.monotonic()
                policy = module.document["restartPolicy"]
                wanted = policy == "always" or (policy.startswith("on-") and module.process.returncode != 0)
                if wanted and time.monotonic() - module.ended_at >= RESTART_SECONDS:
                    self._spawn(module)

    def _spawn(self, module: Module) -> None:
        module.restarts, module.ended_at = module.restarts + 1, 0.0
        image = image_of(module.document["settings"]["image"])
        root = self._root / "containers" / module.name
        root.mkdir(parents=True, exist_ok=True)
        user, group = module.options.get("User", image.user).split(":")
        confined = ["--reuid", user, "--regid", group, "--clear-groups", "--no-new-privs"]
        if "ALL" in module.host.get("CapDrop", ()):
            confined += ["--bounding-set=-all", "--inh-caps=-all"]
        environment = {**image.environment, **self._edge, "IOTEDGE_MODULEID": module.name, **module.environment}
        command = [
            *("chroot", str(root / "root"), "setpriv", *confined, "env", "-i"),
            *(f"{name}={value}" for name, value in environment.items()),
            *module.options["Cmd"],
        ]
        script = "\n".join(self._mounts(module, image, root)) + '\nexec "$@"'
        with (self._root / "logs" / f"{module.name}.log").open("ab") as log:
            module.process = subprocess.Popen(
                [
                    *(*self._network.inside(module.name), "unshare", "--mount", "--propagation", "private"),
                    *("sh", "-ec", script, "sh", *command),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )

    def _mounts(self, module: Module, image: Image, root: Path) -> Iterator[str]:
        """A root of its own over this machine's files, and what the manifest binds into it."""
        at = f"{root}/root"
        yield f"mount -t tmpfs tmpfs {root}"
        yield f"mkdir {root}/upper {root}/work {at}"
        yield f"mount -t overlay overlay -o lowerdir=/,upperdir={root}/upper,workdir={root}/work {at}"
        # So that other users find this Python, which may be in the home of root.
        yield f"chmod 711 {at}/root"
        own = [(self._root / name, f"/etc/{name}", True) for name in ("hosts", "resolv.conf")]
        own += [(path, inside, True) for inside, path in image.files.items()]
        own += [(self._root / "edgehub" / "workload.sock", SOCKET, False)]
        bound = [(Path(f"{self._root}{outside}"), inside, ro) for outside, inside, ro in module.binds]
        for outside, inside, read_only in (*own, *bound):
            # A link in the path is one of the container's, not of this machine.
            yield f"to={at}$(chroot {at} realpath -m {shlex.quote(inside)})"
            made = 'mkdir -p "$to"' if outside.is_dir() else 'mkdir -p "$(dirname "$to")"; rm -f "$to"; touch "$to"'
            yield f'{made}; mount --bind {shlex.quote(str(outside))} "$to"'
            if read_only:
                yield 'mount -o remount,bind,ro "$to"'
        yield f"mount --rbind /dev {at}/dev; mount -t proc proc {at}/proc"
        for inside, options in module.host.get("Tmpfs", {}).items():
            yield f"mount -t tmpfs -o {options} tmpfs {at}{inside}"
        if module.host.get("ReadonlyRootfs"):
            yield f"mount -o remount,bind,ro {at}"


def _signal(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    if process.poll() is None:
        os.killpg(process.pid, number)


def prepare(root: Path, checkout: Path, tokens: str, model_keys: str, password: str) -> None:
    """The device's folders, as deploy/iotedge/README.md lists them."""
    settings, kept = root / "etc/halfsure", root / "var/lib/halfsure"
    settings.mkdir(parents=True)
    shutil.copytree(checkout / "components/iotedge", settings / "components")
    shutil.copytree(checkout / "dapr", settings / "dapr", ignore=shutil.ignore_patterns("runtime", "cli"))
    for name in ("config.yaml", "mosquitto.conf"):
        shutil.copy(checkout / "deploy/iotedge" / name, settings / name)
    (settings / "tokens.json").write_text(tokens)
    os.chown(settings / "tokens.json", 10001, 10001)
    (settings / "model-keys.pem").write_text(model_keys)
    (settings / "identity").mkdir()
    (settings / "identity/uplink.pem").touch()  # nobody here asks for it
    passwords = settings / "mosquitto.passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(passwords), "sensors", password], check=True)
    os.chown(passwords, 1883, 1883)
    owners = {
        **dict.fromkeys(("blobs", "ingest", "infer", "select-uncertain", "uplink"), 10001),
        "redis": 999,
        "mosquitto": 1883,
    }
    for name, user in owners.items():
        (kept / name).mkdir(parents=True)
        os.chown(kept / name, user, user)
