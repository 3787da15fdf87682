"""Withdrawn samples leave what earlier runs have pinned: their snapshots and their lists of unlabelled samples."""

from collections.abc import Collection

from services.retrain_trigger import pool
from services.retrain_trigger.labels import erasing_key
from services.retrain_trigger.runs import Runs
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
        for document in self._service.projects.all():
            project, key = document.name, erasing_key(document.name)
            entry = (await self._service.state.get([key])).get(key)
            if entry and entry.value["samples"] and (await self._runs.flight(project))["run_id"] is None:
                await self._erase(project, frozenset(entry.value["samples"]))

    async def _erase(self, project: str, gone: Collection[str]) -> None:
        uris: dict[str, bool] = {}  # whether it is a snapshot
        for run in await self._runs.ids(project):
            record = await self._runs.get(run) or {}
            uris |= {record[part]["uri"]: part == "snapshot" for part in ("snapshot", "pool") if record.get(part)}
        for uri, is_snapshot in uris.items():
            try:
                raw = await self._service.blobs.get(uri)
            except KeyError:
                continue
            left = self._runs.parsed(raw).without(gone).encoded() if is_snapshot else pool.without(raw, gone)
            if left != raw:
                await self._service.blobs.replace(uri, left)
        await transact(self._service, lambda unit: _done(unit, project, gone))


async def _done(unit: Unit, project: str, gone: Collection[str]) -> None:
    waiting = (await unit.get(erasing_key(project)) or {"samples": []})["samples"]
    unit.put(erasing_key(project), {"samples": [name for name in waiting if name not in gone]}, guard=True)
