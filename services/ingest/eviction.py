"""What goes first when a site's store is full. Pure.

In this order: what the cloud has a checked copy of; what no policy can pass; what is not scored, the oldest first, once
it fills more than the share that is kept free for newcomers; then what is worth least. A sample that was asked about is
promised until it is uploaded or its time is over, and then competes by its priority; what has a label never goes.
"""

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, Literal

Standing = Literal["arriving", "unscored", "scored", "discarded", "selected", "labelled"]
Reason = Literal["uploaded", "discarded", "unscored", "value", "ttl"]

NEWCOMERS = 10
"""A tenth of the budget is kept free of what is scored, so that a newcomer is scored before it has to compete."""


class Full(Exception):
    """All that is kept is promised, or worth more."""


@dataclass(frozen=True)
class Kept:
    """One sample's content: its bytes, when it came (unix seconds), and what is known of its worth (0 to 1)."""

    bytes: int
    at: float
    standing: Standing = "arriving"
    value: float = 0.0
    since: float = 0.0  # when it came to this standing
    uploaded: bool = False


@dataclass(frozen=True)
class Going:
    """A sample that has to go, and why."""

    name: str
    kept: Kept
    reason: Reason


@dataclass(frozen=True)
class Limits:
    """Bytes in all, and the seconds for which what was asked about is promised."""

    budget: int
    ttl: float = 7200.0

    @property
    def settled(self) -> int:
        """Bytes that samples may have which are no newcomers."""
        return self.budget - self.budget // NEWCOMERS


def worth(scores: Mapping[str, float]) -> float | None:
    """The uncertainty that a sample is kept by: its margin score, else the highest that there is."""
    if not scores:
        return None
    return min(max(scores.get("margin", max(scores.values())), 0.0), 1.0)


def told(kept: Kept, kind: str, at: float, facts: Mapping[str, Any]) -> Kept:
    """`kept` after an event about it, in any order; `facts` are the event's data."""
    match kind:
        case "sample.scored":
            return _scored(kept, at, worth(facts.get("scores", {})))
        case "sample.discarded" if kept.standing in ("arriving", "unscored", "scored"):
            return replace(kept, standing="discarded", since=at)
        case "sample.selected" if kept.standing != "labelled":
            return replace(kept, standing="selected", value=facts["priority"], since=at)
        case "label.accepted":
            return replace(kept, standing="labelled", since=at)
        case "label.retracted" if kept.standing == "labelled" and at > kept.since:
            return replace(kept, standing="selected", since=at)
        case "sample.uploaded":
            return replace(kept, uploaded=True)
    return kept


def _scored(kept: Kept, at: float, value: float | None) -> Kept:
    if value is None or kept.standing in ("selected", "labelled"):
        return kept
    if kept.standing == "discarded" and at <= kept.since:
        return replace(kept, value=value)
    return replace(kept, standing="scored", value=value, since=at)


Line = Literal["uploaded", "discarded", "unscored", "valued", "promised"]
Place = tuple[float, float, int, str, Kept]


@dataclass
class Ledger:
    """What is kept, in lines of who goes first; a place in a line that is no longer true is passed over."""

    limits: Limits
    kept: dict[str, Kept] = field(default_factory=dict)
    bytes: int = 0
    new: int = 0  # bytes of those that are not scored yet
    _lines: dict[Line, list[Place]] = field(default_factory=dict)
    _serial: Iterator[int] = field(default_factory=count)

    def put(self, name: str, kept: Kept) -> None:
        """Keep it, or know something else of it."""
        self.remove(name)
        self.kept[name] = kept
        self._add(kept, 1)
        if line := _line(kept):
            self._queue(line, name, kept)

    def remove(self, name: str) -> None:
        if known := self.kept.pop(name, None):
            self._add(known, -1)

    def room(self, need: int, now: float) -> list[Going]:
        """What goes for `need` more bytes to fit; it is out of the ledger then. Raises Full, and all stays."""
        going: list[Going] = []
        while self.bytes + need > self.limits.budget:
            crowded = self.new + need > self.limits.budget - self.limits.settled
            lines: tuple[Line, ...] = ("unscored", "valued") if crowded else ("valued", "unscored")
            found = self._first(now, ("uploaded", "discarded", *lines)) if need <= self.limits.budget else None
            if found is None:
                for one in going:
                    self.put(one.name, one.kept)
                raise Full
            going.append(found)
        return going

    def surplus(self, now: float) -> list[Going]:
        """What goes so that newcomers find their share free."""
        going: list[Going] = []
        while self.bytes - self.new > self.limits.settled:
            found = self._first(now, ("uploaded", "discarded", "valued"))
            if found is None:
                break
            going.append(found)
        return going

    def _first(self, now: float, lines: tuple[Line, ...]) -> Going | None:
        promised = self._lines.get("promised", [])
        while promised and now - promised[0][0] >= self.limits.ttl:
            *_, name, kept = heapq.heappop(promised)
            if self.kept.get(name) is kept:
                self._queue("valued", name, kept)
        for line in lines:
            places = self._lines.get(line, [])
            while places:
                *_, name, kept = heapq.heappop(places)
                if self.kept.get(name) is kept:
                    self.remove(name)
                    return Going(name, kept, _reason(line, kept))
        return None

    def _queue(self, line: Line, name: str, kept: Kept) -> None:
        first = {"valued": kept.value, "discarded": kept.value, "promised": kept.since}.get(line, kept.at)
        heapq.heappush(self._lines.setdefault(line, []), (first, kept.at, next(self._serial), name, kept))

    def _add(self, kept: Kept, sign: int) -> None:
        self.bytes += sign * kept.bytes
        if kept.standing in ("arriving", "unscored"):
            self.new += sign * kept.bytes


def _line(kept: Kept) -> Line | None:
    """Where it waits; what is on its way in, or has a label, has no place."""
    if kept.uploaded:
        return "uploaded"
    lines: dict[Standing, Line] = {
        "unscored": "unscored",
        "scored": "valued",
        "discarded": "discarded",
        "selected": "promised",
    }
    return lines.get(kept.standing)


def _reason(line: Line, kept: Kept) -> Reason:
    if line == "valued":
        return "ttl" if kept.standing == "selected" else "value"
    return "uploaded" if line == "uploaded" else "discarded" if line == "discarded" else "unscored"
