"""What other services say: a sample is selected, or withdrawn, or a model serves."""

from collections.abc import Sequence
from datetime import datetime

from services.contracts.envelope import Message
from services.contracts.events import (
    ModelActivated,
    SampleSelected,
    SampleWithdrawn,
    TaskQueued,
    TaskSkipped,
)
from services.contracts.ids import task_id
from services.label_queue import facts, leases
from services.label_queue.store import Tasks, parsed, task_key
from services.label_queue.tasks import State, Task
from services.runtime.service import Service
from services.runtime.unit import Unit


class Queue:
    """Handlers over the task records."""

    def __init__(self, service: Service, tasks: Tasks) -> None:
        self.service = service
        self.tasks = tasks

    @property
    def now(self) -> datetime:
        return self.service.clock.now()

    async def enqueue(self, batch: Sequence[Message[SampleSelected]], unit: Unit) -> None:
        """One task a sample, whoever asks how often."""
        names = {message.id: task_id(message.event.project, message.event.sample_id) for message in batch}
        books = {project: await self.tasks.book(project) for project in await self.service.projects.of_batch(batch)}
        new = {names[message.id] for message in batch if names[message.id] not in books[message.event.project].entries}
        await unit.get_new(map(task_key, new))
        found = await unit.get_many(map(task_key, names.values()))
        for record in found.values():
            task = parsed(record)
            (await self.tasks.book(task.project)).observe(task)
        opened: dict[str, Task] = {}
        for message in batch:
            record = await unit.get(task_key(names[message.id]))
            task = self._asked(message, parsed(record) if record else None, unit)
            if task:
                opened[task.id] = task
        if opened:
            await self.tasks.queue(list(opened.values()), unit)

    def _asked(self, message: Message[SampleSelected], known: Task | None, unit: Unit) -> Task | None:
        event, now = message.event, self.now
        if known and known.split == "gold" and not known.noted:
            # Whoever selected it waits for an answer that will never come from an annotator.
            self.tasks.write(known.change(now, noted=True), unit)
            unit.emit(facts.told(TaskSkipped, known, reason="gold"), message, task_key(known.id))
        task = leases.ask_again(known, event, now) if known else leases.asked(event, now)
        if task:
            self.tasks.write(task, unit, message.origin)
            unit.emit(facts.told(TaskQueued, task), message, task_key(task.id))
        return task

    async def withdraw(self, batch: Sequence[Message[SampleWithdrawn]], unit: Unit) -> None:
        """Close the task, or see to it that there never is one."""
        for project in await self.service.projects.of_batch(batch):
            await self.tasks.book(project)
        await unit.get_many(task_key(task_id(m.event.project, m.event.sample_id)) for m in batch)
        for message in batch:
            event, key = message.event, task_key(task_id(message.event.project, message.event.sample_id))
            record = await unit.get(key)
            if record is None:
                self.tasks.write(leases.never(event, self.now), unit)
                continue
            before = parsed(record)
            if before.withdrawn:
                continue
            after = leases.withdraw(before, event.why, self.now)
            self.tasks.write(after, unit)
            if before.state == State.ACCEPTED and before.split != "gold":
                unit.emit(facts.retracted(before, f"withdrawn: {event.why}"), message, key)
            elif before.is_open:
                unit.emit(facts.told(TaskSkipped, after, reason="withdrawn"), message, key)

    async def activate(self, batch: Sequence[Message[ModelActivated]], unit: Unit) -> None:
        """Remember which model serves; the highest epoch is true."""
        found = await unit.get_many(_active_key(message.event.project) for message in batch)
        for message in batch:
            event, key = message.event, _active_key(message.event.project)
            known = found.get(key)
            if known is None or known["epoch"] < event.activation_epoch:
                found[key] = {"version": event.version, "epoch": event.activation_epoch}
                unit.put(key, found[key], guard=True)

    async def active_version(self, project: str) -> str:
        entry = (await self.service.state.get([_active_key(project)])).get(_active_key(project))
        return entry.value["version"] if entry else "none"


def _active_key(project: str) -> str:
    return f"active:{project}"
