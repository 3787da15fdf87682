"""Withdrawn samples leave what earlier runs have pinned: their snapshots and their lists of unlabelled samples."""

import asyncio
from collections.abc import Callable, Collection

from services.retrain_trigger import pool, snapshots
from services.retrain_trigger.labels import erasing_key
from services.retrain_trigger.runs import Runs, run_key
from services.runtime.service import transact
from services.runtime.unit import Unit


class Erasing:
    """Rewrites blobs in the background: there may be many, and a message waits for nothing."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._service = runs.service

    async def sweep(self) -> None:
        """Do what waits. Safe to repeat.

        A run that is under way stays what it is, also after a crash; its project's turn comes when it is over. What is
        begun later has none of the samples: their labels went with the message that asked for this.
        """
        names = [document.name for document in self._service.projects.all()]
        waiting = await self._service.state.get([erasing_key(name) for name in names])
        for project in names:
            entry = waiting.get(erasing_key(project))
            if entry and entry.value["samples"] and (await self._runs.flight(project))["run_id"] is None:
                await self._erase(project, frozenset(entry.value["samples"]))

    async def _erase(self, project: str, gone: Collection[str]) -> None:
        records = await self._service.state.get([run_key(run) for run in await self._runs.ids(project)])
        pinned: dict[str, Callable[[bytes, Collection[str]], bytes]] = {}
        for entry in records.values():
            for part, without in (("snapshot", snapshots.without), ("pool", pool.without)):
                if entry.value[part]:
                    pinned[entry.value[part]["uri"]] = without
        for uri, without in pinned.items():
            try:
                content = await self._service.blobs.get(uri)
            except KeyError:
                continue
            left = await asyncio.to_thread(without, content, gone)
            if left != content:
                await self._service.blobs.replace(uri, left)
        await transact(self._service, lambda unit: _done(unit, project, gone))


async def _done(unit: Unit, project: str, gone: Collection[str]) -> None:
    waiting = (await unit.get(erasing_key(project)) or {"samples": []})["samples"]
    unit.put(erasing_key(project), {"samples": [name for name in waiting if name not in gone]}, guard=True)
