"""Claims: annotators take tasks, hold them, give them back, skip them; and leases that run out."""

import asyncio
import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from services.contracts.events import TaskExpired, TaskLeased, TaskReleased, TaskSkipped
from services.contracts.problem import Problem
from services.contracts.projects import QualityRule
from services.label_queue import facts, leases
from services.label_queue.book import Book, Entry
from services.label_queue.gold import mixed, probe, probe_key
from services.label_queue.settings import LabelQueueSettings
from services.label_queue.store import Tasks, hold_key, parsed, people_key, record_key, say, task_key
from services.label_queue.suggestions import blind
from services.label_queue.tasks import NotFree, Task
from services.runtime.errors import Conflict, Unavailable
from services.runtime.service import Service, transact
from services.runtime.unit import Unit

SWEEP = 200  # leases ended in one transaction
TRIES = 64  # heaps this stale do not happen; a store that refuses all may


class TooManyLeases(Problem):
    """The annotator holds as many tasks as anybody may."""

    def __init__(self, limit: int) -> None:
        detail = f"You hold {limit} tasks already, the most that anybody may; answer or release some."
        super().__init__(429, "too-many-leases", detail, headers={"retry-after": "1"})


@dataclass(frozen=True)
class Ask:
    """Who wants how many tasks; `labels` narrows them to those that the model takes for one of these.

    `tasks` names the ones that are meant.
    """

    project: str
    annotator: str
    n: int
    quality: QualityRule
    required: int = 1  # answers that a sample usually needs, for gold samples to look like the others
    labels: Collection[str] | None = None
    tasks: Sequence[str] | None = None

    def fits(self, entry: Entry) -> bool:
        """Whether the annotator has not answered, and the model suggests one of `labels`, if any are named.

        A task that is blind for them is not among those: that it was would tell what is hidden.
        """
        if entry.answered and self.annotator in entry.answered:
            return False
        if not self.labels:
            return True
        shown = any(name in self.labels for name in entry.suggested)
        return shown and not blind(self.quality, entry.id, self.annotator)


