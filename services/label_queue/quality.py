"""Reads the answers that there are, and keeps what follows from them for a moment."""

import asyncio
import time
from itertools import islice

from services.label_queue.gold import probe_key
from services.label_queue.measures import Report, report
from services.label_queue.settings import LabelQueueSettings
from services.label_queue.store import BULK, Tasks, hold_key, parsed, people_key
from services.label_queue.tasks import Task


class Quality:
    """A report by project, over its latest tasks that somebody has answered."""

    def __init__(self, tasks: Tasks, settings: LabelQueueSettings) -> None:
        self._tasks = tasks
        self._settings = settings
        self._reports: dict[str, tuple[float, Report]] = {}

    async def of(self, project: str) -> Report:
        """Not older than `quality_seconds`; whoever asks while it is made waits for the same."""
        async with self._tasks.service.lock(f"quality:{project}"):
            known = self._reports.get(project)
            if known is None or time.monotonic() - known[0] >= self._settings.quality_seconds:
                made = await self._make(project)
                self._reports[project] = known = (time.monotonic(), made)
            return known[1]

    async def _make(self, project: str) -> Report:
        await self._tasks.refresh(project)
        book = await self._tasks.book(project)
        latest = (e.id for e in reversed(book.entries.values()) if e.answers and not e.gold)
        tasks = await self._many(list(islice(latest, self._settings.quality_tasks)))
        people = await self._people(project)
        probes = await self._probes(project, people)
        gold = {task.id: task for task in await self._many(list(book.gold))}
        return await asyncio.to_thread(report, people, tasks, gold, probes)

    async def _many(self, names: list[str]) -> list[Task]:
        found: list[Task] = []
        for start in range(0, len(names), BULK):
            found += await self._tasks.many(names[start : start + BULK])
        return found

    async def _people(self, project: str) -> list[str]:
        entry = (await self._tasks.service.state.get([people_key(project)])).get(people_key(project))
        return entry.value["names"] if entry else []

    async def _probes(self, project: str, people: list[str]) -> list[Task]:
        holds = {hold_key(project, name): name for name in people}
        rows = await self._tasks.service.state.get(list(holds))
        keys = [probe_key(task, holds[key]) for key, row in rows.items() for task in row.value.get("gold", ())]
        found: list[Task] = []
        for start in range(0, len(keys), BULK):
            rows = await self._tasks.service.state.get(keys[start : start + BULK])
            found += [parsed(row.value) for row in rows.values()]
        return found
