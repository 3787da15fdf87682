"""What the queue says of its tasks to the others. Pure."""

from typing import Any, TypeVar

from services.contracts.events import LabelAccepted, LabelRetracted, LabelSubmitted, TaskEvent
from services.contracts.ids import digest
from services.contracts.values import agree
from services.label_queue.consensus import canonical
from services.label_queue.tasks import Answer, Task

T = TypeVar("T", bound=TaskEvent)


def pseudonym(project: str, annotator: str) -> str:
    """The same name for the same person in one project, and another in another."""
    return f"ant_{digest(project, annotator)}"


def told(kind: type[T], task: Task, annotator: str | None = None, reason: str | None = None) -> T:
    """A task's change of hands, under its epoch."""
    return kind(
        project=task.project,
        sample_id=task.sample_id,
        task_id=task.id,
        lease_epoch=task.epoch,
        annotator=pseudonym(task.project, annotator) if annotator else None,
        lease_until=task.lease.until if task.lease else None,
        reason=reason,
    )


def submitted(task: Task, answer: Answer) -> LabelSubmitted:
    """An answer that counts."""
    changed = None if task.prelabel is None else not _unchanged(answer.value, task.prelabel.answer)
    return LabelSubmitted(
        project=task.project,
        sample_id=task.sample_id,
        annotation_id=answer.id,
        task_id=task.id,
        annotator=pseudonym(task.project, answer.annotator),
        value=answer.value,
        changed_from_prelabel=changed,
        seconds=answer.seconds,
        schema_version=answer.schema_version,
        suggestion=answer.suggestion,
        revises=answer.revises,
    )


def _unchanged(given: Any, suggested: Any) -> bool:
    """A box that was moved is changed, however little."""
    return canonical(given) == canonical(suggested) if isinstance(given, dict) else agree(given, suggested)


def accepted(task: Task) -> LabelAccepted:
    """The label of a task that has one, and content to go with it; a gold label is the queue's own."""
    if task.content is None or task.split == "gold":
        raise ValueError(f"{task.id} has no label to publish")
    return LabelAccepted(
        project=task.project,
        sample_id=task.sample_id,
        label_revision=task.label_revision,
        value=task.value,
        agreement=task.agreement,
        annotators=max(1, len({answer.annotator for answer in task.counted})),
        is_audit=task.is_audit,
        split=task.split,
        origin=task.origin,
        trigger=task.trigger,
        schema_version=task.schema_version,
        weight=task.weight,
        predicted=task.prelabel,
        model_version=task.model_version,
        content=task.content,
    )


def retracted(before: Task, why: str) -> LabelRetracted:
    """The label that `before` had is gone."""
    return LabelRetracted(
        project=before.project,
        sample_id=before.sample_id,
        label_revision=before.label_revision + 1,
        previous_revision=before.label_revision,
        why=why,
    )
