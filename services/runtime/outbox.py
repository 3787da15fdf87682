"""State first, then event: records of what is still to be published, a relay, and a sweeper."""

import asyncio
import contextlib
import uuid
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import orjson
import structlog

from services.runtime import telemetry
from services.runtime.errors import Conflict, Retry, Unavailable
from services.runtime.ports import CREATE, Clock, Delete, Outgoing, Publisher, Put, State

log = structlog.get_logger()

STAMP = "_unit"  # in every guarded record: the last units that wrote it, newest first
STAMPS = 4  # kept, so that an event is still found to be true when its record has moved on since
STRIDE = 256  # outbox numbers reserved at a time, so that the head is written once in as many units
SLOTS = 64  # replicas of one service that can hold an outbox
BEAT_SECONDS = 3.0
STALE_SECONDS = 12.0
FULL = 4096  # units waiting to be published before new ones are refused


@dataclass(frozen=True)
class Pending:
    """An envelope that waits for the broker, and the guarded record it depends on."""

    outgoing: Outgoing
    guard: str | None
    type: str


@dataclass(frozen=True)
class Ticket:
    """One outbox record: the events of one unit."""

    slot: int
    number: int
    op: Put
    pending: Sequence[Pending]


class OutboxFull(Retry):
    """The broker is too far behind to take more work."""


