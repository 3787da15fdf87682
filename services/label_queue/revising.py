"""What select-uncertain has learnt since it asked: another rank for a question, or that it need not be answered."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from services.contracts.envelope import Message
from services.contracts.events import SampleEvicted, SampleReranked, TaskSkipped
from services.contracts.ids import task_id
from services.label_queue import facts
from services.label_queue.store import Tasks, parsed, task_key
from services.label_queue.tasks import State, Task
from services.runtime.service import Service
from services.runtime.unit import Unit


class Revising:
    """Handlers over tasks that nobody has touched yet; whoever is at one is not disturbed."""

    def __init__(self, service: Service, tasks: Tasks) -> None:
        self._service = service
        self._tasks = tasks

    async def rerank(self, batch: Sequence[Message[SampleReranked]], unit: Unit) -> None:
        """SampleReranked: a task that waits moves to another place in the queue."""
        found = await self._found(batch, unit)
        moved: dict[str, Task] = {}
        for message in batch:
            event, name = message.event, task_id(message.event.project, message.event.sample_id)
            task = found.get(name)
            after = task and reranked(task, event, message.time, self._service.clock.now())
            if after:
                found[name] = moved[name] = after
                self._tasks.write(after, unit)
        if moved:
            await self._tasks.queue(list(moved.values()), unit)

    async def evict(self, batch: Sequence[Message[SampleEvicted]], unit: Unit) -> None:
        """SampleEvicted: a task that waits is closed; a later round may ask again."""
        found = await self._found(batch, unit)
        for message in batch:
            event, name = message.event, task_id(message.event.project, message.event.sample_id)
            task = found.get(name)
            after = task and evicted(task, event, self._service.clock.now())
            if after:
                found[name] = after
                self._tasks.write(after, unit)
                unit.emit(facts.told(TaskSkipped, after, reason=event.why), message, task_key(name))

    async def _found(
        self, batch: Sequence[Message[SampleReranked] | Message[SampleEvicted]], unit: Unit
    ) -> dict[str, Task]:
        for project in await self._service.projects.of_batch(batch):
            await self._tasks.book(project)
        names = {task_key(task_id(m.event.project, m.event.sample_id)) for m in batch}
        return {task.id: task for record in (await unit.get_many(names)).values() for task in [parsed(record)]}


def reranked(task: Task, event: SampleReranked, said: datetime, now: datetime) -> Task | None:
    """The task at its new place; None if somebody is at it, has answered, or it is another round's.

    Also None if a model has spoken that did so later than `said`: events come in any order.
    """
    late = task.ranked_at is not None and said < task.ranked_at
    if late or not _untouched(task, event.round_id) or task.model_version == event.model_version:
        return None
    fields: dict[str, Any] = {"priority": event.priority, "prelabel": event.prelabel, "ranked_at": said}
    if event.reasons:
        fields["reasons"] = tuple(event.reasons)
    return task.change(now, model_version=event.model_version, **fields)


def evicted(task: Task, event: SampleEvicted, now: datetime) -> Task | None:
    """The task, closed without an answer; None if somebody is at it, has answered, or it is another round's."""
    if not _untouched(task, event.round_id):
        return None
    return task.move(State.SKIPPED, now, skip_reason=event.why, may_return=True)


def _untouched(task: Task, round_id: str) -> bool:
    return task.state == State.QUEUED and not task.counted and task.round_id == round_id and not task.withdrawn
