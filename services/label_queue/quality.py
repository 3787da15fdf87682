"""Reads the answers that there are, and keeps what follows from them for a moment."""

import asyncio
import time
from dataclasses import dataclass
from itertools import islice
from typing import Any

from services.label_queue.gold import probe_key
from services.label_queue.measures import Report, report
from services.label_queue.pace import pace
from services.label_queue.settings import LabelQueueSettings
from services.label_queue.store import BULK, Tasks, hold_key, parsed, people_key
from services.label_queue.tasks import State, Task


@dataclass(frozen=True)
class Known:
    """What was read at `at`, by the monotonic clock."""

    at: float
    report: Report
    pace: dict[str, Any]


class Quality:
    """A report by project, over its latest tasks that somebody has answered."""

    def __init__(self, tasks: Tasks, settings: LabelQueueSettings) -> None:
        self._tasks = tasks
        self._settings = settings
        self._known: dict[str, Known] = {}

    async def of(self, project: str) -> Report:
        """The annotators, and what they say; not older than `quality_seconds`."""
        return (await self._fresh(project)).report

    async def pace(self, project: str) -> dict[str, Any]:
        """How the work goes; not older than `quality_seconds`."""
        return (await self._fresh(project)).pace

    async def _fresh(self, project: str) -> Known:
        """Whoever asks while it is made waits for the same."""
        async with self._tasks.service.lock(f"quality:{project}"):
            known = self._known.get(project)
            if known is None or time.monotonic() - known.at >= self._settings.quality_seconds:
                self._known[project] = known = await self._make(project)
            return known

    async def _make(self, project: str) -> Known:
        await self._tasks.refresh(project)
        book = await self._tasks.book(project)
        latest = [e for e in reversed(book.entries.values()) if not e.gold]
        most = self._settings.quality_tasks
        tasks = await self._many([e.id for e in islice((e for e in latest if e.answers), most)])
        skipped = await self._many([e.id for e in islice((e for e in latest if e.state == State.SKIPPED), most)])
        people = await self._people(project)
        probes = await self._probes(project, people)
        gold = {task.id: task for task in await self._many(list(book.gold))}
        made = await asyncio.to_thread(report, people, tasks, gold, probes)
        return Known(time.monotonic(), made, pace(tasks, skipped, self._tasks.service.clock.now()))

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
