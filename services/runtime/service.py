"""A service: event handlers and REST routes around one state store, one outbox and one clock."""

import asyncio
import contextlib
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakValueDictionary

import structlog
from fastapi import FastAPI, Request

from services.contracts.envelope import Origin, wrap
from services.contracts.events import Event
from services.runtime import common, http, schema, tracing
from services.runtime.access import Tokens
from services.runtime.deadletters import DeadLetters
from services.runtime.errors import Conflict
from services.runtime.heartbeat import heartbeat
from services.runtime.inbox import Handler, Inbox, Subscription
from services.runtime.limits import Limits
from services.runtime.loops import forever, patiently
from services.runtime.oidc import Oidc
from services.runtime.outbox import FULL, Outbox
from services.runtime.ports import Blobs, Clock, Jobs, Peers, Ports, Publisher, State
from services.runtime.projects import Projects
from services.runtime.settings import RuntimeSettings
from services.runtime.unit import Unit
from services.runtime.workflow import Workflows

log = structlog.get_logger()

VERSION = "0.1.0"
LOOK_SECONDS = 5.0
MAIN = ""  # the lane that every service has
Through = Callable[[Publisher], Publisher]
Connect = Callable[[RuntimeSettings], Awaitable[tuple[Ports, Callable[[], Awaitable[None]]]]]


def _as_it_is(publisher: Publisher) -> Publisher:
    return publisher


@dataclass(frozen=True)
class Lane:
    """A way out: the broker's component (none: the service's own), what is put before it, and how much may wait."""

    bus: str | None = None
    through: Through = _as_it_is
    full: int = FULL


