"""Claims: annotators take tasks, hold them, give them back, skip them; and leases that run out."""

import asyncio
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from services.contracts.events import TaskExpired, TaskLeased, TaskReleased, TaskSkipped
from services.contracts.ids import digest
from services.contracts.problem import Problem
from services.label_queue import facts, leases
from services.label_queue.book import Book
from services.label_queue.settings import LabelQueueSettings
from services.label_queue.store import Tasks, parsed, task_key
from services.label_queue.tasks import NotFree, Task
from services.runtime.errors import Conflict, Unavailable
from services.runtime.service import Service
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
    """Who wants how many tasks; `labels` narrows them to those that the model takes for one of these."""

    project: str
    annotator: str
    n: int
    labels: Collection[str] | None = None


def hold_key(project: str, annotator: str) -> str:
    """The record of what an annotator has claimed, so that the limit holds over all replicas."""
    return f"hold:{project}:{digest(annotator)}"


class Claims:
    """The lease operations over the task records."""

    def __init__(self, service: Service, tasks: Tasks, settings: LabelQueueSettings) -> None:
        self.service = service
        self.tasks = tasks
        self.settings = settings
        self.ttl = timedelta(seconds=settings.lease_seconds)
        self._max_hold = timedelta(seconds=settings.max_hold_seconds)

    @property
    def now(self) -> datetime:
        return self.service.clock.now()

    async def claim(self, ask: Ask) -> list[Task]:
        """Up to `ask.n` tasks, leased in one transaction; none if none is free. Raises a 429."""
        book = await self.tasks.book(ask.project)
        looked = False
        async with self.service.lock(hold_key(ask.project, ask.annotator)):
            for attempt in range(TRIES):
                picks = book.take(ask.n, ask.annotator, ask.labels)
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

    def _overdue(self, book: Book, ask: Ask, n: int) -> list[str]:
        names = book.due(self.now, n) if n > 0 else []
        entries = [book.entries[name] for name in names]
        fit = [
            e.id for e in entries if ask.annotator not in e.answered and (not ask.labels or e.suggested in ask.labels)
        ]
        book.settle(set(names) - set(fit))
        return fit

    async def _lease(self, ask: Ask, book: Book, picks: Sequence[str]) -> list[Task]:
        """Those of `picks` that could be leased; the book then knows better about the others."""
        try:
            unit = await self.service.unit()
            await unit.get_many([hold_key(ask.project, ask.annotator), *map(task_key, picks)])
            held = await self._held(ask, unit)
            room = self.settings.max_leases - len(held)
            if room <= 0:
                raise TooManyLeases(self.settings.max_leases)
            claimed = await self._claim_in(unit, ask, book, picks[:room])
            if not claimed:
                return []
            names = [*held, *(task.id for task in claimed)]
            unit.put(hold_key(ask.project, ask.annotator), {"tasks": names}, guard=True)
            written = await self._commit(unit)
            won = [task for task in claimed if task_key(task.id) in written]
            lost = [task.id for task in claimed if task_key(task.id) not in written]
            for task in won:
                book.observe(task)
            await self.tasks.reread(book, lost)
            if won and hold_key(ask.project, ask.annotator) not in written:
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
            try:
                after = leases.claim(before, ask.annotator, now, self.ttl)
            except NotFree:
                continue
            if before.lease is not None:
                unit.emit(facts.told(TaskExpired, before, before.lease.holder), guard=task_key(name))
            self.tasks.put(after, unit)
            unit.emit(facts.told(TaskLeased, after, ask.annotator), guard=task_key(name))
            claimed.append(after)
        return claimed

    async def _held(self, ask: Ask, unit: Unit) -> list[str]:
        hold = await unit.get(hold_key(ask.project, ask.annotator))
        names = hold["tasks"] if hold else []
        rows = await unit.get_many(map(task_key, names))
        tasks = [parsed(rows[task_key(name)]) for name in names if task_key(name) in rows]
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

        return (await self.tasks.change(project, name, move))[1]

    async def release(self, project: str, name: str, annotator: str, epoch: int) -> Task:
        """The task, free again. Raises a 404, or a 409 `lease-lost`."""

        def move(task: Task, unit: Unit) -> Task:
            after = leases.release(task, annotator, epoch, self.now)
            unit.emit(facts.told(TaskReleased, after, annotator), guard=task_key(name))
            return after

        return (await self.tasks.change(project, name, move))[1]

    async def skip(self, project: str, name: str, annotator: str, epoch: int, **how: Any) -> Task:
        """The task, closed without a label (`reason`, `may_return`). Raises a 404, or a 409 `lease-lost`."""

        def move(task: Task, unit: Unit) -> Task:
            after = leases.skip(task, annotator, epoch, self.now, **how)
            unit.emit(facts.told(TaskSkipped, after, annotator, how["reason"]), guard=task_key(name))
            return after

        return (await self.tasks.change(project, name, move))[1]

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

    async def _commit(self, unit: Unit) -> frozenset[str]:
        try:
            return await unit.commit()
        except Conflict:
            return frozenset()
