"""A process to run, and the means to start and end it so that nothing of it stays."""

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Readiness:
    """When a process counts as ready: a URL answers 2xx, a Redis answers PONG, or a port takes connections."""

    url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    redis: tuple[str, int] | None = None
    tcp: tuple[str, int] | None = None


@dataclass(frozen=True)
class ProcessSpec:
    """One process of the stack. Stages start in ascending order and stop in descending order."""

    name: str
    command: tuple[str, ...]
    stage: int
    cwd: Path
    env: Mapping[str, str]
    readiness: Readiness
    log: Path
    ports: Mapping[str, int] = field(default_factory=dict)
    url: str = ""


def _die_with_parent(parent: int) -> None:
    """Runs in the child before exec: the kernel kills it when the starter dies, however it dies."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)


async def spawn(spec: ProcessSpec) -> asyncio.subprocess.Process:
    """Start the process in a session of its own, its output appended to its log file.

    The kernel's notice is bound to the starting thread: start from the thread that outlives the stack.
    """
    spec.log.parent.mkdir(parents=True, exist_ok=True)
    parent = os.getpid()
    with spec.log.open("ab") as log:
        return await asyncio.create_subprocess_exec(
            *spec.command,
            cwd=spec.cwd,
            env=dict(spec.env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=lambda: _die_with_parent(parent),
        )


class Sentinel:
    """The supervisor's end of services/cli/sentinel.py, which kills what a killed supervisor leaves."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[str] | None = None
        self._groups: set[int] = set()

    def start(self) -> None:
        """Start it (again) and tell it of all groups."""
        # -I -S: nothing of ours or of others is imported, it starts in 20 ms and stays small.
        command = [sys.executable, "-I", "-S", str(Path(__file__).with_name("sentinel.py"))]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True, cwd="/")
        for pgid in self._groups:
            self._tell(f"+{pgid}")

    def watch(self, pgid: int) -> None:
        self._groups.add(pgid)
        if self._child is not None and self._child.poll() is not None:
            self.start()
        else:
            self._tell(f"+{pgid}")

    def forget(self, pgid: int) -> None:
        self._groups.discard(pgid)
        self._tell(f"-{pgid}")

    def stop(self) -> None:
        """Let it end; whatever it was not told to forget, it kills."""
        if self._child is not None and self._child.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._child.stdin.close()
            self._child.wait()

    def _tell(self, line: str) -> None:
        if self._child is not None and self._child.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._child.stdin.write(line + "\n")
                self._child.stdin.flush()


def signal_group(pgid: int, number: signal.Signals) -> bool:
    """Send a signal to a whole process group; False when none of it is left."""
    try:
        os.killpg(pgid, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        # macOS answers so for a group of which only zombies are left.
        return False
    return True


def group_exists(pgid: int) -> bool:
    """Whether any process of the group is left, zombies aside."""
    for process in psutil.process_iter(["pid", "status"]):
        try:
            if os.getpgid(process.pid) == pgid and process.info["status"] != psutil.STATUS_ZOMBIE:
                return True
        except (ProcessLookupError, PermissionError):
            continue
    return False


def last_lines(path: Path, count: int = 12, start: int = 0) -> str:
    """The last lines of a log file after byte `start`: those that tell of errors, when there are any."""
    try:
        with path.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(min(start, end), end - 65_536))
            lines = log.read().decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return ""
    fatal = [line for line in lines if "level=fatal" in line or "level=error" in line]
    return "\n".join((fatal or lines)[-count:])
