"""Which artefacts are kept: all that may be used, and the newest of the others. Records are never removed."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import structlog

from services.retrain_trigger.models import model_key, no_pointer, pointer_key, previous_of
from services.retrain_trigger.registry import Registry
from services.retrain_trigger.runs import flight_key, run_key
from services.runtime.service import transact
from services.runtime.unit import Unit

log = structlog.get_logger()


def expendable(
    records: Sequence[Mapping[str, Any]], pointer: Mapping[str, Any], used: Collection[str], kept: int
) -> list[str]:
    """Versions whose artefacts may go, oldest first; `records` are oldest first. Pure.

    Kept are the champion, the previous version, the shadow, what is `used`, the champions that all of these were
    judged against (their comparison stays repeatable), and the `kept` newest of the others.
    """
    here = {record["version"]: record for record in records if not record.get("gone")}
    held = {pointer["version"], previous_of(pointer), pointer.get("shadow"), *used}
    held |= {here[version]["lineage"].get("base") for version in held if version in here}
    others = [version for version in here if version not in held]
    return others[: max(0, len(others) - kept)]


class Retention:
    """Removes artefacts after a run."""

    def __init__(self, registry: Registry, kept: int) -> None:
        self._registry = registry
        self._service = registry.service
        self._kept = kept

    async def sweep(self, project: str) -> None:
        """Mark what goes, then remove its bytes; safe to repeat, also after half of it."""
        await transact(self._service, lambda unit: self._mark(unit, project))
        records = await self._registry.records(await self._registry.versions(project))
        needed = {record["artefact"]["sha256"] for record in records if not record.get("gone")}
        for record in records:
            if (record.get("gone") or {}).get("swept") is False:
                if record["artefact"]["sha256"] not in needed:  # the same bytes may be another version too
                    await self._service.blobs.delete(record["artefact"]["uri"])
                await self._swept(record["version"])
                log.info("artefact removed", project=project, version=record["version"])

    async def _mark(self, unit: Unit, project: str) -> None:
        found = await unit.get_many([pointer_key(project), flight_key(project)])
        pointer = found.get(pointer_key(project)) or no_pointer()
        flight = found.get(flight_key(project)) or {}
        used = await self._used(unit, flight)
        versions = await self._registry.versions(project)
        records = await unit.get_many([model_key(version) for version in versions])
        known = [records[key] for version in versions if (key := model_key(version)) in records]
        going = expendable(known, pointer, used, self._kept)
        if not going:
            return
        # Written as it was: who activates a version at this very moment, or starts a run from it, is a conflict.
        unit.put(pointer_key(project), pointer, guard=True)
        now = self._service.clock.now().isoformat()
        for version in going:
            record = records[model_key(version)]
            unit.put(model_key(version), {**record, "gone": {"at": now, "swept": False}}, guard=True)

    async def _used(self, unit: Unit, flight: Mapping[str, Any]) -> set[str]:
        """What the run that is active has to do with."""
        run = await unit.get(run_key(flight["run_id"])) if flight.get("run_id") else None
        return {version for version in (run["base_model"], run["model_version"]) if version} if run else set()

    async def _swept(self, version: str) -> None:
        async def work(unit: Unit) -> None:
            record = await unit.get(model_key(version))
            if record and record.get("gone"):
                unit.put(model_key(version), {**record, "gone": {**record["gone"], "swept": True}}, guard=True)

        await transact(self._service, work)
