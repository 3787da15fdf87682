"""Rescoring by a schedule: standing orders in state, kept by Dapr's scheduler, each call of which opens a job."""

from collections.abc import Mapping
from typing import Any

import structlog

from services.contracts.ids import digest
from services.contracts.problem import Problem
from services.infer.rescoring import TURN, Rescoring
from services.infer.serving import NONE, Serving
from services.runtime.service import Service, transact
from services.runtime.unit import Unit

log = structlog.get_logger()

PREFIX = "rescore-"  # of the scheduler's jobs; the order's id follows
ORDERS = "rescore:orders"
ACTIVE = "active"
"""In the place of a model version: the one that serves when the time comes, the extractor while there is none."""


def order_id(project: str, version: str, where: Mapping[str, str]) -> str:
    """The same samples by the same version are the same order, whatever its schedule."""
    return f"rso_{digest(project, version, str(sorted(where.items())))}"


class Schedules:
    """The standing orders of all projects: one small document, since there are few."""

    def __init__(self, service: Service, serving: Serving, rescoring: Rescoring) -> None:
        self._service = service
        self._serving = serving
        self._rescoring = rescoring
        self._arranged: dict[str, str] = {}

    def version(self, project: str, asked: str) -> str:
        """The version that is meant now."""
        if asked != ACTIVE:
            return asked
        active = self._serving.active(project)
        return active.version if active else NONE

    async def all(self, project: str | None = None) -> list[dict[str, Any]]:
        """The orders of a project, or of all."""
        entry = (await self._service.state.get([ORDERS])).get(ORDERS)
        rows = entry.value["of"].values() if entry else ()
        return [row for row in rows if project in (None, row["project"])]

    async def put(self, project: str, version: str, where: Mapping[str, str], schedule: str) -> dict[str, Any]:
        """A standing order; the same one with another schedule takes its place."""
        name, now = order_id(project, version, where), self._service.clock.now().isoformat()
        row = {"id": name, "project": project, "model_version": version, "where": dict(where), "schedule": schedule}
        await self._change(lambda rows: {**rows, name: {"last": None, "created_at": now, **rows.get(name, {}), **row}})
        return (await self._orders())[name]

    async def remove(self, project: str, name: str) -> bool:
        """Whether there was such an order."""
        if (await self._orders()).get(name, {}).get("project") != project:
            return False
        await self._change(lambda rows: {key: row for key, row in rows.items() if key != name})
        return True

    async def arrange(self) -> None:
        """Have the scheduler call for every order, and for no other."""
        wanted = {row["id"]: row["schedule"] for row in await self.all()}
        for name, schedule in wanted.items():
            if self._arranged.get(name) != schedule:
                await self._service.jobs.schedule(PREFIX + name, schedule)
                self._arranged[name] = schedule
        for name in self._arranged.keys() - wanted.keys():
            await self._service.jobs.cancel(PREFIX + name)
            del self._arranged[name]

    async def called(self, name: str) -> None:
        """The scheduler's call: open the order's job, unless it runs. Of an order that is gone it is the last one."""
        row = (await self._orders()).get(name.removeprefix(PREFIX))
        if row is None:
            await self._service.jobs.cancel(name)
            return
        if await self._service.projects.get(row["project"]) is None:
            await self.remove(row["project"], row["id"])
            return
        version = self.version(row["project"], row["model_version"])
        try:
            job = await self._rescoring.submit(row["project"], version, None, row["where"], again=False)
        except Problem as problem:
            log.info("rescoring by schedule", order=row["id"], reason=str(problem.detail))
            return
        change = {"last": job["id"], "called_at": self._service.clock.now().isoformat()}
        await self._change(
            lambda rows: {**rows, row["id"]: {**rows[row["id"]], **change}} if row["id"] in rows else rows
        )

    async def _orders(self) -> dict[str, Any]:
        return {row["id"]: row for row in await self.all()}

    async def _change(self, change: Any) -> None:
        async def work(unit: Unit) -> None:
            rows = (await unit.get(ORDERS) or {"of": {}})["of"]
            if (after := change(rows)) != rows:
                unit.put(ORDERS, {"of": after}, guard=True)

        async with self._service.lock(TURN):
            await transact(self._service, work)
