"""Task records and this replica's books of them: what is read from the store, and kept in step with it."""

import contextlib
import gc
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

from services.contracts.envelope import Origin
from services.contracts.events import Event
from services.contracts.ids import digest
from services.contracts.problem import not_found
from services.label_queue.book import Book, header
from services.label_queue.gold import probe_key
from services.label_queue.segments import Segments
from services.label_queue.tasks import Task
from services.runtime.service import Service, transact
from services.runtime.unit import Unit

BULK = 1000  # records read at a time
EAGER = 5000  # tasks that are read before they are worked with; more of them are read meanwhile
MEANWHILE = 250  # read at a time then, so that nobody waits for long
MANY = 100_000  # entries from which on the garbage collector is not to look at them again and again
SEGMENTS_LOCK = "segments"

Move = Callable[[Task, Unit], Task]


def task_key(name: str) -> str:
    return f"tsk:{name}"


def hold_key(project: str, annotator: str) -> str:
    """The record of what an annotator has claimed, so that the limit holds over all replicas, and of the gold seen."""
    return f"hold:{project}:{digest(annotator)}"


def people_key(project: str) -> str:
    """The record of everybody who has ever claimed something."""
    return f"people:{project}"


def record_key(task: Task) -> str:
    """Where a task, or a probe, is stored."""
    return probe_key(task.id, task.probe) if task.probe else task_key(task.id)


def say(unit: Unit, task: Task, *events: Event) -> None:
    """Publish with the task's record; of a probe nobody hears."""
    for event in () if task.probe else events:
        unit.emit(event, guard=record_key(task))


def parsed(record: Any) -> Task:
    return Task.model_validate(record)


