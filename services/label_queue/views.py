"""What callers are shown of a task: annotators nothing that could sway them, reviewers all."""

from typing import Any

from services.label_queue.book import Book
from services.label_queue.schemas import Schema
from services.label_queue.suggestions import suggestion
from services.label_queue.tasks import OPEN, Answer, Reveal, State, Task


def to_label(task: Task, schema: Schema, shown: Reveal) -> dict[str, Any]:
    """A claimed task; without the field `suggestion` unless it is `shown` before the answer."""
    content = task.content
    body = {
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
    if shown == "before":
        body["suggestion"] = suggestion(task)
    return body


def lease(task: Task) -> dict[str, Any] | None:
    """The epoch to answer with, and until when the task is kept."""
    if task.lease is None:
        return None
    return {"epoch": task.epoch, "until": task.lease.until.isoformat(), "holder": task.lease.holder}


def answered(task: Task, answer: Answer) -> dict[str, Any]:
    """What an annotator hears back; with the suggestion, unless the task is blind for them."""
    body = {
        "id": answer.id,
        "task_id": task.id,
        "sample_id": task.sample_id,
        "epoch": answer.epoch,
        "value": answer.value,
        "schema_version": answer.schema_version,
        "state": task.state.value,
        "label_revision": task.label_revision,
    }
    if answer.revises:
        body["revises"] = answer.revises
    if answer.suggestion != "never":
        body["suggestion"] = suggestion(task)
    return body


def full(task: Task, suggested: Any = None) -> dict[str, Any]:
    """All of it, for reviewers; with the answer that is `suggested` to them when the annotators disagree."""
    shown = task.model_dump(mode="json", exclude={"lease", "holders", "noted", "rounds", "asked", "required"})
    more = {"suggested_answer": suggested} if suggested else {}
    return {**shown, "required_labels": task.required, "lease": lease(task), **more}


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
    """Counts by state; `asked` is every sample that was ever queued, `queued` what is free for somebody now.

    After a start with very many tasks, `unread` of them are counted as they were noted last, until they are read.
    """
    by_class = {label: count for label, count in sorted(book.classes.items()) if count}
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
        "gold": len(book.gold),
        "unread": len(book.unread),
        "by_class": by_class,
        "model_version": active,
    }
