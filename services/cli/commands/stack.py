"""`halfsure up`, `down` and `status`."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from typing import Annotated, Any

import httpx2
import typer
from rich.live import Live

from services.cli.build import build_runtime
from services.cli.display import age, announce, process_table
from services.cli.home import Home
from services.cli.ports import still_busy
from services.cli.process import last_lines
from services.cli.reaping import leftovers, reap
from services.cli.settings import StackSettings
from services.cli.stack import Stack
from services.cli.supervisor import StartFailed
from services.cli.terminal import HomeOption, JsonOption, ProfileOption, app, fail, load_settings, out
from services.cli.toolchain import NoRuntime, find_runtime

_DOWN_TIMEOUT = 60.0


@app.command()
def up(
    home: HomeOption = None,
    profile: ProfileOption = None,
    mtls: Annotated[
        bool,
        typer.Option("--mtls", help="Sidecars speak mTLS, and ask each other only what dapr/access.yaml lets them."),
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once the stack is up.")] = False,
    only_infrastructure: Annotated[
        bool,
        typer.Option("--only-infrastructure", help="Redis, placement and scheduler alone (for `dapr run -f`)."),
    ] = False,
) -> None:
    """Start the servers behind the profile, the Dapr control plane and every service, and keep them running."""
    settings = load_settings(home, profile)
    settings = settings.model_copy(update={"mtls": mtls or settings.mtls})
    _ensure_runtime(settings)
    if detach:
        _up_detached(settings, only_infrastructure)
    else:
        asyncio.run(_up(settings, only_infrastructure))


@app.command()
def down(home: HomeOption = None) -> None:
    """Stop the stack and make sure that no process and no port of it is left."""
    settings = load_settings(home)
    folder = Home(settings.home_path)
    record = folder.record()
    if not folder.is_locked() and not leftovers(record):
        out.print(f"Nothing runs in {folder.path}.", soft_wrap=True)
        return
    if folder.is_locked():
        _stop_supervisor(folder)
        # Whatever it started last is in the record by now.
        record = {**record, **folder.record()}
    killed = reap(record)
    ports = {name: port for entry in record["processes"] for name, port in entry["ports"].items()}
    busy = still_busy(ports.values())
    if busy or leftovers(record):
        fail(f"not everything stopped: ports {busy}, processes {leftovers(record)}")
        raise typer.Exit(1)
    note = f" ({', '.join(killed)} had to be killed)" if killed else ""
    out.print(f"Down: {len(record['processes'])} processes gone, {len(ports)} ports free{note}.")


@app.command()
def status(home: HomeOption = None, json: JsonOption = False) -> None:
    """Show every process: state, pid, restarts, health and address. Exit code 1 unless all are ready."""
    settings = load_settings(home)
    report = _status(Home(settings.home_path))
    if json:
        out.print_json(data=report)
    elif report["state"] == "stopped":
        out.print(f"Nothing runs in {settings.home_path}; `halfsure up` starts it.", soft_wrap=True)
    else:
        title = f"{report['state']} for {age(report['started_at'])}, supervisor pid {report['pid']}"
        out.print(process_table(report["processes"], title))
    if not report["healthy"]:
        raise typer.Exit(1)


def _ensure_runtime(settings: StackSettings) -> None:
    """Build the Dapr runtime when none is there, so that `up` is all it takes."""
    try:
        find_runtime(settings.dapr_bin)
    except NoRuntime:
        if settings.dapr_bin is not None:
            raise
        build_runtime(settings.root)
    if settings.mtls:
        build_runtime(settings.root, runtime=False, sentry=True)


async def _up(settings: StackSettings, only_infrastructure: bool) -> None:
    """Run in the foreground until a signal comes."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    main = asyncio.current_task()
    up_now = False

    def on_signal() -> None:
        stop.set()
        if not up_now and main is not None:
            main.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, on_signal)
    show = _Progress()
    stack = Stack(settings, only_infrastructure=only_infrastructure, on_change=show.change)
    try:
        with show:
            async with stack.running():
                up_now = True
                show.finish()
                urls = {} if only_infrastructure else {name: stack.url(name) for name in stack.app_ids}
                announce(out, urls, stack.token, str(stack.home.path))
                out.print("Ctrl-C stops it.", highlight=False)
                await stop.wait()
                out.print("Stopping ...")
    except asyncio.CancelledError:
        out.print("Stopped before it was up.")
        raise typer.Exit(130) from None
    out.print("Down.")