class Outbox:
    """This replica's ring of outbox records, and the relay that empties it.

    Dapr cannot list keys, so the records of a replica are numbered; a slot record holds how far the numbers
    are reserved and how far they are done, and a sweeper walks between the two. A slot belongs to a replica
    that keeps beating; one that has stopped is swept by any other. One may be taken for dead that is not, by another's
    clock: so the range is left for the next owner to look through again, and who finds the slot taken moves on.
    """

    def __init__(
        self,
        state: State,
        publisher: Publisher,
        clock: Clock,
        wrap: Callable[..., bytes],
        slot: int | None = None,
        *,
        lane: str = "",
        full: int = FULL,
    ) -> None:
        self._state = state
        self._publisher = publisher
        self._clock = clock
        self._wrap = wrap
        self._fixed_slot = slot
        self._prefix = f"outbox-{lane}" if lane else "outbox"
        self._full = full
        self._owner = uuid.uuid4().hex
        self._slot = -1
        self._next = 0
        self._reserved = 0
        self._open: set[tuple[int, int]] = set()  # (slot, number)
        self._queue: deque[Ticket] = deque()
        self._doubtful: deque[Ticket] = deque()
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._reserving = asyncio.Lock()
        self._failing = False
        self._trying = 0  # units that the broker has been given and has not answered for
        self.published = 0

    async def start(self) -> None:
        """Claim a slot, take over what its last owner left, and begin to relay and sweep."""
        self._slot = await self._claim()
        self._wake.set()
        self._tasks = [asyncio.create_task(self._relay()), asyncio.create_task(self._beat_and_sweep())]

    async def stop(self) -> None:
        """Publish what is left (5 s at most, and not while the broker is away) and give the slot back."""
        if not self._failing:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.drain(), 5)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(Retry):
            await self._save_slot(free=not self._open)

    async def drain(self) -> None:
        """Wait until everything staged so far is published."""
        while self._queue or self._open or self._doubtful:
            self._wake.set()
            await asyncio.sleep(0.01)

    @property
    def slot(self) -> int:
        """The number that this replica alone holds while it lives, from its start on."""
        return self._slot

    @property
    def waiting(self) -> int:
        """Units whose events the broker does not have, or has not said so."""
        return len(self._queue) + self._trying

    def stage(self, emissions: Sequence[Any], unit: str) -> Ticket | None:
        """The record to write with a unit's state. Raises OutboxFull when too much waits already."""
        if not emissions:
            return None
        if len(self._queue) >= self._full or self._next >= self._reserved:
            raise OutboxFull()
        now = self._clock.now()
        pending = [Pending(self._outgoing(e, now), e.guard, e.event.type) for e in emissions]
        number = self._next
        self._next += 1
        self._open.add((self._slot, number))
        value = {
            "unit": unit,
            "events": [[p.outgoing.topic, p.outgoing.envelope.decode(), p.guard] for p in pending],
        }
        return Ticket(self._slot, number, Put(self._key(self._slot, number), value), pending)

    def _outgoing(self, emission: Any, now: datetime) -> Outgoing:
        envelope = emission.envelope or self._wrap(
            emission.event, now=now, cause=emission.cause, origin=emission.origin
        )
        return Outgoing(emission.event.topic, envelope)

    def dispatch(self, ticket: Ticket) -> None:
        """The unit is committed: hand its events to the relay."""
        self._queue.append(ticket)
        self._wake.set()

    def recheck(self, ticket: Ticket) -> None:
        """Nobody knows whether the unit was committed: the relay looks before it publishes."""
        self._doubtful.append(ticket)
        self._wake.set()

    async def narrow(self, ticket: Ticket, written: Collection[str]) -> None:
        """Some guards failed: keep only the events of those that did not."""
        kept = [p for p in ticket.pending if p.guard is not None and p.guard in written]
        if kept:
            self.dispatch(replace(ticket, pending=kept))
        else:
            await self._state.commit([Delete(ticket.op.key)])
            self._finished([ticket])

    async def ready(self) -> None:
        """Called before a unit starts, so that numbers are reserved ahead of their use."""
        if self._next + STRIDE // 2 < self._reserved:
            return
        async with self._reserving:
            if self._next + STRIDE // 2 >= self._reserved:
                with contextlib.suppress(Conflict):  # there are numbers left; the next unit tries again
                    await self._save_slot(reserve=True)

    async def _relay(self) -> None:
        pause = 0.05
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._recheck_doubtful()
                while self._queue:
                    await self._publish_batch()
                pause, self._failing = 0.05, False
            except Retry as error:
                self._failing = True
                log.warning("relay waits", reason=str(error), seconds=pause, waiting=len(self._queue))
            except Exception as error:  # whatever it is, what waits must not wait for ever
                self._failing = True
                log.error("relay failed", seconds=pause, waiting=len(self._queue), exc_info=error)
            if self._failing:
                await asyncio.sleep(pause)
                pause = min(pause * 2, 5.0)
                self._wake.set()

    async def _publish_batch(self) -> None:
        tickets = [self._queue.popleft() for _ in range(min(len(self._queue), 64))]
        left, self._trying = tickets, len(tickets)
        try:
            failed = await self._publisher.publish([p.outgoing for t in tickets for p in t.pending])
            refused = {id(outgoing) for outgoing in failed}
            done = [t for t in tickets if refused.isdisjoint(id(p.outgoing) for p in t.pending)]
            await self._state.commit([Delete(ticket.op.key) for ticket in done])
            left = [t for t in tickets if t not in done] if failed else []
            if failed:
                raise Unavailable(f"the broker refused {len(failed)} events")
        finally:
            self._queue.extendleft(reversed(left))
            self._trying = 0
            self._finish([ticket for ticket in tickets if ticket not in left])

    def _finish(self, tickets: Sequence[Ticket]) -> None:
        self._finished(tickets)
        for kind, count in Counter(p.type for t in tickets for p in t.pending).items():
            self._count(kind, count)

    def _finished(self, tickets: Sequence[Ticket]) -> None:
        self._open.difference_update((ticket.slot, ticket.number) for ticket in tickets)

    async def _recheck_doubtful(self) -> None:
        while self._doubtful:
            ticket = self._doubtful[0]
            await self._sweep(ticket.slot, range(ticket.number, ticket.number + 1))
            self._doubtful.popleft()
            self._finished([ticket])

    async def _claim(self) -> int:
        slots = range(SLOTS) if self._fixed_slot is None else [self._fixed_slot]
        for slot in slots:
            with contextlib.suppress(Conflict):
                if await self._try_claim(slot):
                    return slot
        raise Unavailable("every outbox slot of this service is taken by a replica that is alive")

    async def _try_claim(self, slot: int) -> bool:
        key = self._slot_key(slot)
        entry = (await self._state.get([key])).get(key)
        if entry and self._fixed_slot is None and self._alive(entry.value):
            return False
        done, reserved = (entry.value["done"], entry.value["reserved"]) if entry else (0, 0)
        # The record is taken over as it is, and the numbers move on only as they are published: a crash in between
        # leaves the same range to the next owner.
        record = self._record(done, reserved)
        await self._state.commit([Put(key, record, entry.etag if entry else CREATE)])
        self._slot, self._next, self._reserved = slot, reserved, reserved
        await self._take_over(range(done, reserved))
        await self._save_slot(reserve=True)
        return True

    async def _take_over(self, numbers: range) -> None:
        """Queue what is left among `numbers`, so that a service starts even while its broker is away."""
        for start in range(numbers.start, numbers.stop, STRIDE):
            part = {self._key(self._slot, number): number for number in numbers[start - numbers.start :][:STRIDE]}
            for key, entry in (await self._state.get(list(part))).items():
                outgoing = await self._confirmed(entry.value)
                pending = [Pending(event, None, orjson.loads(event.envelope)["type"]) for event in outgoing]
                self._open.add((self._slot, part[key]))
                self._queue.append(Ticket(self._slot, part[key], Put(key, entry.value), pending))

    async def _beat_and_sweep(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            try:
                async with self._reserving:
                    await self._save_slot()
                await self._sweep_the_dead()
            except Retry as error:
                log.warning("outbox heartbeat is late", reason=str(error))
            except Exception as error:  # a replica without a heartbeat is taken for dead
                log.error("outbox heartbeat failed", exc_info=error)

    async def _sweep_the_dead(self) -> None:
        keys = {self._slot_key(slot): slot for slot in range(SLOTS) if slot != self._slot}
        for key, entry in (await self._state.get(list(keys))).items():
            record = entry.value
            if record["free"] or self._alive(record):
                continue
            await self._sweep(keys[key], range(record["done"], record["reserved"]))
            with contextlib.suppress(Conflict):  # it lives, or another one has swept it
                await self._state.commit([Put(key, {**record, "free": True}, entry.etag)])
                log.info("swept the outbox of a dead replica", slot=keys[key])

    async def _sweep(self, slot: int, numbers: range) -> None:
        """Publish and delete the records among `numbers` that exist."""
        keys = [self._key(slot, number) for number in numbers]
        for start in range(0, len(keys), STRIDE):
            found = await self._state.get(keys[start : start + STRIDE])
            for key, entry in found.items():
                outgoing = await self._confirmed(entry.value)
                if outgoing and (failed := await self._publisher.publish(outgoing)):
                    raise Unavailable(f"the broker refused {len(failed)} events")
                for event in outgoing:
                    self._count(orjson.loads(event.envelope)["type"], 1)
                await self._state.commit([Delete(key)])

    async def _confirmed(self, record: dict[str, Any]) -> list[Outgoing]:
        """The events of a found record whose guards were written by the same unit."""
        guards = sorted({guard for _, _, guard in record["events"] if guard})
        stored = await self._state.get(guards) if guards else {}
        written = {key for key, entry in stored.items() if record["unit"] in entry.value.get(STAMP, ())}
        return [
            Outgoing(topic, envelope.encode())
            for topic, envelope, guard in record["events"]
            if guard is None or guard in written
        ]

    async def _save_slot(self, *, reserve: bool = False, free: bool = False) -> None:
        """Write down how far this replica is, and that it lives. Raises Conflict if the slot is taken meanwhile."""
        key = self._slot_key(self._slot)
        if (entry := (await self._state.get([key])).get(key)) and entry.value["owner"] != self._owner:
            log.warning("another replica has taken the outbox slot", slot=self._slot)
            self._slot = await self._claim()
            return
        reserved = self._next + 2 * STRIDE if reserve else self._reserved
        done = min((number for slot, number in self._open if slot == self._slot), default=self._next)
        record = self._record(done, reserved, free=free)
        await self._state.commit([Put(key, record, entry.etag if entry else CREATE)])
        self._reserved = reserved

    def _record(self, done: int, reserved: int, *, free: bool = False) -> dict[str, Any]:
        now = self._clock.now().isoformat()
        return {"owner": self._owner, "beat": now, "done": done, "reserved": reserved, "free": free}

    def _alive(self, record: dict[str, Any]) -> bool:
        # A beat from the future is no sign of life: the clock was put back, and it would be one for long.
        silent = abs(self._clock.now() - datetime.fromisoformat(record["beat"]))
        return not record["free"] and silent < timedelta(seconds=STALE_SECONDS)

    def _count(self, kind: str, count: int) -> None:
        self.published += count
        telemetry.PUBLISHED.labels(kind).inc(count)

    def _key(self, slot: int, number: int) -> str:
        return f"{self._prefix}:{slot}:{number}"

    def _slot_key(self, slot: int) -> str:
        return f"{self._prefix}:{slot}"
