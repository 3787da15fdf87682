"""Label schemas: which labels a project has, and what becomes of labels that a change leaves without a place."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from services.contracts.events import TaskQueued, Top
from services.contracts.problem import Problem, invalid
from services.contracts.projects import ProjectDocument
from services.contracts.tasks import answer_of
from services.contracts.values import BadValue, checked, classes_of
from services.label_queue import facts, leases
from services.label_queue.interchange.label import of_cell
from services.label_queue.store import Tasks, task_key
from services.label_queue.tasks import State, Task
from services.runtime.http import check_match
from services.runtime.service import transact
from services.runtime.unit import Unit

Rule = Literal["keep", "requeue", "prelabel"]
Label = Annotated[str, Field(min_length=1, max_length=200)]


class SchemaChange(BaseModel):
    """The labels from now on, and the rule for accepted labels that are not among them."""

    model_config = ConfigDict(extra="forbid")

    labels: list[Label] = Field(min_length=1, max_length=1000)
    on_change: Rule | None = None

    @field_validator("labels")
    @classmethod
    def _distinct(cls, labels: list[str]) -> list[str]:
        if len(set(labels)) != len(labels) or not all(label.strip() for label in labels):
            raise ValueError("labels must be distinct and not empty")
        return labels


@dataclass(frozen=True)
class Schema:
    """The task of a project, and its labels at one version."""

    task: str
    labels: Sequence[str]
    version: int
    on_change: Rule | None = None

    def check(self, value: Any, version: int | None = None) -> Any:
        """The answer in its one form (`values.checked`).

        Raises a 409 for another version of the schema, and a 422 with a pointer for what is no answer to the task.
        """
        if version is not None and version != self.version:
            detail = f"The labels are at version {self.version}, your answer is for {version}; load them again."
            raise Problem(409, "schema-changed", detail)
        try:
            return checked(value, self.task, self.labels)
        except BadValue as error:
            raise invalid(f"/value{error.pointer}", error.code, str(error)) from error

    def read(self, value: Any) -> Any:
        """The same for what comes out of a table, where an answer that is more than a label is JSON."""
        return self.check(value if answer_of(self.task) == "classification" else of_cell(value))

    def known(self, label: str, pointer: str) -> None:
        """Raises a 422 for a label that there is not."""
        if label not in self.labels:
            known = ", ".join(self.labels[:20]) + (", ..." if len(self.labels) > 20 else "")
            raise invalid(pointer, "unknown-label", f"{label!r:.100} is none of the labels: {known}.")


class Schemas:
    """The schema records; a project without one has the labels of its document."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._service = tasks.service

    async def of(self, document: ProjectDocument) -> Schema:
        """Whichever is newer: the project's own labels, or what was put here."""
        entry = (await self._service.state.get([_key(document.name)])).get(_key(document.name))
        return _newer(document, entry.value if entry else None)

    async def put(self, document: ProjectDocument, change: SchemaChange, if_match: str | None) -> Schema:
        """The next version. Raises 428, 412, or a 422 when used labels go without a rule."""
        book = await self._tasks.book(document.name)
        await self._tasks.refresh(document.name)

        async def work(unit: Unit) -> Schema:
            record = await unit.get(_key(document.name))
            now = _newer(document, record)
            check_match(if_match, etag(now))
            if len(change.labels) < 2 and answer_of(document.task) == "classification":
                raise invalid("/labels", "too-few", "A classification is between two labels at least.")
            used = {label for label, count in book.classes.items() if count > 0}
            gone = sorted(used - set(change.labels))
            if gone and change.on_change is None:
                detail = f"{', '.join(gone)}: accepted labels have no place in this; say what becomes of them."
                raise invalid("/on_change", "used-label", detail)
            version = now.version + 1
            pending = bool(gone) and change.on_change != "keep"
            value = {"labels": change.labels, "version": version, "on_change": change.on_change, "pending": pending}
            unit.put(_key(document.name), value, guard=True)
            return Schema(document.task, change.labels, version, change.on_change)

        schema: Schema = await transact(self._service, work)
        await self.carry_out(document.name)
        return schema

    async def carry_out_all(self) -> None:
        """Go on with what a crash has interrupted."""
        for project in self._tasks.books:
            await self.carry_out(project)

    async def carry_out(self, project: str) -> None:
        """Queue again what the last change has left without a label of the schema."""
        entry = (await self._service.state.get([_key(project)])).get(_key(project))
        if entry is None or not entry.value["pending"]:
            return
        record = entry.value
        book = await self._tasks.book(project)
        kept = set(record["labels"])
        names = [e.id for e in book.entries.values() if e.state == State.ACCEPTED and not kept.issuperset(e.classes)]
        for name in names:
            await self._ask_again(project, name, kept, suggest=record["on_change"] == "prelabel")

        async def done(unit: Unit) -> None:
            now = await unit.get(_key(project))
            if now and now["version"] == record["version"]:
                unit.put(_key(project), {**now, "pending": False}, guard=True)

        await transact(self._service, done)

    async def _ask_again(self, project: str, name: str, kept: set[str], suggest: bool) -> None:
        def move(before: Task, unit: Unit) -> Task:
            if before.state != State.ACCEPTED or before.split == "gold" or kept.issuperset(classes_of(before.value)):
                return before
            now = self._service.clock.now()
            after = leases.retract(before, now)
            unit.emit(facts.retracted(before, "the label schema has changed"), guard=task_key(name))
            if before.split != "train":
                return after
            after = leases.requeue(after, now)
            if suggest:
                old = _as_said(before.value)
                after = after.model_copy(update={"prelabel": old, "model_version": "none"})
            unit.emit(facts.told(TaskQueued, after, reason="schema"), guard=task_key(name))
            return after

        await self._tasks.change(project, name, move, reopens=True)


def etag(schema: Schema) -> str:
    return f'"{schema.version}"'


def _as_said(value: Any) -> Top:
    """A label that was accepted, as if a model had said it."""
    if isinstance(value, str):
        return Top(label=value, confidence=1.0)
    return Top(label=next(iter(classes_of(value)), ""), confidence=1.0, value=value)


def _newer(document: ProjectDocument, record: dict[str, Any] | None) -> Schema:
    if record and record["version"] >= document.schema_version:
        return Schema(document.task, record["labels"], record["version"], record["on_change"])
    return Schema(document.task, document.labels, document.schema_version)


def _key(project: str) -> str:
    return f"schema:{project}"
