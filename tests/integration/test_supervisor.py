"""The supervisor with the real Dapr runtime and Redis: nothing stays behind, whatever dies comes back."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
import yaml
from conftest import require_runtime

from services.cli.home import Home
from services.cli.ports import PortsBusy, still_busy
from services.cli.settings import StackSettings, default_root
from services.cli.stack import Stack
from services.cli.supervisor import StartFailed

pytestmark = pytest.mark.integration

MARK = "HALFSURE_TEST_MARK"
# A service that has a child of its own, which must not outlive it either.
SERVICE = """
import os, subprocess, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(404 if self.path.startswith("/dapr/") else 200)
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *ignored): pass
ThreadingHTTPServer(("127.0.0.1", int(os.environ["APP_PORT"])), Handler).serve_forever()
"""
NAMES = {"redis", "placement", "scheduler", "ingest", "ingest-sidecar"}


@pytest.fixture(scope="module", autouse=True)
def runtime() -> None:
    require_runtime()


@pytest.fixture
def settings(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> StackSettings:
    """A stack of one small service, on ports of its own for each test."""
    for name in [name for name in os.environ if name.startswith("HALFSURE_") and name != "HALFSURE_REQUIRE_DAPR"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv(MARK, str(tmp_path))
    number = sorted(item.nodeid for item in request.session.items).index(request.node.nodeid)
    return StackSettings(
        home=tmp_path / "home",
        port_offset=10_000 + 500 * (number % 20),
        run_file=write_run_file(tmp_path),
        start_timeout=60,
    )


def write_run_file(folder: Path, resources: str | None = None) -> Path:
    root = default_root()
    content = yaml.safe_load((root / "dapr" / "dapr.yaml").read_text())
    common, app = content["common"], content["apps"][0]
    common["resourcesPaths"] = [resources or str(root / "components" / "local"), str(root / "dapr")]
    common["configFilePath"] = str(root / "dapr" / "config.yaml")
    (folder / "service.py").write_text(SERVICE)
    app |= {"command": ["python", str(folder / "service.py")], "appDirPath": str(folder)}
    path = folder / "dapr.yaml"
    path.write_text(yaml.safe_dump({**content, "apps": [app]}))
    return path


def alive(mark: Path) -> list[str]:
    """Everything that was started for this test and still runs, however deep."""
    found = []
    for process in psutil.process_iter(["pid", "status"]):
        try:
            if process.pid == os.getpid() or process.info["status"] == psutil.STATUS_ZOMBIE:
                continue
            if process.environ().get(MARK) == str(mark):
                found.append(f"{process.pid} {' '.join(process.cmdline())[:120]}")
        except psutil.Error:
            continue
    return found


async def wait_for(what: Callable[[], Any], seconds: float = 30.0) -> Any:
    """The first truthy value of `what` (which may be a coroutine function)."""
    deadline = time.monotonic() + seconds
    while True:
        value = what()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        await asyncio.sleep(0.01)


async def nothing_is_left(settings: StackSettings) -> None:
    mark = settings.home_path.parent
    await wait_for(lambda: not alive(mark), 15)
    # A process that is being killed loses its memory, and with it its mark, a moment before its sockets.
    await wait_for(lambda: not still_busy(Stack(settings).ports.numbers.values()), 15)


def command(settings: StackSettings, *arguments: str) -> tuple[list[str], dict[str, str]]:
    environment = {
        **os.environ,
        "HALFSURE_HOME": str(settings.home_path),
        "HALFSURE_PORT_OFFSET": str(settings.port_offset),
        "HALFSURE_RUN_FILE": str(settings.run_file),
    }
    return [sys.executable, "-m", "services.cli.main", *arguments], environment


def halfsure(settings: StackSettings, *arguments: str) -> subprocess.CompletedProcess[str]:
    line, environment = command(settings, *arguments)
    return subprocess.run(
        line, env=environment, cwd=default_root(), capture_output=True, text=True, timeout=90, check=False
    )


@pytest.fixture
def foreground(settings: StackSettings) -> Iterator[subprocess.Popen[bytes]]:
    line, environment = command(settings, "up")
    child = subprocess.Popen(
        line, env=environment, cwd=default_root(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    yield child
    if child.poll() is None:
        child.kill()
    child.wait()


def reached(settings: StackSettings, name: str, state: str) -> bool:
    entries = {entry["name"]: entry for entry in Home(settings.home_path).record().get("processes", ())}
    return name in entries and entries[name]["state"] == state


STEPS = [("redis", "starting"), ("scheduler", "starting"), ("ingest-sidecar", "starting"), ("ingest", "ready")]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
@pytest.mark.parametrize(("name", "state"), STEPS, ids=lambda part: part)
async def test_whenever_the_starter_dies_nothing_stays(
    settings: StackSettings, foreground: subprocess.Popen[bytes], name: str, state: str, number: signal.Signals
) -> None:
    await wait_for(lambda: reached(settings, name, state), 60)
    foreground.send_signal(number)
    await wait_for(lambda: foreground.poll() is not None, 20)
    await nothing_is_left(settings)


async def test_whatever_dies_comes_back(settings: StackSettings) -> None:
    async with Stack(settings).running() as stack, httpx2.AsyncClient() as client:
        assert set(stack.processes) == NAMES
        for name in sorted(NAMES):
            before = stack.kill(name)
            await stack.wait_ready(name, 30)
            assert stack.pid(name) not in (None, before)
            assert stack.processes[name].restarts == 1
        answer = await client.get(stack.url("ingest") + "/readyz")
        assert answer.status_code == 200
    await nothing_is_left(settings)


@pytest.mark.parametrize("name", ["ingest", "ingest-sidecar"])
async def test_what_hangs_is_started_again(settings: StackSettings, name: str) -> None:
    async with Stack(settings.model_copy(update={"hung_after": 3.0})).running() as stack:
        before = stack.supervisor.kill(name, signal.SIGSTOP)
        await wait_for(lambda: stack.pid(name) not in (before, None))
        await stack.wait_ready(name)


async def test_what_redis_acknowledged_survives_its_death(settings: StackSettings) -> None:
    async with Stack(settings).running() as stack, httpx2.AsyncClient() as client:
        base, headers = stack.processes["ingest-sidecar"].spec.url, {"dapr-api-token": stack.secrets.dapr_api}
        saved = await client.post(f"{base}/v1.0/state/statestore", json=[{"key": "k", "value": 7}], headers=headers)
        assert saved.status_code == 204
        # `everysec`: what was acknowledged more than a second ago is on disk.
        log = settings.home_path / "redis" / "appendonly.aof"
        await wait_for(lambda: b"ingest||k" in log.read_bytes(), 5)
        stack.kill("redis")
        await stack.wait_ready("redis", 30)

        async def restored() -> bool:
            answer = await client.get(f"{base}/v1.0/state/statestore/k", headers=headers)
            return answer.status_code == 200 and answer.json() == 7

        await wait_for(restored, 15)


async def test_the_sidecar_wants_its_token(settings: StackSettings) -> None:
    async with Stack(settings).running() as stack, httpx2.AsyncClient() as client:
        base = stack.processes["ingest-sidecar"].spec.url
        assert (await client.get(f"{base}/v1.0/metadata")).status_code == 401
        headers = {"dapr-api-token": stack.secrets.dapr_api}
        metadata = (await client.get(f"{base}/v1.0/metadata", headers=headers)).json()
        assert metadata["runtimeVersion"].startswith("1.18.")
        assert {component["name"] for component in metadata["components"]} == {"pubsub", "statestore"}


async def test_everything_listens_on_loopback_only(settings: StackSettings) -> None:
    async with Stack(settings).running() as stack:
        pids = {process.pid: name for name, process in stack.processes.items()}
        # Dapr 1.18 takes --healthz-listen-address and listens everywhere all the same (pkg/healthz/server).
        health = {stack.ports["placement_health"], stack.ports["scheduler_health"]}
        open_to_all = [
            f"{pids[connection.pid]} on {connection.laddr}"
            for connection in psutil.net_connections("tcp")
            if connection.pid in pids
            and connection.status == psutil.CONN_LISTEN
            and connection.laddr[1] not in health
            and connection.laddr[0] not in ("127.0.0.1", "::1", "::ffff:127.0.0.1")
        ]
    assert not open_to_all


async def test_a_busy_port_is_refused_by_name_before_anything_starts(settings: StackSettings) -> None:
    stack = Stack(settings)
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", stack.ports["ingest_grpc"]))
        holder.listen()
        said = rf"port {stack.ports['ingest_grpc']}, which ingest_grpc needs, is held by .*pid {os.getpid()}"
        with pytest.raises(PortsBusy, match=said):
            async with stack.running():
                pass
        assert alive(settings.home_path.parent) == []


async def test_a_sidecar_that_cannot_start_says_why(settings: StackSettings, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    source = (default_root() / "components" / "local" / "pubsub.yaml").read_text()
    (bad / "pubsub.yaml").write_text(source.replace("pubsub.redis", "pubsub.nosuchbroker"))
    settings = settings.model_copy(update={"run_file": write_run_file(tmp_path, str(bad))})
    with pytest.raises(StartFailed, match=r"ingest-sidecar ended with exit code 1(.|\n)*nosuchbroker"):
        async with Stack(settings).running():
            pass
    await nothing_is_left(settings)


async def test_up_detached_status_and_down(settings: StackSettings) -> None:
    started = halfsure(settings, "up", "--detach")
    assert started.returncode == 0, started.stderr
    token = (settings.home_path / "token").read_text().strip()
    assert token in started.stdout
    assert Stack(settings).url("ingest") in started.stdout
    assert halfsure(settings, "status", "--json").returncode == 0
    again = halfsure(settings, "up")
    assert again.returncode == 1
    assert "already runs in" in again.stderr
    assert "Traceback" not in again.stderr
    ended = halfsure(settings, "down")
    assert ended.returncode == 0, ended.stderr
    assert "5 processes gone" in ended.stdout
    await nothing_is_left(settings)
    assert halfsure(settings, "status").returncode == 1
    assert "Nothing runs" in halfsure(settings, "down").stdout


async def test_the_next_start_is_clean_after_a_crash(
    settings: StackSettings, foreground: subprocess.Popen[bytes]
) -> None:
    await wait_for(lambda: Home(settings.home_path).record().get("state") == "running", 60)
    first = (settings.home_path / "token").read_text()
    foreground.kill()
    async with Stack(settings).running() as stack:
        assert stack.token == first.strip()
    await nothing_is_left(settings)


async def test_the_infrastructure_alone(settings: StackSettings) -> None:
    async with Stack(settings, only_infrastructure=True).running() as stack:
        assert set(stack.processes) == {"redis", "placement", "scheduler"}
    await nothing_is_left(settings)


async def test_a_redis_that_runs_already_is_used_and_left_alone(settings: StackSettings, tmp_path: Path) -> None:
    other = settings.model_copy(update={"home": tmp_path / "other"})
    async with Stack(other, only_infrastructure=True).running() as first:
        second = settings.model_copy(
            update={
                "redis_host": f"127.0.0.1:{first.ports['redis']}",
                "port_offset": settings.port_offset + 250,
            }
        )
        async with Stack(second).running() as stack:
            assert set(stack.processes) == NAMES - {"redis"}
        assert first.processes["redis"].state == "ready"