class Service:
    """One app: `on` ties handlers to events, `api` holds the routes, `run` the background work.

    The ports are bound when the app starts, never at import.
    """

    def __init__(self, app_id: str, settings: RuntimeSettings, connect: Connect) -> None:
        self.app_id = app_id
        self.settings = settings
        self._connect = connect
        self._ports: Ports | None = None
        self._lanes: dict[str, Lane] = {MAIN: Lane()}
        self._outboxes: dict[str, Outbox] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._says: set[type[Event]] = set()
        self._loops: list[tuple[float, Callable[[], Awaitable[None]]]] = []
        self._starts: list[Callable[[], Awaitable[None]]] = []
        self._stops: list[Callable[[], Awaitable[None]]] = []
        self._checks: dict[str, Callable[[], str | None]] = {}
        self._reasons: dict[str, str | None] = {}
        self.inbox = Inbox(self.unit, lambda: self.deadletters, self._turn)
        self.projects = Projects(self)
        self.api = FastAPI(
            title=f"halfsure {app_id}",
            version=VERSION,
            lifespan=self._lifespan,
            openapi_url=None,
            docs_url=None,
            responses=http.REFUSALS,
            telemetry=tracing.REQUESTS,
        )
        self.api.state.service = self
        provider = Oidc(settings).caller if settings.oidc_issuer else None
        self.api.state.tokens = Tokens(settings.tokens, lambda: self.clock.now(), provider)
        self.limits = Limits()
        http.install(self.api, settings.max_body)
        common.routes(self, VERSION)
        if settings.heartbeat_seconds:
            heartbeat(self, settings.heartbeat_seconds)

    # What handlers and routes work with.

    @property
    def state(self) -> State:
        return self._bound.state

    @property
    def blobs(self) -> Blobs:
        return self._bound.blobs

    @property
    def clock(self) -> Clock:
        return self._bound.clock

    @property
    def peers(self) -> Peers:
        return self._bound.peers

    @property
    def workflows(self) -> Workflows:
        if self._bound.workflows is None:
            raise RuntimeError(f"{self.app_id} has no workflow engine")
        return self._bound.workflows

    @property
    def jobs(self) -> Jobs:
        if self._bound.jobs is None:
            raise RuntimeError(f"{self.app_id} has no scheduler")
        return self._bound.jobs

    @property
    def outbox(self) -> Outbox:
        return self.outboxes[MAIN]

    @property
    def outboxes(self) -> Mapping[str, Outbox]:
        """One for each lane."""
        if not self._outboxes:
            raise RuntimeError(f"{self.app_id} has not started")
        return self._outboxes

    @property
    def waiting(self) -> int:
        """Units whose events wait for a broker."""
        return sum(outbox.waiting for outbox in self.outboxes.values())

    @property
    def deadletters(self) -> DeadLetters:
        return DeadLetters(self.state, self.clock)

    async def unit(self, lane: str = MAIN) -> Unit:
        """A new unit of work, whose events leave by a lane."""
        outbox = self.outboxes[lane]
        await outbox.ready()
        return Unit(self.state, outbox)

    def lock(self, name: str) -> asyncio.Lock:
        """One lock a name in this process: it saves conflicts, the etags prevent what it cannot."""
        return self._locks.setdefault(name, asyncio.Lock())

    # How a service is put together.

    def on(
        self,
        *events: type[Event],
        emits: Sequence[type[Event]] = (),
        serial: str | None = None,
        lane: str = MAIN,
    ) -> Callable[[Handler], Handler]:
        """Handle batches of these events; `emits` says what may follow from them, and by which lane.

        Handlers with the same `serial` take turns, commit included, and so do holders of `lock(serial)`.
        """

        def register(handler: Handler) -> Handler:
            for event in events:
                self.inbox.subscriptions[event] = Subscription(event, handler, tuple(emits), serial, lane)
            return handler

        return register

    def lane(self, name: str = MAIN, bus: str | None = None, *, through: Through = _as_it_is, full: int = FULL) -> None:
        """Have another way out, with an outbox of its own: a broker that is away then holds up no other.

        `bus` is the broker's component, `through` may put itself before its publisher, `full` is how many units may
        wait. Without a name it is about the main lane, that every service has.
        """
        self._lanes[name] = Lane(bus, through, full)

    def says(self, *events: type[Event]) -> None:
        """Declare what routes and background work may emit, beside what handlers do."""
        self._says.update(events)

    @property
    def said(self) -> set[type[Event]]:
        """Every event type that this service may emit."""
        handled = {event for sub in self.inbox.subscriptions.values() for event in sub.emits}
        return handled | self._says

    def every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work` again and again while the service runs; a failure is logged and tried again."""
        self._loops.append((seconds, work))

    def on_start(self, work: Callable[[], Awaitable[None]]) -> None:
        self._starts.append(work)

    def on_stop(self, work: Callable[[], Awaitable[None]]) -> None:
        self._stops.append(work)

    def check(self, name: str, reason: Callable[[], str | None]) -> None:
        """Readiness: `reason` says why the service is not ready, or None."""
        self._checks[name] = reason

    def from_sidecar(self, request: Request) -> bool:
        """Whether the request carries the token that only this service's sidecar has."""
        expected = self.settings.sidecar_token
        given = request.headers.get("dapr-api-token", "")
        return bool(expected) and hmac.compare_digest(given.encode(), str(expected).encode())

    def unready(self) -> dict[str, str]:
        """Why this service is not ready, by check."""
        if self._ports is None:
            return {"start": "still starting"}
        found = {name: check() for name, check in self._checks.items()} | self._reasons
        return {name: reason for name, reason in found.items() if reason}

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        self._ports, close = await self._connect(self.settings)
        self._reasons = dict.fromkeys(self._ports.reasons, "not looked at yet")
        await patiently(lambda: schema.check(self.state))
        self._outboxes = {name: self._outbox_of(name, lane) for name, lane in self._lanes.items()}
        for outbox in self._outboxes.values():
            await patiently(outbox.start)
        for start in self._starts:
            await patiently(start)
        looking = asyncio.create_task(self._look_again())
        loops = [looking, *(asyncio.create_task(forever(seconds, work)) for seconds, work in self._loops)]
        log.info("started", port=self.settings.app_port)
        try:
            yield
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
            for stop in reversed(self._stops):
                await stop()
            await asyncio.gather(*(outbox.stop() for outbox in self._outboxes.values()))
            await close()
            await tracing.close()
            self._ports = None

    async def _look(self) -> None:
        for name, reason in self._bound.reasons.items():
            found = await reason()
            if found != self._reasons.get(name):
                log.info("readiness", check=name, reason=found)
            self._reasons[name] = found

    async def _look_again(self) -> None:
        while self._bound.reasons:
            await self._look()
            # Once it can be worked with, what fails later is told by whoever works with it.
            if not any(self._reasons.values()):
                return
            await asyncio.sleep(LOOK_SECONDS)

    def _outbox_of(self, name: str, lane: "Lane") -> Outbox:
        ports = self._bound
        if lane.bus is not None and ports.bus is None:
            raise RuntimeError(f"{self.app_id} has no way to the broker {lane.bus}")
        publisher = ports.bus(lane.bus) if lane.bus is not None and ports.bus else ports.publisher
        publisher, slot = lane.through(publisher), self.settings.replica
        return Outbox(self.state, publisher, self.clock, self._wrap, slot, lane=name, full=lane.full)

    def _turn(self, serial: str | None) -> contextlib.AbstractAsyncContextManager[Any]:
        return self.lock(serial) if serial else contextlib.nullcontext()

    def _wrap(self, event: Event, origin: Origin, **parts: Any) -> bytes:
        origin = replace(origin, device=origin.device or self.settings.deviceid)
        return wrap(event, siteid=self.settings.siteid, service=self.app_id, origin=origin, **parts)

    @property
    def _bound(self) -> Ports:
        if self._ports is None:
            raise RuntimeError(f"{self.app_id} has not started")
        return self._ports


async def transact(service: Service, work: Callable[[Unit], Awaitable[Any]], tries: int = 8, lane: str = MAIN) -> Any:
    """Run `work` in a unit and commit it; on a conflict once more, on fresh reads."""
    for attempt in range(tries):
        unit = await service.unit(lane)
        try:
            answer = await work(unit)
            await unit.commit_all()
            return answer
        except Conflict:
            if attempt == tries - 1:
                raise
            await asyncio.sleep(0.005 * 2**attempt)