class Claims:
    """The lease operations over the task records."""

    def __init__(self, service: Service, tasks: Tasks, settings: LabelQueueSettings) -> None:
        self.service = service
        self.tasks = tasks
        self.settings = settings
        self.ttl = timedelta(seconds=settings.lease_seconds)
        self._max_hold = timedelta(seconds=settings.max_hold_seconds)
        self._rng = random.SystemRandom()  # nobody can foresee which task is a gold sample
        self._known: set[tuple[str, str]] = set()
        self._held_last: dict[str, list[str]] = {}

    @property
    def now(self) -> datetime:
        return self.service.clock.now()

    async def claim(self, ask: Ask) -> list[Task]:
        """Up to `ask.n` tasks, leased in one transaction; none if none is free. Raises a 429."""
        book = await self.tasks.book(ask.project)
        await self._register(ask)
        if ask.tasks:
            return await self._named(book, ask, ask.tasks)
        looked = False
        async with self.service.lock(hold_key(ask.project, ask.annotator)):
            for attempt in range(TRIES):
                picks = book.take(ask.n, ask.fits)
                picks += self._overdue(book, ask, ask.n - len(picks))
                if picks:
                    if leased := await self._lease(ask, book, picks):
                        return leased
                    await asyncio.sleep(min(0.001 * attempt, 0.02))
                elif looked:
                    return []
                else:
                    looked = True
                    await self._within_limit(ask)
                    await self.tasks.refresh(ask.project)
        raise Unavailable("the tasks that seem free are all taken; ask again")

    async def _named(self, book: Book, ask: Ask, names: Sequence[str]) -> list[Task]:
        """Those of the named tasks that are free for the annotator."""
        async with self.service.lock(hold_key(ask.project, ask.annotator)):
            for attempt in range(8):
                found = await self.tasks.many(names)
                free = [task.id for task in found if task.project == ask.project and task.split == "train"]
                if leased := await self._lease(ask, book, free):
                    return leased
                if not any((leases.expire(task, self.now) or task).fits(ask.annotator) for task in found):
                    return []
                await asyncio.sleep(0.005 * 2**attempt)
        raise Unavailable("somebody else is writing these tasks; ask again")

    def _overdue(self, book: Book, ask: Ask, n: int) -> list[str]:
        names = book.due(self.now, n) if n > 0 else []
        fit = [name for name in names if ask.fits(book.entries[name])]
        book.settle(set(names) - set(fit))
        return fit

    async def _lease(self, ask: Ask, book: Book, picks: Sequence[str]) -> list[Task]:
        """Those of `picks` that could be leased; the book then knows better about the others."""
        try:
            unit = await self.service.unit()
            key = hold_key(ask.project, ask.annotator)
            # What the annotator held last time is most of what they hold now: one look instead of two.
            await unit.get_many([key, *map(task_key, [*picks, *self._held_last.get(key, ())])])
            hold = await unit.get(key) or {}
            held = await self._held(ask, unit)
            room = self.settings.max_leases - len(held)
            if room <= 0:
                raise TooManyLeases(self.settings.max_leases)
            seen = hold.get("gold", [])
            share = 0.0 if ask.labels or ask.tasks else ask.quality.gold_share
            chosen = mixed(picks[:room], book.gold, seen, share, self._rng) if share and book.gold else picks[:room]
            claimed = await self._claim_in(unit, ask, book, chosen)
            if not claimed:
                return []
            names = [*held, *(task.id for task in claimed)]
            gold = [*seen, *(task.id for task in claimed if task.probe)]
            unit.put(key, {"tasks": names, **({"gold": gold} if gold else {})}, guard=True)
            self._held_last[key] = [name for name in names if name not in gold]
            written = await self._commit(unit)
            won = [task for task in claimed if record_key(task) in written]
            lost = [task.id for task in claimed if record_key(task) not in written]
            for task in won:
                if not task.probe:
                    book.observe(task)
            await self.tasks.reread(book, lost)
            if won and key not in written:
                # The annotator claims through another replica too; without the note the limit would not hold.
                await self._give_back(won)
                return []
            return won
        finally:
            book.settle(picks)

    async def _claim_in(self, unit: Unit, ask: Ask, book: Book, picks: Sequence[str]) -> list[Task]:
        claimed: list[Task] = []
        now = self.now
        for name in picks:
            record = await unit.get(task_key(name))
            if record is None:
                book.forget(name)
                continue
            before = parsed(record)
            book.observe(before)
            if before.split == "gold":
                await unit.get(probe_key(name, ask.annotator))
                before = probe(before, ask.annotator, ask.required, now)
            try:
                after = leases.claim(before, ask.annotator, now, self.ttl)
            except NotFree:
                continue
            if before.lease is not None:
                say(unit, before, facts.told(TaskExpired, before, before.lease.holder))
            self.tasks.put(after, unit)
            say(unit, after, facts.told(TaskLeased, after, ask.annotator))
            claimed.append(after)
        return claimed

    async def _held(self, ask: Ask, unit: Unit) -> list[str]:
        hold = await unit.get(hold_key(ask.project, ask.annotator))
        gold = set(hold.get("gold", ())) if hold else set()
        names = hold["tasks"] if hold else []
        keys = [probe_key(name, ask.annotator) if name in gold else task_key(name) for name in names]
        rows = await unit.get_many(keys)
        tasks = [parsed(rows[key]) for key in keys if key in rows]
        return [task.id for task in tasks if task.holds(ask.annotator, self.now)]

    async def _within_limit(self, ask: Ask) -> None:
        """Raises a 429 when the annotator could not take a task if there was one."""
        if len(await self._held(ask, await self.service.unit())) >= self.settings.max_leases:
            raise TooManyLeases(self.settings.max_leases)

    async def _give_back(self, won: Iterable[Task]) -> None:
        for task in won:
            if task.lease:
                await self.release(task.project, task.id, task.lease.holder, task.epoch)

    async def heartbeat(self, project: str, name: str, annotator: str, epoch: int) -> Task:
        """The task with its lease extended. Raises a 404, or a 409 `lease-lost`."""

        def move(task: Task, _: Unit) -> Task:
            return leases.heartbeat(task, annotator, epoch, self.now, self.ttl, self._max_hold)

        return (await self.tasks.change(project, name, move, annotator=annotator))[1]

    async def release(self, project: str, name: str, annotator: str, epoch: int) -> Task:
        """The task, free again. Raises a 404, or a 409 `lease-lost`."""

        def move(task: Task, unit: Unit) -> Task:
            after = leases.release(task, annotator, epoch, self.now)
            say(unit, after, facts.told(TaskReleased, after, annotator))
            return after

        return (await self.tasks.change(project, name, move, annotator=annotator))[1]

    async def skip(self, project: str, name: str, annotator: str, epoch: int, **how: Any) -> Task:
        """The task, closed without a label (`reason`, `may_return`). Raises a 404, or a 409 `lease-lost`."""

        def move(task: Task, unit: Unit) -> Task:
            after = leases.skip(task, annotator, epoch, self.now, **how)
            say(unit, after, facts.told(TaskSkipped, after, annotator, how["reason"]))
            return after

        return (await self.tasks.change(project, name, move, annotator=annotator))[1]

    async def sweep(self) -> None:
        """End the leases that have run out, and look at what other replicas have done."""
        for project, book in self.tasks.books.items():
            while names := list(dict.fromkeys(book.due(self.now, SWEEP))):
                if not await self._expire(book, names):
                    break
            await self.tasks.refresh(project)

    async def _expire(self, book: Book, names: Sequence[str]) -> bool:
        try:
            unit = await self.service.unit()
            found = await unit.get_many(map(task_key, names))
            expired: list[Task] = []
            for record in found.values():
                before = parsed(record)
                book.observe(before)
                after = leases.expire(before, self.now)
                if after and before.lease:
                    self.tasks.put(after, unit)
                    unit.emit(facts.told(TaskExpired, before, before.lease.holder), guard=task_key(after.id))
                    expired.append(after)
            written = await self._commit(unit)
            for task in expired:
                if task_key(task.id) in written:
                    book.observe(task)
            return bool(expired) and len(written) == len(expired)
        finally:
            book.settle(names)

    async def _register(self, ask: Ask) -> None:
        """Remember that there is this annotator; once in each process."""
        if (ask.project, ask.annotator) in self._known:
            return

        async def note(unit: Unit) -> None:
            people = await unit.get(people_key(ask.project)) or {"names": []}
            if ask.annotator not in people["names"]:
                unit.put(people_key(ask.project), {"names": [*people["names"], ask.annotator]}, guard=True)

        async with self.service.lock(people_key(ask.project)):
            await transact(self.service, note)
        self._known.add((ask.project, ask.annotator))

    async def _commit(self, unit: Unit) -> frozenset[str]:
        try:
            return await unit.commit()
        except Conflict:
            return frozenset()
