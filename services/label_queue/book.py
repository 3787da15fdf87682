"""What one replica remembers of a project's tasks: who is next, whose lease ends when, how many of each. Pure.

The task records are the truth. This only says where to look, so being wrong costs a look and never a label.
"""

import hashlib
import heapq
import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from services.contracts.values import classes_of
from services.label_queue.consensus import canonical
from services.label_queue.tasks import FREE, OPEN, State, Task

ORDINARY = (State.QUEUED, State.LEASED)  # what most are in, or for a moment: not worth a note in the segments
SPARE = 1000  # places in the heap that no task has any more, before they are cleared away
COMMON = (State.QUEUED, State.ACCEPTED)  # of which there may be a million

Header = tuple[str, float, str, int, str | None, bool, bool, int, bool | None]


def _digest(name: str, revision: int, label: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{name}|{revision}|{label}".encode(), digest_size=8).digest(), "big")


def noted(value: Any) -> str:
    """An accepted value as text, the same for equal values only: enough to count it by class; boxes by their hash."""
    if isinstance(value, dict):
        digest = hashlib.blake2b(canonical(value).encode(), digest_size=8).hexdigest()
        return canonical({"classes": classes_of(value), "digest": digest})
    return canonical(value)


@lru_cache(maxsize=10_000)
def _classes(text: str) -> tuple[str, ...]:
    value = json.loads(text)
    return tuple(value["classes"] if isinstance(value, dict) else classes_of(value))


@dataclass(slots=True)
class Entry:
    """One task, as last seen. `label` is the accepted value as text (`noted`), `token` names its place in the heap."""

    id: str
    order: int
    priority: float = 0.0
    state: State = State.QUEUED
    revision: int = 0
    label: str | None = None
    asked: bool = False
    imported: bool = False
    answers: int = 0
    gold: bool = False
    trusted: bool = False  # known from a header only: whoever needs to be sure reads the record
    suggested: tuple[str, ...] = ()
    answered: frozenset[str] = frozenset()
    until: datetime | None = None
    token: int = 0
    listed: datetime | None = None  # the end of lease under which it is in the heap of leases
    noted: int = 0  # the revision that the segments have of a closed task

    def read(self, task: Task) -> None:
        """Take over what the record says."""
        self.priority, self.state, self.revision = task.priority, task.state, task.revision
        self.label = noted(task.value) if task.state == State.ACCEPTED else None
        self.asked, self.imported, self.answers = task.asked, task.origin == "import", len(task.counted)
        self.gold, self.trusted = task.split == "gold", False
        self.suggested = tuple(classes_of(task.prelabel.answer)) if task.prelabel else ()
        self.answered = frozenset(answer.annotator for answer in task.counted)
        self.until = task.lease.until if task.lease else None

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels that the accepted value names."""
        return () if self.label is None else _classes(self.label)

    @property
    def header(self) -> Header:
        """What the segments keep: enough to count a closed task without reading its record."""
        facts = (self.label, self.asked, self.imported, self.answers, self.gold)
        return (self.id, self.priority, self.state.value, self.revision, *facts)


def header(task: Task) -> Header:
    """The header of a record."""
    entry = Entry(task.id, 0)
    entry.read(task)
    return entry.header


class Book:
    """Entries by id, a heap of those that are free, a heap of the leases, and counts of them all."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.states: Counter[State] = Counter()
        self.classes: Counter[str] = Counter()
        self.asked = 0
        self.imported = 0
        self.gold: set[str] = set()
        self.fingerprint = 0  # of all accepted labels, in whatever order they came
        self.unnoted: set[str] = set()
        self._free: list[tuple[float, int, int, str]] = []
        self._leases: list[tuple[datetime, str]] = []
        self._token = 0
        self._sorted: list[str] = []
        self._news: list[str] = []  # ids that are not in their place in the sorted ones yet
        self._few: dict[State, set[str]] = {state: set() for state in State if state not in COMMON}
        self.unread: list[str] = []  # tasks that were taken at a header's word

    def observe(self, task: Task) -> None:
        """Remember the record, unless a later one was seen already."""
        entry = self.entries.get(task.id)
        if entry and entry.revision >= task.revision + entry.trusted:
            return
        entry = entry or self._new(task.id)
        in_heap = entry.state in FREE and entry.token > 0 and entry.priority == task.priority
        self._count(entry, -1)
        entry.read(task)
        self._count(entry, 1)
        self._place(entry, in_heap)

    def recall(self, header: Header) -> bool:
        """Remember a header; whether the record must be read to know more.

        A task that was queued is taken to wait still: most do, and a claim reads the record before it leases anything.
        """
        name, priority, state, revision, label, asked, imported, answers, gold = header
        entry = self.entries.get(name)
        if entry and entry.revision >= revision:
            return False
        entry = entry or self._new(name)
        waits = state == State.QUEUED.value
        if gold is None or (not waits and State(state) in OPEN):
            return True
        self._count(entry, -1)
        entry.priority, entry.state, entry.revision, entry.label = priority, State(state), revision, label
        entry.asked, entry.imported, entry.answers, entry.noted = asked, imported, answers, revision
        entry.gold, entry.trusted = gold, waits
        entry.token, entry.until = 0, None
        self._count(entry, 1)
        if waits:
            self.unread.append(name)
            self._place(entry, in_heap=False)
        return False

    def doubtful(self, limit: int) -> list[str]:
        """Up to `limit` tasks that are known from a header only; each is told once."""
        names, self.unread[-limit:] = self.unread[-limit:], []
        return [name for name in names if name in self.entries and self.entries[name].trusted]

    def forget(self, name: str) -> None:
        """There is no such record."""
        if entry := self.entries.pop(name, None):
            self._count(entry, -1)
            self.unnoted.discard(name)
            self._sorted, self._news = [], list(self.entries)

    def take(self, n: int, fits: Callable[[Entry], bool]) -> list[str]:
        """Up to `n` tasks that seem free and fit, best first; nobody else here gets them until `settle`."""
        taken: list[str] = []
        aside: list[tuple[float, int, int, str]] = []
        while self._free and len(taken) < n:
            item = heapq.heappop(self._free)
            if not self._current(item):
                continue
            entry = self.entries[item[3]]
            if not fits(entry):
                aside.append(item)
                continue
            entry.token = 0
            taken.append(entry.id)
        for item in aside:
            heapq.heappush(self._free, item)
        return taken

    def settle(self, names: Iterable[str]) -> None:
        """These were taken and are done with: back into the heap with those that are free still."""
        for name in names:
            if entry := self.entries.get(name):
                self._place(entry, entry.token > 0)

    def due(self, now: datetime, limit: int) -> list[str]:
        """Up to `limit` tasks whose lease seems to have run out."""
        found: list[str] = []
        while self._leases and self._leases[0][0] <= now and len(found) < limit:
            until, name = heapq.heappop(self._leases)
            entry = self.entries.get(name)
            if entry and entry.listed == until:
                entry.listed = None
                if entry.state == State.LEASED:
                    found.append(name)
        return found

    def leased(self, limit: int) -> list[str]:
        """Up to `limit` tasks that seem leased, the first to end first."""
        return [name for _, name in heapq.nsmallest(limit, self._leases)]

    def page(
        self, states: Collection[State], after: str | None, limit: int, gold: bool = False
    ) -> tuple[list[str], str | None]:
        """Ids in order from beyond `after`, and where to go on; with `gold` all gold samples, whatever their state."""
        if not any(state in COMMON for state in states):
            few = set().union(self.gold if gold else (), *(self._few[state] for state in states))
            names = sorted(name for name in few if name > (after or ""))
            return names[:limit], names[limit - 1] if len(names) > limit else None
        if self._news:
            self._sorted += sorted(self._news)
            self._sorted.sort()  # two sorted runs: a merge
            self._news = []
        found: list[str] = []
        for at in range(bisect_right(self._sorted, after or ""), len(self._sorted)):
            entry = self.entries[self._sorted[at]]
            if entry.state in states or (gold and entry.gold):
                if len(found) == limit:
                    return found, found[-1]
                found.append(self._sorted[at])
        return found, None

    def headers(self, names: Sequence[str]) -> list[Header]:
        """The headers of these tasks, which from now on count as noted in the segments."""
        entries = [self.entries[name] for name in names if name in self.entries]
        for entry in entries:
            entry.noted = entry.revision
            self.unnoted.discard(entry.id)
        return [entry.header for entry in entries]

    def _new(self, name: str) -> Entry:
        entry = self.entries[name] = Entry(name, len(self.entries))
        self._news.append(name)
        return entry

    def _count(self, entry: Entry, by: int) -> None:
        if not entry.revision:  # only heard of: the record has not been read
            return
        self.states[entry.state] += by
        if (few := self._few.get(entry.state)) is not None:
            (few.add if by > 0 else few.discard)(entry.id)
        self.asked += by * entry.asked
        self.imported += by * (entry.imported and entry.state == State.ACCEPTED)
        if entry.label is not None and entry.state == State.ACCEPTED:
            for name in entry.classes:
                self.classes[name] += by
            self.fingerprint ^= _digest(entry.id, entry.revision, entry.label)
        if entry.gold and entry.state == State.ACCEPTED:
            (self.gold.add if by > 0 else self.gold.discard)(entry.id)

    def _current(self, item: tuple[float, int, int, str]) -> bool:
        """Whether this is a free task's place in the heap, and not one that it has had before."""
        entry = self.entries.get(item[3])
        return entry is not None and entry.token == item[2] and entry.state in FREE

    def _place(self, entry: Entry, in_heap: bool) -> None:
        if entry.state in FREE and not in_heap:
            self._token += 1
            entry.token = self._token
            heapq.heappush(self._free, (-entry.priority, entry.order, entry.token, entry.id))
            if len(self._free) > 2 * len(self.entries) + SPARE:
                # Each new rank leaves the old place behind, and low ones are never come by.
                self._free = [item for item in self._free if self._current(item)]
                heapq.heapify(self._free)
        if entry.state == State.LEASED and entry.until and entry.listed != entry.until:
            entry.listed = entry.until
            heapq.heappush(self._leases, (entry.until, entry.id))
        if entry.state in ORDINARY:
            self.unnoted.discard(entry.id)
        elif entry.noted != entry.revision:
            self.unnoted.add(entry.id)
