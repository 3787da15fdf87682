"""Starts runs when the rule says so, and sees to it that a run that was started comes to its end."""

import contextlib
from datetime import datetime
from typing import Any

import structlog

from services.contracts.projects import ProjectDocument
from services.retrain_trigger import pipeline
from services.retrain_trigger.labels import Labels
from services.retrain_trigger.marks import Noticing, drift_key, marks_key, read_marks
from services.retrain_trigger.models import no_pointer, pointer_key
from services.retrain_trigger.pipeline import Pipeline
from services.retrain_trigger.registry import Registry
from services.retrain_trigger.runs import (
    IllegalTransition,
    RunActive,
    Runs,
    beat_key,
    flight_key,
    no_flight,
    read_flight,
)
from services.retrain_trigger.settings import RetrainTriggerSettings
from services.retrain_trigger.trigger import Counters, Decision, Flight, decide
from services.runtime.service import Service, transact
from services.runtime.unit import Unit
from services.runtime.workflow import Workflows

log = structlog.get_logger()

RESTARTS = 5  # times that a run whose workflow was lost is begun anew


class Flights:
    """The loops in the background."""

    def __init__(
        self,
        service: Service,
        settings: RetrainTriggerSettings,
        labels: Labels,
        registry: Registry,
        runs: Runs,
        steps: Pipeline,
        noticing: Noticing,
    ) -> None:
        self.service = service
        self.settings = settings
        self._registry = registry
        self._labels = labels
        self._runs = runs
        self._pipeline = steps
        self._noticing = noticing
        self._counted: dict[str, tuple[Any, Counters]] = {}
        self._spent: dict[str, int] = {}
        self._purged: dict[str, str] = {}

    @property
    def workflows(self) -> Workflows:
        return self.service.workflows

    async def start(self) -> None:
        self.workflows.register(pipeline.NAME, pipeline.retrain, self._pipeline.activities)
        await self.workflows.start()

    async def stop(self) -> None:
        await self.workflows.stop()

    def unready(self) -> str | None:
        return None if self.workflows.ready else "the workflow engine is not there yet"

    async def standing(self, document: ProjectDocument) -> tuple[Counters, Flight, Decision]:
        """A project's counters, its flight, and what the rule makes of them now."""
        name = document.name
        found = await self.service.state.get([flight_key(name), pointer_key(name), marks_key(name)])
        flight = read_flight(found[flight_key(name)].value if flight_key(name) in found else no_flight())
        pointer = found[pointer_key(name)].value if pointer_key(name) in found else no_pointer()
        counters = self._counters(document, pointer["version"])
        now, pause = self.service.clock.now(), self.settings.pause_after_failure
        marks = read_marks(found[marks_key(name)].value if marks_key(name) in found else None)
        return counters, flight, decide(document.trigger, counters, flight, now, pause, marks)

    async def drift(self, project: str) -> dict[str, Any] | None:
        """What the latest window of the champion's scores has shown: {psi, p, drift}."""
        found = (await self.service.state.get([drift_key(project)])).get(drift_key(project))
        return found.value["last"] if found else None

    async def consider(self) -> None:
        """Start the runs whose time has come; the same data is not considered twice."""
        for document in self.service.projects.all():
            _, _, decision = await self.standing(document)
            if decision.spent:
                await self._noticing.spend(document.name)
            if self._spent.get(document.name) == self._labels.version(document.name):
                continue
            if decision.fire and decision.reason:
                await self._fire(document, decision)

    async def launch(self, run: str) -> None:
        """Start the workflow of a run; again is harmless."""
        await self.workflows.run(pipeline.NAME, run, {"run_id": run})

    async def cancel(self, project: str, run: str, by: str) -> dict[str, Any]:
        """Stop a run; it ends as CANCELLED when its next step is taken. Problems: 404, 409 when it has ended."""
        record = await self._runs.cancel(project, run, by)
        await self._pipeline.backend.cancel(run)
        return record

    async def clear(self, project: str, by: str) -> None:
        """A project is deleted: stop its run, and forget its labels and what served."""
        flight = await self._runs.flight(project)
        if flight["run_id"]:
            with contextlib.suppress(IllegalTransition):
                await self.cancel(project, flight["run_id"], by)
        await self._labels.forget(project)
        await self._registry.retire(project)

    async def tend(self) -> None:
        """Push every run whose workflow is not there, has ended without it, or shows no sign of life."""
        for document in self.service.projects.all():
            flight = await self._runs.flight(document.name)
            if flight["run_id"]:
                await self._tend(document.name, flight)
            elif flight["last"] and self._purged.get(document.name) != flight["last"]:
                await self._purge(document.name, flight["last"])

    async def _purge(self, project: str, run: str) -> None:
        """The history of a run that has ended is of no more use."""
        status = await self.workflows.status(run)
        if status == "running":
            return
        if status is not None:
            await self.workflows.purge(run)
        self._purged[project] = run

    async def _fire(self, document: ProjectDocument, decision: Decision) -> None:
        assert decision.reason is not None
        try:
            run, created = await self._runs.open(document, decision.reason, "rule")
        except RunActive:
            return
        if created:
            log.info("run requested", run=run["run_id"], project=document.name, reason=decision.reason)
            await self.launch(run["run_id"])
        else:
            self._spent[document.name] = self._labels.version(document.name)

    async def _tend(self, project: str, flight: dict[str, Any]) -> None:
        run = flight["run_id"]
        status = await self.workflows.status(run)
        if status == "running" and not await self._is_stuck(run):
            return
        if status is None:
            await self.launch(run)
            return
        log.warning("run begun anew", run=run, workflow=status, restarts=flight["restarts"] + 1)
        if flight["restarts"] >= RESTARTS:
            order = {"run_id": run, "state": "FAILED", "error": f"its workflow ended as {status} {RESTARTS} times"}
            await self._pipeline.end(order)
            return
        await self._count_restart(project, run)
        if status == "running":
            await self.workflows.terminate(run)
        await self.workflows.purge(run)
        await self.launch(run)

    async def _is_stuck(self, run: str) -> bool:
        found = (await self.service.state.get([beat_key(run)])).get(beat_key(run))
        if found is None:
            return False
        silent = self.service.clock.now() - datetime.fromisoformat(found.value["at"])
        return silent.total_seconds() > self.settings.stuck_seconds

    async def _count_restart(self, project: str, run: str) -> None:
        async def work(unit: Unit) -> None:
            flight = await unit.get(flight_key(project)) or no_flight()
            if flight["run_id"] == run:
                unit.put(flight_key(project), {**flight, "restarts": flight["restarts"] + 1}, guard=True)

        await transact(self.service, work)

    def _counters(self, document: ProjectDocument, active: str | None) -> Counters:
        """Derived anew only when the labels, the schema or the active version have changed."""
        state = (self._labels.version(document.name), document.revision, active)
        known = self._counted.get(document.name)
        if known is None or known[0] != state:
            known = self._counted[document.name] = (state, self._labels.counters(document, active))
        return known[1]
