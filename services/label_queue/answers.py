"""Answers and what becomes of them: labels by quorum, a reviewer's word, second thoughts, retractions."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.contracts.events import Event, TaskLeased, TaskQueued
from services.contracts.ids import annotation_id, task_id
from services.contracts.problem import Problem, not_found
from services.contracts.projects import ProjectDocument
from services.label_queue import facts, leases
from services.label_queue.claims import Claims
from services.label_queue.store import SEGMENTS_LOCK, Tasks, hold_key, say, task_key
from services.label_queue.suggestions import reveal
from services.label_queue.tasks import Answer, LeaseLost, NotFree, Reveal, State, Task
from services.runtime.service import transact
from services.runtime.unit import Unit


@dataclass(frozen=True)
class Submission:
    """One annotator's answer under one lease; `seconds` is how long it took."""

    task: str
    annotator: str
    epoch: int
    value: Any
    schema_version: int
    seconds: float | None = None
    revises: str | None = None  # the answer of one's own that this takes the place of
    shown: Reveal | None = None  # when another tool has shown the suggestion; none: as the project says


class Answers:
    """What can be said of a task, and unsaid."""

    def __init__(self, tasks: Tasks, claims: Claims) -> None:
        self._tasks = tasks
        self._claims = claims
        self._service = tasks.service

    @property
    def now(self) -> datetime:
        return self._service.clock.now()

    async def submit(
        self, document: ProjectDocument, given: Submission, check: Callable[[], None]
    ) -> tuple[Task, Answer, bool]:
        """The task, the answer, and whether it is new; `check` is what a new one must pass.

        Raises a 404, or a 409 `lease-lost` with the draft kept.
        """
        kept: list[Answer] = []

        def move(before: Task, unit: Unit) -> Task:
            if not _repeats(before, given):
                check()
            after, answer = self._answered(document, before, given)
            kept[:] = [answer]
            if after is before:
                return before
            pointer = {"task": before.id, "project": document.name, "annotator": given.annotator}
            unit.put(_pointer(answer.id), pointer)
            if not after.probe:
                say(unit, after, *_said(before, after, answer))
            return after

        how = {"annotator": given.annotator, "reopens": given.revises is not None}
        before, after = await self._tasks.change(document.name, given.task, move, **how)
        (answer,) = kept
        if answer.kind == "draft":
            raise LeaseLost("The task has its label already; your answer is kept as a draft and does not count.")
        return after, answer, after is not before

    def _answered(self, document: ProjectDocument, before: Task, given: Submission) -> tuple[Task, Answer]:
        how = (given.value, self.now, given.seconds, given.schema_version)
        if given.revises is None:
            shown = given.shown or reveal(document, before, given.annotator)
            return leases.submit(before, given.annotator, given.epoch, *how, shown)
        mine = (answer.id for answer in before.answers if answer.annotator == given.annotator)
        if given.revises not in mine:
            raise not_found("annotation", given.revises)
        return leases.revise(before, given.revises, *how)

    async def resolve(self, project: str, name: str, reviewer: str, value: Any, schema: int) -> Task:
        """The task with a reviewer's label. Raises a 404, or a 409 if it is not disputed."""

        def move(before: Task, unit: Unit) -> Task:
            after = leases.resolve(before, reviewer, value, self.now, schema)
            unit.emit(facts.accepted(after), guard=task_key(name))
            return after

        return (await self._tasks.change(project, name, move))[1]

    async def retract(self, project: str, sample: str, why: str, again: bool = True) -> Task:
        """The task, waiting `again` or closed; a sample for evaluation is never asked. Raises a 404, or a 409."""
        name = task_id(project, sample)

        def move(before: Task, unit: Unit) -> Task:
            if before.split == "gold":
                raise Problem(409, "not-accepted", "A gold label is not in use as a label.")
            after = leases.retract(before, self.now)
            unit.emit(facts.retracted(before, why), guard=task_key(name))
            if again and before.split == "train":
                after = leases.requeue(after, self.now)
                unit.emit(facts.told(TaskQueued, after, reason="retracted"), guard=task_key(name))
            return after

        try:
            return (await self._tasks.change(project, name, move, reopens=True))[1]
        except Problem as problem:
            raise (not_found("sample", sample) if problem.status == 404 else problem) from problem

    async def undo(self, project: str, annotation: str, who: str, others: bool) -> Task:
        """The task without the answer, leased again to whoever takes back their own.

        `others`: may take back other people's answers. Raises a 404, and a 403 without it.
        """
        pointer = (await self._service.state.get([_pointer(annotation)])).get(_pointer(annotation))
        if pointer is None or pointer.value["project"] != project:
            raise not_found("annotation", annotation)
        name, annotator = pointer.value["task"], pointer.value.get("annotator")
        await self._tasks.book(project)

        async def work(unit: Unit) -> Task:
            before = await self._tasks.read(unit, project, name, annotator)
            answer = next((a for a in before.answers if a.id == annotation), None)
            if answer is None:
                raise not_found("annotation", annotation)
            if answer.annotator != who and not others:
                raise Problem(403, "forbidden", "This is somebody else's answer; a reviewer may take it back.")
            if answer.kind == "void":
                return before
            after, said = self._undone(before, answer)
            return await self._again(before, after, said, unit, who if answer.annotator == who else None)

        async with self._service.lock(SEGMENTS_LOCK):
            return await transact(self._service, work)

    async def unskip(self, project: str, name: str, who: str, epoch: int) -> Task:
        """A task that was skipped, leased again to whoever skipped it. Raises a 404, or a 409 `lease-lost`."""
        await self._tasks.book(project)

        async def work(unit: Unit) -> Task:
            before = await self._tasks.read(unit, project, name, who)
            after = leases.unskip(before, who, epoch, self.now)
            return await self._again(before, after, [facts.told(TaskQueued, after, reason="unskipped")], unit, who)

        async with self._service.lock(SEGMENTS_LOCK):
            return await transact(self._service, work)

    async def _again(self, before: Task, after: Task, said: list[Event], unit: Unit, holder: str | None) -> Task:
        """Write what may be open again, and lease it to its `holder` if it is."""
        if after.is_open and holder:
            after, lease = await self._leased_again(after, holder, unit)
            said = [*said, *lease]
        say(unit, after, *said)
        self._tasks.write(after, unit)
        if after.is_open and not before.is_open and not after.probe:
            await self._tasks.queue([after], unit)
        return after

    def _undone(self, before: Task, answer: Answer) -> tuple[Task, list[Event]]:
        after = leases.undo(before, answer, self.now)
        if before.state != State.ACCEPTED or after.state == State.ACCEPTED:
            return after, []
        return after, [facts.retracted(before, "undone"), facts.told(TaskQueued, after, reason="undone")]

    async def _leased_again(self, task: Task, annotator: str, unit: Unit) -> tuple[Task, list[Event]]:
        try:
            leased = leases.claim(task, annotator, self.now, self._claims.ttl)
        except NotFree:
            return task, []
        key = hold_key(task.project, annotator)
        hold = await unit.get(key) or {"tasks": []}
        unit.put(key, {**hold, "tasks": [*hold["tasks"], task.id]}, guard=True)
        return leased, [facts.told(TaskLeased, leased, annotator)]


def _repeats(task: Task, given: Submission) -> bool:
    """Whether the task has this answer already; it is judged by what it was, and not by the labels of today."""
    if given.revises is None:
        name = annotation_id(task.id, given.annotator, given.epoch)
        return any(answer.id == name for answer in task.answers)
    return any(a.revises == given.revises and a.annotator == given.annotator for a in task.answers)


def _said(before: Task, after: Task, answer: Answer) -> Iterator[Event]:
    if answer.kind == "counted":
        yield facts.submitted(after, answer)
    if before.state == State.ACCEPTED and after.label_revision > before.label_revision:
        yield facts.retracted(before, "revised")
    if after.state == State.ACCEPTED and after.label_revision > before.label_revision:
        yield facts.accepted(after)
    elif before.state == State.ACCEPTED and after.is_open:
        yield facts.told(TaskQueued, after, reason="revised")


def _pointer(annotation: str) -> str:
    return f"ann:{annotation}"
