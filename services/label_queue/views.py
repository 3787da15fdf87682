"""What callers are shown of a task: annotators nothing that could sway them, reviewers all."""

import csv
import io
from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal

import orjson

from services.contracts.projects import ProjectDocument
from services.label_queue.annotators import summary
from services.label_queue.book import Book
from services.label_queue.consensus import agreement
from services.label_queue.schemas import Schema
from services.label_queue.store import Tasks
from services.label_queue.suggestions import SHOWN_BEFORE, Suggestions, policy_of
from services.label_queue.tasks import OPEN, Answer, State, Task

BULK = 500  # tasks read at a time for an export

COLUMNS = (
    "sample_id",
    "task_id",
    "value",
    "label_revision",
    "split",
    "origin",
    "agreement",
    "annotators",
    "schema_version",
    "is_audit",
    "trigger",
    "weight",
    "model_version",
    "predicted",
    "uri",
    "sha256",
    "media_type",
    "accepted_at",
)


def policy(task: str, document: ProjectDocument) -> Suggestions:
    """What the annotator of a task learns of the model's opinion."""
    return policy_of(task, document.suggestions, document.blind_share)


def to_label(task: Task, schema: Schema, document: ProjectDocument) -> dict[str, Any]:
    """A claimed task. Where the answer is to be given without the suggestion, the suggestion is not in it."""
    content = task.content
    shown = {
        "id": task.id,
        "sample_id": task.sample_id,
        "content": {
            "url": f"/v1/samples/{task.sample_id}/content",
            "media_type": content.media_type if content else None,
            "sha256": content.sha256 if content else None,
        },
        "labels": list(schema.labels),
        "schema_version": schema.version,
        "lease": lease(task),
    }
    if policy(task.id, document) in SHOWN_BEFORE:
        shown["suggestion"] = _suggestion(task)
    return shown


def lease(task: Task) -> dict[str, Any] | None:
    """The epoch to answer with, and until when the task is kept."""
    if task.lease is None:
        return None
    return {"epoch": task.epoch, "until": task.lease.until.isoformat(), "holder": task.lease.holder}


def answered(task: Task, answer: Answer, document: ProjectDocument) -> dict[str, Any]:
    """What an annotator hears back."""
    shown = {
        "id": answer.id,
        "task_id": task.id,
        "sample_id": task.sample_id,
        "epoch": answer.epoch,
        "value": answer.value,
        "schema_version": answer.schema_version,
        "state": task.state.value,
        "label_revision": task.label_revision,
    }
    if policy(task.id, document) != "blind":
        shown["suggestion"] = _suggestion(task)
    return shown


def full(task: Task) -> dict[str, Any]:
    """All of it, for reviewers."""
    shown = task.model_dump(mode="json", exclude={"lease", "holders", "noted", "rounds", "asked", "required"})
    return {**shown, "required_labels": task.required, "lease": lease(task)}


def plain(task: Task) -> dict[str, Any]:
    """What an annotator may know before answering: not the suggestion, nor why the sample was chosen."""
    return {
        "id": task.id,
        "sample_id": task.sample_id,
        "state": task.state.value,
        "epoch": task.epoch,
        "required_labels": task.required,
        "answers": len(task.counted),
        "value": task.value,
        "label_revision": task.label_revision,
        "lease": lease(task),
        "created_at": task.created_at.isoformat(),
        "changed_at": task.changed_at.isoformat(),
    }


def stats(book: Book, active: str) -> dict[str, Any]:
    """Counts by state; `asked` is every sample that was ever queued, `queued` what is free for somebody now."""
    by_class = {str(orjson.loads(label)): count for label, count in sorted(book.classes.items()) if count}
    return {
        "queued": book.states[State.QUEUED] + book.states[State.LABELED],
        "labeled": book.states[State.LABELED],
        "leased": book.states[State.LEASED],
        "accepted": book.states[State.ACCEPTED],
        "skipped": book.states[State.SKIPPED],
        "disputed": book.states[State.DISPUTED],
        "retracted": book.states[State.RETRACTED],
        "open": sum(book.states[state] for state in OPEN),
        "asked": book.asked,
        "imported": book.imported,
        "by_class": by_class,
        "model_version": active,
    }


async def agreed(tasks: Tasks, document: ProjectDocument) -> dict[str, Any]:
    """Agreement over all tasks that more than one annotator has answered."""
    book = await tasks.book(document.name)
    names = [entry.id for entry in book.entries.values() if entry.answers > 1]
    found: list[dict[str, Any]] = []
    for start in range(0, len(names), BULK):
        rows = await tasks.many(names[start : start + BULK])
        found += [{answer.annotator: answer.value for answer in task.counted} for task in rows]
    return {"tasks": len(found), **agreement(found)}


async def annotators(tasks: Tasks, document: ProjectDocument, only: str | None) -> list[dict[str, Any]]:
    """How annotators fare, over all tasks that were answered."""
    book = await tasks.book(document.name)
    names = [entry.id for entry in book.entries.values() if entry.answers]
    found: list[Task] = []
    for start in range(0, len(names), BULK):
        found += await tasks.many(names[start : start + BULK])
    return summary(found, only)


async def export(tasks: Tasks, document: ProjectDocument, form: Literal["jsonl", "csv"]) -> AsyncIterator[bytes]:
    """Every accepted label, in the order of task ids, a bulk at a time."""
    book = await tasks.book(document.name)
    if form == "csv":
        yield _csv([COLUMNS])
    after: str | None = None
    while True:
        names, more = book.page([State.ACCEPTED], after, BULK)
        rows = [_row(task) for task in await tasks.many(names) if task.state == State.ACCEPTED]
        if rows and form == "csv":
            yield _csv([[row[name] for name in COLUMNS] for row in rows])
        elif rows:
            yield b"".join(orjson.dumps(row) + b"\n" for row in rows)
        if more is None:
            return
        after = more


def _row(task: Task) -> dict[str, Any]:
    content = task.content
    facts = (
        task.sample_id,
        task.id,
        task.value,
        task.label_revision,
        task.split,
        task.origin,
        task.agreement,
        max(1, len(task.counted)),
        task.schema_version,
        task.is_audit,
        task.trigger,
        task.weight,
        task.model_version,
        task.prelabel.label if task.prelabel else None,
        content.uri if content else None,
        content.sha256 if content else None,
        content.media_type if content else None,
        task.changed_at.isoformat(),
    )
    return dict(zip(COLUMNS, facts, strict=True))


def _csv(rows: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _suggestion(task: Task) -> dict[str, Any] | None:
    return task.prelabel.model_dump() if task.prelabel else None
