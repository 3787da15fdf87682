"""What is noticed between runs, and kept until one answers it: scheduled looks, and drift of the scores."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog

from services.contracts.envelope import Message
from services.contracts.events import ScoresSummarised
from services.contracts.projects import ProjectDocument
from services.retrain_trigger.drift import added, no_drift
from services.retrain_trigger.models import no_pointer, pointer_key
from services.retrain_trigger.trigger import Marks
from services.runtime.service import Service, transact
from services.runtime.unit import Unit

log = structlog.get_logger()

PREFIX = "retrain-"  # of the scheduler's jobs; the project follows


def marks_key(project: str) -> str:
    return f"mark:{project}"


def drift_key(project: str) -> str:
    return f"drift:{project}"


def no_marks() -> dict[str, Any]:
    """`drift_at`: when drift was last noticed, answered or not."""
    return {"scheduled": None, "drift": None, "drift_at": None}


def read_marks(record: Mapping[str, Any] | None) -> Marks:
    """The marks as the retrain rule sees them."""
    if record is None:
        return Marks()
    return Marks(record["scheduled"] and datetime.fromisoformat(record["scheduled"]), record["drift"])


async def answer(unit: Unit, project: str) -> None:
    """A run has begun: what was noticed is answered by it."""
    record = await unit.get(marks_key(project))
    if record and (record["scheduled"] or record["drift"]):
        unit.put(marks_key(project), {**record, "scheduled": None, "drift": None}, guard=True)


class Noticing:
    """The scheduler's calls and infer's summaries, made into marks; whether a run starts is the rule's to say."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._scheduled: dict[str, str] = {}

    async def arrange(self) -> None:
        """Have the scheduler call by every project's schedule, and for no other."""
        wanted = {one.name: one.trigger.schedule for one in self._service.projects.all() if one.trigger.schedule}
        for project, schedule in wanted.items():
            if self._scheduled.get(project) != schedule:
                await self._service.jobs.schedule(PREFIX + project, schedule)
                self._scheduled[project] = schedule
        for project in self._scheduled.keys() - wanted.keys():
            await self._service.jobs.cancel(PREFIX + project)
            del self._scheduled[project]

    async def called(self, name: str) -> None:
        """The scheduler's call: a mark, and nothing else. For a project without a schedule it is the last one."""
        project = name.removeprefix(PREFIX)
        document = await self._service.projects.get(project) if name.startswith(PREFIX) else None
        if document is None or not document.trigger.schedule:
            await self._service.jobs.cancel(name)
            return
        now = self._service.clock.now().isoformat()

        async def work(unit: Unit) -> None:
            record = await unit.get(marks_key(project)) or no_marks()
            unit.put(marks_key(project), {**record, "scheduled": now}, guard=True)

        await transact(self._service, work)

    async def spend(self, project: str) -> None:
        """A scheduled look has found nothing new."""

        async def work(unit: Unit) -> None:
            record = await unit.get(marks_key(project))
            if record and record["scheduled"]:
                unit.put(marks_key(project), {**record, "scheduled": None}, guard=True)

        await transact(self._service, work)

    async def summarised(self, batch: Sequence[Message[ScoresSummarised]], unit: Unit) -> None:
        """ScoresSummarised: of the champion's scores, window after window is held against the first."""
        for message in batch:
            document = await self._service.projects.of_event(message.event)
            if document.trigger.drift is not None:
                await self._look(unit, document, message.event)

    async def _look(self, unit: Unit, document: ProjectDocument, event: ScoresSummarised) -> None:
        rule, project = document.trigger.drift, document.name
        pointer = await unit.get(pointer_key(project)) or no_pointer()
        if rule is None or event.model_version != pointer["version"]:
            return
        state = await unit.get(drift_key(project))
        if state is None or state["version"] != event.model_version:
            state = no_drift(event.model_version)
        after = added(state, event.key, event.confidence, rule.window, rule.psi)
        unit.put(drift_key(project), after, guard=True)
        if after["windows"] == state["windows"] or not after["last"]["drift"]:
            return
        record = await unit.get(marks_key(project)) or no_marks()
        now = self._service.clock.now()
        quiet = timedelta(seconds=rule.cooldown_seconds)
        if record["drift_at"] and now - datetime.fromisoformat(record["drift_at"]) < quiet:
            return
        found = {**after["last"], "version": event.model_version, "at": now.isoformat()}
        log.warning("drift", project=project, **found)
        unit.put(marks_key(project), {**record, "drift": found, "drift_at": now.isoformat()}, guard=True)
