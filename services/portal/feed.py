"""What happens in the loop, as a stream: a ring of segments in the store, so that every replica tells all of it."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from services.contracts.envelope import Message
from services.contracts.events import Event
from services.runtime.errors import Conflict
from services.runtime.service import Service
from services.runtime.unit import Unit

HEAD = "feed"
RING = 512  # segments kept; each is one batch of events
LOCK = "feed"
# What listeners are told of an event. No labels, no suggestions, no people: annotators listen too.
TOLD = (
    "activation_epoch",
    "annotators",
    "error",
    "label_revision",
    "lease_epoch",
    "previous",
    "reason",
    "revision",
    "run_id",
    "sample_id",
    "task_id",
    "version",
)

Sees = Callable[[str], bool]


@dataclass(frozen=True)
class Segment:
    """The events of one batch, under the number that a listener resumes after."""

    number: int
    lines: Sequence[dict[str, Any]]


def line(message: Message[Event]) -> dict[str, Any]:
    """An event as listeners see it; its id is the event's own, so that one told twice is recognised."""
    data = message.event.model_dump(mode="json", exclude_none=True)
    kind = message.event.type.removeprefix("io.halfsure.").rpartition(".")[0]
    told = {name: data[name] for name in TOLD if name in data}
    return {"id": message.id, "type": kind, "time": message.time.isoformat(), "project": data["project"], "data": told}


def frames(segment: Segment, sees: Sees) -> bytes:
    """The segment in the wire's format, as far as the listener may see it; empty if that is nothing."""
    rows = [row for row in segment.lines if sees(row["project"])]
    texts = [f"event: {row['type']}\ndata: {orjson.dumps(row).decode()}\n" for row in rows]
    if texts:
        # Only the last line carries the number: a stream that breaks off before it resumes with the whole segment.
        texts[-1] = f"id: {segment.number}\n{texts[-1]}"
    return "".join(f"{text}\n" for text in texts).encode()


class Feed:
    """The last segments in memory, and whoever waits for more."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._segments: deque[Segment] = deque(maxlen=RING)
        self._last = 0
        self._news = asyncio.Condition()
        self.listeners = 0

    async def note(self, batch: Sequence[Message[Any]], unit: Unit) -> None:
        """Handler: a segment of its own for the batch. Both records are guarded, so replicas never share a number."""
        number = (await unit.get(HEAD) or {"last": 0})["last"] + 1
        before = await unit.get(_key(number))
        if before and before["number"] >= number:
            # Another replica was faster between the two reads; its segment must not be written over.
            raise Conflict([HEAD])
        lines = [line(message) for message in batch]
        unit.put(HEAD, {"last": number}, guard=True)
        unit.put(_key(number), {"number": number, "lines": lines}, guard=True)

    async def look(self) -> None:
        """Take over what is new in the store, whichever replica heard it, and wake the listeners."""
        entry = (await self._service.state.get([HEAD])).get(HEAD)
        last = entry.value["last"] if entry else 0
        if last <= self._last:
            return
        numbers = range(max(self._last + 1, last - RING + 1), last + 1)
        found = await self._service.state.get([_key(number) for number in numbers])
        rows = [found[_key(number)].value for number in numbers if _key(number) in found]
        self._segments.extend(
            Segment(row["number"], row["lines"]) for row in rows if self._last < row["number"] <= last
        )
        self._last = last
        async with self._news:
            self._news.notify_all()

    async def follow(self, after: int | None, sees: Sees, heartbeat: float) -> AsyncIterator[bytes]:
        """The stream of one listener, from behind segment `after`, else from now on; it never ends by itself.

        `hello` says where it begins. `reset` comes instead where too much was missed: read everything again.
        """
        self.listeners += 1
        try:
            at, missed = self._begin(after)
            yield f"retry: 2000\nid: {at}\nevent: {'reset' if missed else 'hello'}\ndata: {{}}\n\n".encode()
            while True:
                for segment in [one for one in self._segments if one.number > at]:
                    at = segment.number
                    if text := frames(segment, sees):
                        yield text
                if not await self._wait(at, heartbeat):
                    yield b": alive\n\n"
                if self._segments and self._segments[0].number > at + 1:
                    at = self._last
                    yield f"id: {at}\nevent: reset\ndata: {{}}\n\n".encode()
        finally:
            self.listeners -= 1

    def _begin(self, after: int | None) -> tuple[int, bool]:
        if after is None:
            return self._last, False
        oldest = self._segments[0].number if self._segments else self._last + 1
        if after > self._last or after < oldest - 1:
            return self._last, True
        return after, False

    async def _wait(self, at: int, seconds: float) -> bool:
        """Whether there was news in time."""
        try:
            async with asyncio.timeout(seconds), self._news:
                await self._news.wait_for(lambda: self._last > at)
        except TimeoutError:
            return False
        return True


def _key(number: int) -> str:
    return f"feed:{number % RING}"
