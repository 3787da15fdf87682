"""Starts processes in order, restarts what dies, and ends them in reverse so that none stays."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import httpx2

from services.cli.process import ProcessSpec, Readiness, Sentinel, last_lines, signal_group, spawn

State = Literal["waiting", "starting", "ready", "restarting", "stopped", "failed"]

_LISTEN = 5.0  # seconds between two looks at a process that is ready
_POLL = 0.1
_FIRST_DELAY = 0.2
_LAST_DELAY = 5.0
_HEALTHY_AFTER = 30.0
_ATTEMPTS_AT_START = 3


class StartFailed(Exception):
    """A process of the stack did not come up."""


@dataclass
class Supervised:
    """A process under supervision: what it is and how it fares."""

    spec: ProcessSpec
    state: State = "waiting"
    was_ready: bool = False  # ever
    restarts: int = 0
    pid: int | None = None
    exit_code: int | None = None
    started_at: float = 0.0
    log_start: int = 0
    task: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        return self.spec.name


def next_delay(previous: float, lived: float) -> float:
    """Seconds to wait before the next start, given the wait before the last one and the life after it."""
    if previous == 0.0 or lived >= _HEALTHY_AFTER:
        return _FIRST_DELAY
    return min(previous * 2, _LAST_DELAY)


class Supervisor:
    """Keeps a set of processes alive, stage after stage, until it is told to stop."""

    def __init__(
        self,
        specs: Sequence[ProcessSpec],
        *,
        start_timeout: float,
        stop_grace: float,
        hung_after: float = 30.0,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        ordered = sorted(specs, key=lambda spec: spec.stage)
        self.processes = {spec.name: Supervised(spec) for spec in ordered}
        self._start_timeout = start_timeout
        self._stop_grace = stop_grace
        self._hung_after = hung_after
        self._on_change = on_change
        self._stopping = False
        self._http: httpx2.AsyncClient | None = None
        self._sentinel = Sentinel()

    async def start(self) -> None:
        """Start all stages, each when the one before is ready; StartFailed holds the reason and log lines."""
        self._http = httpx2.AsyncClient(timeout=2.0, trust_env=False)
        self._sentinel.start()
        for _, stage in groupby(self.processes.values(), key=lambda process: process.spec.stage):
            members = list(stage)
            for process in members:
                process.task = asyncio.create_task(self._keep_alive(process), name=process.name)
            await self._wait_stage(members)

    async def stop(self) -> None:
        """End all processes in reverse order, TERM first and KILL after the grace; never raises half way."""
        self._stopping = True
        ordered = sorted(self.processes.values(), key=lambda process: -process.spec.stage)
        for _, stage in groupby(ordered, key=lambda process: process.spec.stage):
            await asyncio.gather(*(self._end(process) for process in stage))
        self._sentinel.stop()
        if self._http is not None:
            await self._http.aclose()

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Signal the process (its whole group) and return its pid; what dies so is restarted."""
        process = self.processes[name]
        if process.pid is None:
            raise ProcessLookupError(f"{name} is not running")
        pid = process.pid
        signal_group(pid, number)
        if number == signal.SIGKILL:
            # Its exit is noticed only later, and until then it must not count as ready.
            process.state = "restarting"
        return pid

    async def wait_ready(self, name: str, within: float | None = None) -> None:
        """Wait until the process is ready (again); StartFailed after `within` seconds, or if it is given up."""
        process = self.processes[name]
        deadline = time.monotonic() + (within or self._start_timeout)
        while process.state != "ready":
            if time.monotonic() > deadline or process.state == "failed":
                raise StartFailed(self._reason(process, "is not ready in time"))
            await asyncio.sleep(_POLL)

    async def _wait_stage(self, members: Sequence[Supervised]) -> None:
        deadline = time.monotonic() + self._start_timeout
        while not all(process.state == "ready" for process in members):
            for process in members:
                if process.state == "failed":
                    raise StartFailed(self._reason(process, f"ended with exit code {process.exit_code}"))
                if process.state != "ready" and time.monotonic() > deadline:
                    raise StartFailed(self._reason(process, f"was not ready in {self._start_timeout:.0f} s"))
            await asyncio.sleep(_POLL)

    def _reason(self, process: Supervised, what: str) -> str:
        tail = last_lines(process.spec.log, start=process.log_start)
        return f"{process.name} {what}; its last lines in {process.spec.log}:\n{tail or '(nothing)'}"

    def _enter(self, process: Supervised, state: State) -> None:
        process.state = state
        process.was_ready = process.was_ready or state == "ready"
        self._on_change()

    async def _keep_alive(self, process: Supervised) -> None:
        """Start the process again and again; give up only while it has never been ready."""
        delay = 0.0
        while not self._stopping:
            lived = await self._live_once(process)
            if self._stopping:
                break
            if not process.was_ready and process.restarts + 1 >= _ATTEMPTS_AT_START:
                self._enter(process, "failed")
                return
            process.restarts += 1
            self._enter(process, "restarting")
            delay = next_delay(delay, lived)
            await asyncio.sleep(delay)
        self._enter(process, "stopped")

    async def _live_once(self, process: Supervised) -> float:
        """One life of the process, from start to exit; returns its length in seconds."""
        process.log_start = process.spec.log.stat().st_size if process.spec.log.exists() else 0
        child = await spawn(process.spec)
        self._sentinel.watch(child.pid)
        process.pid, process.started_at = child.pid, time.time()
        began = time.monotonic()
        if self._stopping:
            signal_group(child.pid, signal.SIGTERM)
        self._enter(process, "starting")
        watch = asyncio.create_task(self._watch(process))
        try:
            process.exit_code = await child.wait()
        finally:
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch
            # A child's own children must not outlive it and hold its ports.
            signal_group(child.pid, signal.SIGKILL)
            self._sentinel.forget(child.pid)
            process.pid = None
        return time.monotonic() - began

    async def _watch(self, process: Supervised) -> None:
        pid, ready = process.pid, False
        while not ready and process.pid == pid:
            await asyncio.sleep(_POLL)
            ready = await self._is_ready(process.spec.readiness)
        if ready and pid is not None and process.pid == pid:
            self._enter(process, "ready")
            await self._until_silent(process, pid)

    async def _until_silent(self, process: Supervised, pid: int) -> None:
        """Kill a process that lives and has not answered for too long; it is then started again."""
        heard = time.monotonic()
        while process.pid == pid:
            await asyncio.sleep(min(_LISTEN, self._hung_after / 4))
            if await self._answers(process.spec.readiness):
                heard = time.monotonic()
            elif time.monotonic() - heard > self._hung_after and process.pid == pid:
                signal_group(pid, signal.SIGKILL)
                return

    async def _answers(self, readiness: Readiness) -> bool:
        """Whether it says anything at all; not being ready for a while is no reason to be killed."""
        if readiness.url is None or self._http is None:
            return await self._is_ready(readiness)
        try:
            await self._http.get(readiness.url, headers=dict(readiness.headers))
        except httpx2.HTTPError:
            return False
        return True

    async def _is_ready(self, readiness: Readiness) -> bool:
        if readiness.redis is not None:
            return await redis_answers(*readiness.redis)
        if readiness.tcp is not None:
            return await connects(*readiness.tcp)
        if readiness.url is None or self._http is None:
            return True
        try:
            answer = await self._http.get(readiness.url, headers=dict(readiness.headers))
        except httpx2.HTTPError:
            return False
        return answer.is_success

    async def _end(self, process: Supervised) -> None:
        """Ask the process to end, then make it; its keeper returns once it is gone."""
        if process.task is None:
            return
        if process.pid is not None:
            signal_group(process.pid, signal.SIGTERM)
        elif process.state in ("restarting", "waiting"):
            process.task.cancel()
        done, _ = await asyncio.wait({process.task}, timeout=self._stop_grace)
        if not done:
            if process.pid is not None:
                signal_group(process.pid, signal.SIGKILL)
            else:
                process.task.cancel()
            await asyncio.wait({process.task})
        if process.state != "failed":
            self._enter(process, "stopped")


async def connects(host: str, port: int) -> bool:
    """Whether somebody listens there."""
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), 2)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def redis_answers(host: str, port: int) -> bool:
    """Whether a Redis that has loaded its data answers at host:port."""
    try:
        # Not wait_for: before Python 3.12 it can swallow a cancellation.
        async with asyncio.timeout(2.0):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(b"PING\r\n")
                line = await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
    # A Redis that wants a password is up, too; -LOADING is not.
    return line.startswith((b"+PONG", b"-NOAUTH"))
