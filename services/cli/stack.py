"""A whole stack: Redis, the Dapr control plane, and every service with its sidecar."""

import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Literal

from services.cli.home import Home, Secrets
from services.cli.infrastructure import external_redis, infrastructure
from services.cli.plan import Plan
from services.cli.ports import plan_ports, port_key, refuse_busy
from services.cli.process import ProcessSpec
from services.cli.profiles import PROFILES, apps_of
from services.cli.reaping import reap
from services.cli.runfile import read_run_file
from services.cli.settings import StackSettings
from services.cli.specs import applications, shared_environment
from services.cli.supervisor import StartFailed, Supervised, Supervisor, redis_answers
from services.cli.toolchain import find_runtime

StackState = Literal["starting", "running", "stopping", "stopped", "failed"]


class Stack:
    """A stack in one state folder: `async with Stack(StackSettings(home=...)).running() as stack: ...`."""

    def __init__(
        self,
        settings: StackSettings,
        *,
        only_infrastructure: bool = False,
        on_change: Callable[["Stack"], None] = lambda stack: None,
    ) -> None:
        self.settings = settings
        self.home = Home(settings.home_path)
        self.state: StackState = "stopped"
        self.run_file = read_run_file(settings.run_file_path)
        self.ports = plan_ports(self.run_file, settings)
        self.started_at = 0.0
        self._only_infrastructure = only_infrastructure
        self._on_change = on_change
        self._supervisor: Supervisor | None = None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Stack"]:
        """The stack, up and ready; down again, to the last process, however the block ends.

        AlreadyRunning, NoRuntime, NoRedis, PortsBusy and StartFailed say why it does not come up.
        """
        plan = self.plan()
        with self.home.lock():
            reap(self.home.record())
            supervisor = await self._prepare(plan)
            try:
                self._enter("starting")
                await supervisor.start()
                self._enter("running")
                yield self
            except StartFailed:
                self._enter("failed")
                raise
            finally:
                if self.state != "failed":
                    self._enter("stopping")
                await supervisor.stop()
                self._enter("stopped" if self.state != "failed" else "failed")

    def plan(self) -> Plan:
        """What is to run, with the state folder and its secrets made."""
        runtime = find_runtime(self.settings.dapr_bin)
        self.home.create([place.name for place in PROFILES[self.settings.profile]])
        return Plan(self.settings, self.run_file, self.ports, self.home, self.secrets, runtime.folder)

    @property
    def secrets(self) -> Secrets:
        return self.home.secrets()

    @property
    def token(self) -> str:
        """The operator's token, for `Authorization: Bearer`."""
        return self.secrets.admin

    @property
    def app_ids(self) -> tuple[str, ...]:
        return tuple(app.app_id for _, app in apps_of(self.settings.profile, self.run_file))

    @property
    def processes(self) -> Mapping[str, Supervised]:
        """The processes by name: `redis`, `placement`, `scheduler`, `<app-id>`, `<app-id>-sidecar`."""
        return self.supervisor.processes

    @property
    def supervisor(self) -> Supervisor:
        if self._supervisor is None:
            raise StartFailed("the stack has not been started")
        return self._supervisor

    def url(self, app_id: str) -> str:
        """Where a service answers: `http://127.0.0.1:<port>`."""
        return f"http://127.0.0.1:{self.ports[port_key(app_id)]}"

    def blobs(self, app_id: str) -> str:
        """The url of the blob store that a service works with."""
        plan = self.plan()
        place = next(place for place, app in apps_of(self.settings.profile, self.run_file) if app.app_id == app_id)
        return shared_environment(plan, place)["HALFSURE_BLOBS"]

    def pid(self, name: str) -> int | None:
        """The pid of a process now, None while it is being restarted."""
        return self.processes[name].pid

    def kill(self, name: str) -> int:
        """`kill -9` a process, to see it come back; returns the pid it had."""
        return self.supervisor.kill(name)

    async def wait_ready(self, name: str, within: float | None = None) -> None:
        """Wait until a process is ready (again)."""
        await self.supervisor.wait_ready(name, within)

    def specs(self, plan: Plan) -> list[ProcessSpec]:
        """What runs, stage by stage."""
        return infrastructure(plan) + ([] if self._only_infrastructure else applications(plan))

    async def _prepare(self, plan: Plan) -> Supervisor:
        specs = self.specs(plan)
        refuse_busy({name: port for spec in specs for name, port in spec.ports.items()})
        redis = external_redis(plan)
        if redis is not None and not await redis_answers(*redis):
            raise StartFailed(f"the Redis that HALFSURE_REDIS_HOST names, {plan.redis_host}, does not answer")
        self.started_at = time.time()
        self._supervisor = Supervisor(
            specs,
            start_timeout=self.settings.start_timeout,
            stop_grace=self.settings.stop_grace,
            hung_after=self.settings.hung_after,
            on_change=self._changed,
        )
        return self._supervisor

    def _enter(self, state: StackState) -> None:
        self.state = state
        self._changed()

    def _changed(self) -> None:
        # On a full disk the record stays as it was; that is no reason to stop looking after the processes.
        with contextlib.suppress(OSError):
            self.home.write_record(self.record())
        self._on_change(self)

    def record(self) -> dict[str, Any]:
        """What `status` needs to know, and what a later `up` or `down` needs to clean up after a crash."""
        return {
            "state": self.state,
            "pid": os.getpid(),
            "started_at": self.started_at,
            "run_file": str(self.run_file.path),
            "only_infrastructure": self._only_infrastructure,
            "processes": [_entry(process) for process in self.supervisor.processes.values()],
        }


def _entry(process: Supervised) -> dict[str, Any]:
    return {
        "name": process.name,
        "state": process.state,
        "pid": process.pid,
        "started_at": process.started_at,
        "restarts": process.restarts,
        "exit_code": process.exit_code,
        "url": process.spec.url,
        "ready_url": process.spec.readiness.url,
        "ports": dict(process.spec.ports),
        "log": str(process.spec.log),
    }
