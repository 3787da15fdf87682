"""A unit of work: what a handler read, what it writes and what it says, committed as one."""

import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from services.contracts.envelope import NO_ORIGIN, Message, Origin
from services.contracts.events import Event
from services.runtime import tracing
from services.runtime.errors import Conflict
from services.runtime.outbox import STAMP, STAMPS, Outbox, Ticket
from services.runtime.ports import CREATE, Delete, Entry, Op, Put, State

TRACE, DEVICE = "_trace", "_device"  # in a record that remembers its origin: a traceparent and a device's id


@dataclass(frozen=True)
class Emission:
    """An event to publish, what caused it, and the guarded record that must have been written for it."""

    event: Event
    cause: Message[Any] | None = None
    guard: str | None = None
    envelope: bytes | None = None  # of an event that is handed on as it came
    origin: Origin = NO_ORIGIN  # the trace and the device that it goes out with


class Unit:
    """Reads are remembered with their etags; writes and events wait for `commit`.

    A *guarded* write goes through only if nobody has written the record since this unit read it (or, if it did
    not exist, created it). Because Redis applies the rest of a transaction when one guard fails, each guarded
    record carries the unit's stamp, and events name the guard that they depend on: whatever a crash or a
    conflict leaves behind, an event is published exactly for the records that were written. An unguarded
    write beside a guard must be harmless when it is left alone.

    A record may remember its origin, through all later guarded writes: an event without a cause goes on in the trace of
    its guard, else in that of what is being done, and is of the same device.
    """

    def __init__(self, state: State, outbox: Outbox) -> None:
        self.id = uuid.uuid4().hex[:16]
        self.trusting = False  # on the first of several tries: `get_new` does not look
        self._state = state
        self._outbox = outbox
        self._read: dict[str, Entry | None] = {}
        self._ops: dict[str, Op] = {}
        self._guards: set[str] = set()
        self._origins: dict[str, Origin] = {}  # that this unit gives to records
        self._emissions: list[Emission] = []
        self._callbacks: list[Callable[[], None]] = []

    async def get(self, key: str) -> Any | None:
        """The record, as this unit sees it: its own writes included."""
        if key not in self._read and key not in self._ops:
            await self.get_many([key])
        return self._value(key)

    async def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """Those of the records that exist, in one round trip."""
        wanted = list(dict.fromkeys(keys))
        unknown = [key for key in wanted if key not in self._read and key not in self._ops]
        found = await self._state.get(unknown) if unknown else {}
        self._read.update({key: found.get(key) for key in unknown})
        values = {key: self._value(key) for key in wanted}
        return {key: value for key, value in values.items() if value is not None}

    async def get_new(self, keys: Iterable[str]) -> dict[str, Any]:
        """`get_many` for records that will hardly exist, and that are written guarded whatever is decided.

        A trusting unit takes them for missing without a look, which is half of what a new record costs: where one does
        exist, its guard fails, and the next try looks.
        """
        wanted = list(keys)
        if self.trusting:
            self._read.update({key: None for key in wanted if key not in self._read and key not in self._ops})
        return await self.get_many(wanted)

    def origin(self, key: str | None) -> Origin:
        """What a record that this unit has read remembers."""
        entry = self._read.get(key) if key else None
        value = entry.value if entry and isinstance(entry.value, dict) else {}
        return Origin(value.get(TRACE), value.get(DEVICE))

    def put(
        self, key: str, value: Any, *, guard: bool = False, ttl: int | None = None, origin: Origin | None = None
    ) -> None:
        """Write a record, which remembers `origin` from now on. A guarded one must have been read in this unit."""
        if origin:
            self._origins[key] = origin
        etag = None
        if guard or key in self._guards:
            if key not in self._read:
                raise RuntimeError(f"{key} is guarded and was not read")
            entry = self._read[key]
            etag = entry.etag if entry else CREATE
            before = entry.value.get(STAMP, []) if entry else []
            value = {**value, STAMP: [self.id, *before][:STAMPS]}
            self._guards.add(key)
        if kept := self._origins.get(key) or (self.origin(key) if etag else None):
            said = ((TRACE, kept.trace), (DEVICE, kept.device))
            value = {**value, **{name: text for name, text in said if text}}
        self._ops[key] = Put(key, value, etag, ttl)

    def delete(self, key: str) -> None:
        self._ops[key] = Delete(key)

    def emit(
        self, event: Event, cause: Message[Any] | None = None, guard: str | None = None, origin: Origin | None = None
    ) -> None:
        """Publish `event` once this unit is committed; with several guards, say which one it follows from.

        `origin` is what it goes on from, where neither its cause nor its guard has it.
        """
        self._emissions.append(Emission(event, cause, guard, origin=origin or NO_ORIGIN))

    def forward(self, message: Message[Any], guard: str | None = None) -> None:
        """Publish an event of somebody else's, envelope and all, once this unit is committed."""
        self._emissions.append(Emission(message.event, None, guard, orjson.dumps(message.envelope)))

    def then(self, callback: Callable[[], None]) -> None:
        """Call this once everything is written: the place to change what is only in memory."""
        self._callbacks.append(callback)

    @property
    def guards(self) -> frozenset[str]:
        """The keys that this unit writes only over what it has read."""
        return frozenset(self._guards)

    @property
    def events(self) -> Sequence[Event]:
        return [emission.event for emission in self._emissions]

    async def commit(self) -> frozenset[str]:
        """Write and publish all. Returns the guarded keys that were written.

        Raises Conflict when none was; when only some were, their events go out and the caller looks at the
        answer, which is then smaller than the set of guards it asked for.
        """
        if not self._ops and not self._emissions:
            return self._done()
        ticket = self._outbox.stage(self._tagged(), self.id)
        ops = list(self._ops.values())
        try:
            await self._state.commit([*ops, ticket.op] if ticket else ops)
        except Conflict as conflict:
            return await self._settle(conflict, ticket)
        except BaseException:
            # Nobody knows whether it was applied: the record, if it is there, is looked at and published.
            if ticket:
                self._outbox.recheck(ticket)
            raise
        if ticket:
            self._outbox.dispatch(ticket)
        return self._done()

    async def commit_all(self) -> None:
        """Commit, and raise Conflict if only some of the guards held: the work is then done again."""
        missed = self.guards - await self.commit()
        if missed:
            raise Conflict(missed)

    def _done(self) -> frozenset[str]:
        for callback in self._callbacks:
            callback()
        return self.guards

    async def _settle(self, conflict: Conflict, ticket: Ticket | None) -> frozenset[str]:
        stored = await self._state.get(sorted(self._guards))
        written = frozenset(key for key, entry in stored.items() if self.id in entry.value.get(STAMP, ()))
        if ticket:
            await self._outbox.narrow(ticket, written)
        if not written:
            raise conflict
        return written

    def _tagged(self) -> list[Emission]:
        only = next(iter(self._guards)) if len(self._guards) == 1 else None
        return [Emission(e.event, e.cause, e.guard or only, e.envelope, self._origin(e)) for e in self._emissions]

    def _origin(self, emission: Emission) -> Origin:
        """What the event goes out with: it is stored with it, since it is published later."""
        if emission.cause:
            known = emission.cause.origin
        elif emission.origin != NO_ORIGIN:
            known = _followed(emission, emission.origin)
        else:
            known = self._origins.get(emission.guard or "") or _followed(emission, self.origin(emission.guard))
        return known if known.trace else replace(known, trace=tracing.current())

    def _value(self, key: str) -> Any | None:
        op = self._ops.get(key)
        if op is not None:
            return op.value if isinstance(op, Put) else None
        entry = self._read.get(key)
        return entry.value if entry else None


def _followed(emission: Emission, origin: Origin) -> Origin:
    """A new step in a trace that is remembered."""
    trace = tracing.mark(emission.event.type, origin.trace) if origin.trace else None
    return origin if trace == origin.trace else replace(origin, trace=trace)