class _Progress:
    """The processes coming up: a live table on a terminal, a line a change elsewhere."""

    def __init__(self) -> None:
        self._live: Live | None = None
        self._seen: dict[str, tuple[str, int]] = {}
        self._up = False

    def __enter__(self) -> "_Progress":
        if out.is_terminal:
            self._live = Live(console=out, refresh_per_second=8, transient=False)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_live()

    def finish(self) -> None:
        """From now on only restarts are told."""
        self._stop_live()
        self._up = True

    def change(self, stack: Stack) -> None:
        record = stack.record()
        if self._live is not None:
            self._live.update(process_table(record["processes"]))
            return
        for entry in record["processes"]:
            now = (entry["state"], entry["restarts"])
            if self._seen.get(entry["name"]) == now:
                continue
            self._seen[entry["name"]] = now
            if entry["state"] == "restarting":
                out.print(f"{entry['name']} ended with exit code {entry['exit_code']}, starting it again")
            elif entry["state"] == "ready" and (not self._up or entry["restarts"]):
                out.print(f"{entry['name']} is ready (pid {entry['pid']})")

    def _stop_live(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def _up_detached(settings: StackSettings, only_infrastructure: bool) -> None:
    folder = Home(settings.home_path)
    folder.create()
    log = folder.logs / "supervisor.log"
    start = log.stat().st_size if log.exists() else 0
    command = [sys.executable, "-m", "services.cli.main", "up", "--home", str(folder.path)]
    command += ["--profile", settings.profile, *(["--mtls"] if settings.mtls else [])]
    with log.open("ab") as handle:
        child = subprocess.Popen(
            command + (["--only-infrastructure"] if only_infrastructure else []),
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=handle,
            start_new_session=True,
        )
    with out.status("Starting ...") if out.is_terminal else nullcontext():
        while child.poll() is None:
            record = folder.record()
            if record.get("pid") == child.pid and record.get("state") == "running":
                stack = Stack(settings, only_infrastructure=only_infrastructure)
                urls = {} if only_infrastructure else {name: stack.url(name) for name in stack.app_ids}
                announce(out, urls, stack.token, str(folder.path))
                out.print("`halfsure status` shows it, `halfsure down` stops it.", highlight=False)
                return
            time.sleep(0.1)
    raise StartFailed(_last_words(last_lines(log, count=30, start=start)))


def _last_words(text: str) -> str:
    _, mark, reason = text.partition("error: ")
    return reason if mark else text


def _stop_supervisor(folder: Home) -> None:
    pid = folder.supervisor_pid()
    if pid is None:
        return
    _signal(pid, signal.SIGTERM)
    deadline = time.monotonic() + _DOWN_TIMEOUT
    while folder.is_locked() and time.monotonic() < deadline:
        time.sleep(0.05)
    if folder.is_locked():
        _signal(pid, signal.SIGKILL)
        while folder.is_locked():
            time.sleep(0.05)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _status(folder: Home) -> dict[str, Any]:
    record = folder.record()
    if not folder.is_locked() or not record:
        left = leftovers(record)
        return {"state": "stopped", "healthy": False, "home": str(folder.path), "left_behind": left}
    with httpx2.Client(timeout=2.0, trust_env=False) as client:
        for entry in record["processes"]:
            entry["healthy"] = entry["state"] == "ready" and _healthy(client, entry, folder)
            if entry["state"] == "ready" and not entry["healthy"]:
                entry["state"] = "unhealthy"
    healthy = record["state"] == "running" and all(entry["healthy"] for entry in record["processes"])
    return {**record, "home": str(folder.path), "healthy": healthy}


def _healthy(client: httpx2.Client, entry: dict[str, Any], folder: Home) -> bool:
    if not entry["ready_url"]:
        return True
    try:
        headers = {"dapr-api-token": folder.secrets().dapr_api}
        return client.get(entry["ready_url"], headers=headers).is_success
    except httpx2.HTTPError:
        return False
