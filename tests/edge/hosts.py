"""Hosts of a network and the programs on them; what a test of the edge needs of this machine."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import require_runtime
from edge.network import Network

from services.cli.backing import NoBacking, needs
from services.cli.settings import StackSettings, default_root

ROOT = default_root()


def require_machine() -> None:
    """Skips where namespaces cannot be made, or the servers behind the profile are missing."""
    require_runtime()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("network namespaces need Linux and root")
    for tool in ("ip", "tc", "iptables", "unshare", "setpriv", "openssl", "mosquitto_passwd"):
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


class Hosts:
    """A network, the programs on its hosts, and a folder for what they leave; all is ended with `closing`."""

    def __init__(self, network: Network, folder: Path, closing: contextlib.ExitStack) -> None:
        self.network = network
        self.folder = folder
        self._closing = closing

    def start(self, host: str, name: str, *command: str, **more: Any) -> "subprocess.Popen[str]":
        """A program on a host, ended with the test."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("HALFSURE_")}
        environment |= {"PYTHONPATH": f"{ROOT}/tests:{ROOT}", **more.pop("env", {})}
        with (self.folder / f"{name}.log").open("w") as log:
            process = subprocess.Popen(
                [*self.network.inside(host), *command],
                **{"stdout": log, "stderr": log, "text": True, "env": environment, "start_new_session": True, **more},
            )
        self._closing.callback(end, process)
        return process

    def place(self, kind: str, host: str, *options: str) -> Callable[[], dict[str, Any]]:
        """Start a place of the profile on a host. The answer waits until it is up, and says how it is reached: each of
        its ports is published at the host."""
        home = self.folder / host
        process = self.start(host, host, sys.executable, str(ROOT / "tests/edge/place.py"), kind, str(home), *options)
        return lambda: self._up(host, process, home / "ready.json")

    def _up(self, host: str, process: "subprocess.Popen[str]", ready: Path) -> dict[str, Any]:
        until(lambda: ready.exists() or process.poll() is not None, 400, f"{host} is up")
        assert process.poll() is None, (self.folder / f"{host}.log").read_text()[-3000:]
        reached = json.loads(ready.read_text())
        for port in reached["ports"].values():
            self.network.publish(host, port, f"127.0.0.1:{port}")
        return {**reached, "process": process}


def end(process: "subprocess.Popen[str]") -> None:
    """TERM, and KILL if that is not enough."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
