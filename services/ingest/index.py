"""Which samples there are: segments of about 500 headers and a head with counts, one chain for each replica.

A replica writes its own chain only, so replicas do not meet on it; the counts of a project are sums over chains.
Pure, but for `page`, `counts` and `tagged`, which read.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from services.contracts.problem import Problem
from services.runtime.outbox import SLOTS
from services.runtime.ports import State

SEGMENT = 500
SCAN = 40
LONGEST = 64  # characters of a place in the index
"""Segments looked through for one page; a page may so be short, and its cursor goes on."""

HELD = {"STORED": ("STORED", "BUFFERED")}
"""What is buffered is stored: it has not left the site yet."""

Header = list[Any]  # [sample id, captured at (unix seconds), stream or None, tags]


def head_key(project: str, shard: int) -> str:
    return f"idx:{project}:{shard}"


def segment_key(project: str, shard: int, number: int) -> str:
    return f"idx:{project}:{shard}:{number}"


def new_head() -> dict[str, Any]:
    return {"segment": 0, "counts": {}}


def counted(head: Mapping[str, Any], delta: Mapping[str, int]) -> dict[str, Any]:
    """The head with its counts changed by `delta`; a chain's own count may be negative, the sums are not."""
    counts = dict(head["counts"])
    for name, change in delta.items():
        counts[name] = counts.get(name, 0) + change
    return {**head, "counts": counts}


def appended(rows: Sequence[Header], new: Sequence[Header]) -> list[Header]:
    """`rows` and those of `new` that are not there yet."""
    known = {row[0] for row in rows}
    return [*rows, *(row for row in new if row[0] not in known)]


def untagged(rows: Sequence[Header], sample: str) -> list[Header]:
    """`rows`, with no tags on the sample's."""
    return [[*row[:3], []] if row[0] == sample else row for row in rows]


def as_text(value: Any) -> str:
    """An attribute as it stands in a query: a text as it is, anything else as JSON."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


@dataclass(frozen=True)
class Filter:
    """What a list of samples is narrowed to."""

    state: str | None = None
    tag: str | None = None
    stream: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    attribute: tuple[str, str] | None = None
    """Name and value, as text."""

    def has(self, record: Mapping[str, Any]) -> bool:
        """What only the record knows: its state, and its attributes."""
        state = record["state"]
        if self.attribute is not None:
            name, value = self.attribute
            if name not in record["attributes"] or as_text(record["attributes"][name]) != value:
                return False
        return self.state is None or state in HELD.get(self.state, (self.state,))

    def takes(self, header: Header) -> bool:
        _, captured, stream, tags = header
        return (
            (self.tag is None or self.tag in tags)
            and (self.stream is None or self.stream == stream)
            and (self.since is None or captured >= self.since.timestamp())
            and (self.until is None or captured < self.until.timestamp())
        )


@dataclass
class Place:
    """Where a list goes on: a chain, a segment of it, and how many of its headers are still to be read."""

    shard: int
    segment: int
    left: int | None = None

    def __str__(self) -> str:
        return f"{self.shard}.{self.segment}.{'' if self.left is None else self.left}"

    @classmethod
    def read(cls, text: str) -> "Place":
        """Raises a 400 problem for what no list gave out."""
        shard, _, rest = text.partition(".")
        segment, _, left = rest.partition(".")
        if len(text) > LONGEST or not (shard.isdecimal() and segment.isdecimal() and (left.isdecimal() or not left)):
            raise Problem(400, "bad-cursor", "This cursor is none that a list gave out.")
        return cls(int(shard), int(segment), int(left) if left else None)


@dataclass
class Found:
    """A page in the making."""

    limit: int
    items: list[dict[str, Any]] = field(default_factory=list)
    cursor: str | None = None


async def counts(state: State, project: str) -> dict[str, int]:
    """All counts of a project, over its chains."""
    total: dict[str, int] = {}
    for entry in (await _heads(state, project)).values():
        for name, count in entry["counts"].items():
            total[name] = total.get(name, 0) + count
    return total


async def tagged(state: State, project: str, sample: str) -> str | None:
    """The key of the segment that lists the sample under tags; looks through all of them, the newest first."""
    for place in _places(await _heads(state, project), None):
        key = segment_key(project, place.shard, place.segment)
        entry = (await state.get([key])).get(key)
        if any(row[0] == sample and row[3] for row in (entry.value["rows"] if entry else ())):
            return key
    return None


async def page(state: State, project: str, wanted: Filter, limit: int, cursor: str | None) -> Found:
    """Records, newest first within a chain, chain after chain."""
    found = Found(limit)
    start = Place.read(cursor) if cursor else None
    for scanned, place in enumerate(_places(await _heads(state, project), start)):
        if scanned == SCAN or len(found.items) >= limit:
            found.cursor = str(place)
            return found
        await _read_segment(state, project, place, wanted, found)
        if found.cursor:
            return found
    return found


async def _heads(state: State, project: str) -> dict[int, dict[str, Any]]:
    entries = await state.get([head_key(project, shard) for shard in range(SLOTS)])
    shards = {shard: entries.get(head_key(project, shard)) for shard in range(SLOTS)}
    return {shard: entry.value for shard, entry in shards.items() if entry}


def _places(heads: Mapping[int, dict[str, Any]], start: Place | None) -> Iterator[Place]:
    for shard in sorted(heads):
        if start and shard < start.shard:
            continue
        resumed = start if start and start.shard == shard else None
        if resumed:
            yield resumed
        for segment in range(resumed.segment - 1 if resumed else heads[shard]["segment"], -1, -1):
            yield Place(shard, segment)


async def _read_segment(state: State, project: str, place: Place, wanted: Filter, found: Found) -> None:
    key = segment_key(project, place.shard, place.segment)
    entry = (await state.get([key])).get(key)
    rows: list[Header] = entry.value["rows"] if entry else []
    left = len(rows) if place.left is None else min(place.left, len(rows))
    hits = [at for at in range(left - 1, -1, -1) if wanted.takes(rows[at])]
    for chunk in range(0, len(hits), found.limit):
        positions = hits[chunk : chunk + found.limit]
        records = await state.get([f"smp:{project}:{rows[at][0]}" for at in positions])
        for at in positions:
            if len(found.items) == found.limit:
                found.cursor = str(Place(place.shard, place.segment, at + 1))
                return
            record = records.get(f"smp:{project}:{rows[at][0]}")
            if record and record.value["shard"] == place.shard and wanted.has(record.value):
                found.items.append(record.value)