class Tasks:
    """The tasks of every project that this replica has looked at."""

    def __init__(self, service: Service, refresh_seconds: float) -> None:
        self.service = service
        self._segments = Segments(service, uuid.uuid4().hex[:12])
        self._books: dict[str, Book] = {}
        self._refresh_seconds = refresh_seconds
        self._refreshed: dict[str, float] = {}

    @property
    def books(self) -> dict[str, Book]:
        return dict(self._books)

    def forget(self, project: str) -> None:
        """The project is deleted; its records stay."""
        self._books.pop(project, None)
        self._refreshed.pop(project, None)

    async def load(self) -> None:
        """Rebuild the books of all projects from the store; at start."""
        for document in self.service.projects.all():
            await self.book(document.name)
        if sum(len(book.entries) for book in self._books.values()) >= MANY:
            gc.collect()
            gc.freeze()

    async def read_on(self) -> None:
        """Read some of the tasks that are only known from the segments; in the background."""
        for book in self.books.values():
            await self.reread(book, book.doubtful(MEANWHILE))

    async def book(self, project: str) -> Book:
        """The project's book, rebuilt from its segments when it is first asked for."""
        if project not in self._books:
            async with self.service.lock(f"book:{project}"):
                if project not in self._books:
                    book = Book()
                    await self._catch_up(project, book)
                    self._books[project] = book
        return self._books[project]

    async def refresh(self, project: str) -> None:
        """Take in what other replicas have queued, and look again at what seems to be leased."""
        book = await self.book(project)
        now = time.monotonic()
        if now - self._refreshed.get(project, -1e9) < self._refresh_seconds:
            return
        self._refreshed[project] = now
        await self._catch_up(project, book)
        await self.reread(book, book.leased(BULK))

    async def reread(self, book: Book, names: Iterable[str]) -> None:
        """Bring these up to date with their records."""
        wanted = list(dict.fromkeys(names))
        for start in range(0, len(wanted), BULK):
            part = wanted[start : start + BULK]
            found = await self.service.state.get([task_key(name) for name in part])
            for name in part:
                if entry := found.get(task_key(name)):
                    book.observe(parsed(entry.value))
                elif name in book.entries and not book.entries[name].revision:
                    book.forget(name)

    async def many(self, names: Sequence[str]) -> list[Task]:
        """The records that there are, in the order of `names`."""
        found = await self.service.state.get([task_key(name) for name in names])
        return [parsed(found[task_key(name)].value) for name in names if task_key(name) in found]

    async def seen_by(self, annotator: str, tasks: Sequence[Task]) -> list[Task]:
        """The same as the annotator may see them: a gold sample only as their own probe, if they have one."""
        keys = {task.id: probe_key(task.id, annotator) for task in tasks if task.split == "gold"}
        found = await self.service.state.get(list(keys.values()))
        mine = {name: parsed(found[key].value) for name, key in keys.items() if key in found}
        return [mine.get(task.id, task) for task in tasks if task.id not in keys or task.id in mine]

    async def read(self, unit: Unit, project: str, name: str, annotator: str | None = None) -> Task:
        """The task, as the annotator has it if one is named. Raises a 404 problem, also for another project's task."""
        record = await unit.get(task_key(name))
        if record is None or record["project"] != project:
            raise not_found("task", name)
        if annotator is not None and record.get("split") == "gold":
            record = await unit.get(probe_key(name, annotator)) or record
        return parsed(record)

    @staticmethod
    def put(task: Task, unit: Unit, origin: Origin | None = None) -> None:
        """Write a record that this unit has read, which remembers `origin`."""
        record = task.model_dump(mode="json", exclude_defaults=True)
        unit.put(record_key(task), record, guard=True, origin=origin)

    def write(self, task: Task, unit: Unit, origin: Origin | None = None) -> None:
        """The same, and the book follows once all of the unit is committed."""
        self.put(task, unit, origin)
        if not task.probe and (book := self._books.get(task.project)):
            unit.then(lambda: book.observe(task))

    async def queue(self, tasks: Sequence[Task], unit: Unit) -> None:
        """Note tasks that this unit opens in the segments. The caller holds the segments' lock."""
        by_project: dict[str, list[Task]] = {}
        for task in tasks:
            by_project.setdefault(task.project, []).append(task)
        for project, opened in by_project.items():
            await self._segments.ready(project)
            self._segments.append(project, [header(task) for task in opened], unit)

    async def change(
        self, project: str, name: str, move: Move, *, annotator: str | None = None, reopens: bool = False
    ) -> tuple[Task, Task]:
        """The task, as the annotator has it, before and after `move`, which may emit with the unit.

        Only a move that `reopens` may open it.
        """
        await self.book(project)

        async def work(unit: Unit) -> tuple[Task, Task]:
            before = await self.read(unit, project, name, annotator)
            after = move(before, unit)
            if after is not before:
                self.write(after, unit)
                if after.is_open and not before.is_open and not after.probe:
                    await self.queue([after], unit)
            return before, after

        async with self.service.lock(SEGMENTS_LOCK) if reopens else contextlib.nullcontext():
            return await transact(self.service, work)

    async def flush(self) -> None:
        """Note in the segments which tasks are closed, so that the next start need not read them."""
        for project, book in self.books.items():
            names = list(islice(book.unnoted, BULK))
            if not names:
                continue
            await self._segments.ready(project)
            async with self.service.lock(SEGMENTS_LOCK):
                unit = await self.service.unit()
                self._segments.append(project, book.headers(names), unit)
                await unit.commit()

    async def _catch_up(self, project: str, book: Book) -> None:
        news = await self._segments.news(project)
        await self.reread(book, [entry[0] for entry in news if book.recall(entry)])
        if len(book.unread) <= EAGER:
            await self.reread(book, book.doubtful(EAGER))
        elif news:
            await self.reread(book, await self._held(project))

    async def _held(self, project: str) -> list[str]:
        """The tasks that somebody may have a lease on."""
        state = self.service.state
        people = (await state.get([people_key(project)])).get(people_key(project))
        keys = [hold_key(project, name) for name in people.value["names"]] if people else []
        holds = (await state.get(keys)).values()
        return [name for hold in holds for name in hold.value["tasks"] if name not in hold.value.get("gold", ())]
