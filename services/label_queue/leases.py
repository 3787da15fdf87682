"""A task from the queue to its label: claims, leases with epochs, answers, and what undoes them. Pure.

`until` is written by the server and only says when a task may be taken from its holder. Who may answer is decided
by epochs: each claim, and each return of a closed task, adds one, and nothing ever takes one away.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from services.contracts.events import Content, SampleSelected, SampleWithdrawn
from services.contracts.ids import annotation_id, task_id
from services.contracts.problem import Problem
from services.contracts.values import agree
from services.label_queue.consensus import canonical, quorum
from services.label_queue.tasks import (
    FREE,
    OPEN,
    Answer,
    IllegalMove,
    Lease,
    LeaseLost,
    NotFree,
    Reveal,
    Split,
    State,
    Task,
)

S = State
HOLDERS = 32  # past leases that a task remembers, for answers that come late


def asked(selected: SampleSelected, now: datetime) -> Task:
    """The task that a selection makes."""
    blank = Task(
        id=task_id(selected.project, selected.sample_id),
        project=selected.project,
        sample_id=selected.sample_id,
        state=S.QUEUED,
        created_at=now,
        changed_at=now,
    )
    return blank.model_copy(update=_terms(blank, selected))


def ask_again(task: Task, selected: SampleSelected, now: datetime) -> Task | None:
    """The task, queued again if this selection may do that; None if it changes nothing."""
    returns = task.state == S.RETRACTED or (task.state == S.SKIPPED and task.may_return)
    if task.withdrawn or task.split != "train" or not returns or selected.round_id in task.rounds:
        return None
    again = task.move(task.waiting, now, epoch=task.epoch + 1, skip_reason=None, skipped_by=None, may_return=False)
    return again.model_copy(update=_terms(task, selected))


def _terms(task: Task, selected: SampleSelected) -> dict[str, Any]:
    return {
        "asked": True,
        "priority": selected.priority,
        # Answers that are there already stay, and at least one more is wanted.
        "required": max(selected.required_labels, task.required, len(task.counted))
        if task.counted
        else selected.required_labels,
        "content": selected.content,
        "round_id": selected.round_id,
        "rounds": (*task.rounds, selected.round_id),
        "trigger": selected.trigger,
        "is_audit": selected.is_audit,
        "weight": selected.weight,
        "model_version": selected.model_version,
        "prelabel": selected.prelabel,
        "reasons": tuple(selected.reasons),
        "ranked_at": None,
    }


def claim(task: Task, annotator: str, now: datetime, ttl: timedelta) -> Task:
    """The task, leased for `ttl` under the next epoch. Raises NotFree."""
    task = expire(task, now) or task
    if not task.fits(annotator):
        raise NotFree(task.id)
    epoch = task.epoch + 1
    holders = dict(sorted({**task.holders, epoch: annotator}.items())[-HOLDERS:])
    lease = Lease(holder=annotator, since=now, until=now + ttl)
    return task.move(S.LEASED, now, epoch=epoch, lease=lease, holders=holders)


def expire(task: Task, now: datetime) -> Task | None:
    """The task, waiting again, if its lease has run out; else None."""
    if task.state != S.LEASED or task.lease is None or task.lease.until > now:
        return None
    return task.move(task.waiting, now, lease=None)


def heartbeat(task: Task, annotator: str, epoch: int, now: datetime, ttl: timedelta, max_hold: timedelta) -> Task:
    """The lease lasts `ttl` from now, but no longer than `max_hold` from its claim. Raises LeaseLost."""
    lease = _own(task, annotator, epoch)
    last = lease.since + max_hold
    if now >= last:
        raise LeaseLost("A lease cannot be held for longer; claim again.")
    return task.change(now, lease=lease.model_copy(update={"until": max(lease.until, min(now + ttl, last))}))


def release(task: Task, annotator: str, epoch: int, now: datetime) -> Task:
    """Back to where it was before the claim. Raises LeaseLost."""
    _own(task, annotator, epoch)
    return task.move(task.waiting, now, lease=None)


def skip(task: Task, annotator: str, epoch: int, now: datetime, reason: str, may_return: bool = False) -> Task:
    """Closed without a label; a later round may ask again if `may_return`. Raises LeaseLost."""
    _own(task, annotator, epoch)
    return task.move(S.SKIPPED, now, lease=None, skip_reason=reason, skipped_by=annotator, may_return=may_return)


def unskip(task: Task, annotator: str, epoch: int, now: datetime) -> Task:
    """A task that waits again because whoever skipped it under this epoch thinks better of it. Raises LeaseLost."""
    if (task.state, task.skipped_by, task.epoch) != (S.SKIPPED, annotator, epoch) or task.withdrawn:
        raise LeaseLost("This is not skipped by you any more; claim again.")
    return task.move(task.waiting, now, skip_reason=None, skipped_by=None, may_return=False)


def _own(task: Task, annotator: str, epoch: int) -> Lease:
    lease = task.lease
    if task.state != S.LEASED or lease is None or lease.holder != annotator or task.epoch != epoch:
        raise LeaseLost()
    return lease


def submit(
    task: Task,
    annotator: str,
    epoch: int,
    value: Any,
    now: datetime,
    seconds: float | None = None,
    schema: int = 1,
    shown: Reveal = "never",
) -> tuple[Task, Answer]:
    """The task with the answer in it, and the answer: counted, or a draft if it came too late.

    `shown` is when the annotator sees what the model suggests.

    An answer under the task's epoch counts whenever it comes, and so does one under an older epoch as long as no
    label is accepted. Raises LeaseLost for an epoch that the annotator never held, and a 409 for a second answer.
    """
    name = annotation_id(task.id, annotator, epoch)
    if (known := next((a for a in task.answers if a.id == name), None)) is not None:
        return _same(task, known, value)
    if task.holders.get(epoch) != annotator or task.withdrawn:
        raise LeaseLost()
    late = task.state in (S.ACCEPTED, S.RETRACTED) or any(a.annotator == annotator for a in task.counted)
    kind = "draft" if late else "counted"
    answer = Answer(
        id=name,
        annotator=annotator,
        epoch=epoch,
        value=value,
        at=now,
        seconds=seconds,
        schema_version=schema,
        kind=kind,
        suggestion=shown,
    )
    kept = (*task.answers, answer)
    if late:
        return task.change(now, answers=kept), answer
    mine = task.lease is not None and task.lease.holder == annotator
    return settle(task.change(now, answers=kept, lease=None if mine else task.lease), now, schema), answer


def revise(
    task: Task, first: str, value: Any, now: datetime, seconds: float | None = None, schema: int = 1
) -> tuple[Task, Answer]:
    """The task with a second thought in the place of the counted answer `first`, and that second thought.

    Both answers stay in the record. Raises LeaseLost for an answer that does not count any more, or not by itself.
    """
    old = next(answer for answer in task.answers if answer.id == first)
    name = annotation_id(task.id, old.annotator, old.epoch, first)
    if (known := next((a for a in task.answers if a.id == name), None)) is not None:
        return _same(task, known, value)
    decided = task.withdrawn or task.resolved_by or task.origin == "import"
    if old.kind != "counted" or task.state == S.RETRACTED or decided:
        raise LeaseLost("This answer does not decide about the label any more; claim again to give another.")
    given = {"id": name, "value": value, "at": now, "seconds": seconds, "schema_version": schema, "revises": first}
    answer = old.model_copy(update=given)
    kept = [a.model_copy(update={"kind": "revised"}) if a.id == first else a for a in task.answers]
    after = task.change(now, answers=(*kept, answer))
    if task.state != S.ACCEPTED:
        return settle(after, now, schema), answer
    outcome = quorum([a.value for a in after.counted], task.required)
    if outcome.verdict == "accepted" and canonical(outcome.value) == canonical(task.value):
        return after.model_copy(update={"agreement": outcome.agreement}), answer
    return settle(_taken_back(after, outcome.verdict, now), now, schema), answer


def _taken_back(task: Task, verdict: str, now: datetime) -> Task:
    """An accepted task whose label its answers do not carry any more: open again, under the next epoch."""
    rest = task.move(S.RETRACTED, now, label_revision=task.label_revision + 1, value=None)
    rest = requeue(rest, now)
    return rest.model_copy(update={"state": S.DISPUTED if verdict == "disputed" else rest.waiting})


def _same(task: Task, known: Answer, value: Any) -> tuple[Task, Answer]:
    if known.kind == "void":
        raise LeaseLost("This answer was taken back; claim again to give another.")
    if known.kind == "counted" and canonical(known.value) != canonical(value):
        detail = "You have answered otherwise under this lease; take that answer back first."
        raise Problem(409, "already-answered", detail)
    return task, known


def settle(task: Task, now: datetime, schema: int) -> Task:
    """The state that the answers of a task without a label add up to."""
    outcome = quorum([answer.value for answer in task.counted], task.required)
    if outcome.verdict == "accepted":
        return accept(task, outcome.value, now, agreement=outcome.agreement, schema_version=schema)
    if task.state not in OPEN:
        return task
    if outcome.verdict == "disputed":
        return task.move(S.DISPUTED, now, lease=None)
    return task if task.lease is not None else task.move(task.waiting, now)


def accept(task: Task, value: Any, now: datetime, **fields: Any) -> Task:
    """The label is `value`, under the next label revision."""
    return task.move(S.ACCEPTED, now, value=value, label_revision=task.label_revision + 1, lease=None, **fields)


def resolve(task: Task, reviewer: str, value: Any, now: datetime, schema: int) -> Task:
    """A reviewer's word on a disputed task. Raises a 409 if it is not disputed."""
    if task.state != S.DISPUTED:
        raise IllegalMove(task.state, "disputed")
    votes = [agree(answer.value, value) for answer in task.counted] or [True]
    share = sum(votes) / len(votes)
    return accept(task, value, now, resolved_by=reviewer, agreement=share, schema_version=schema)


def retract(task: Task, now: datetime) -> Task:
    """The label no longer counts, and neither do the answers behind it. Raises a 409 if there is none."""
    if task.state != S.ACCEPTED:
        raise IllegalMove(task.state, "accepted")
    void = tuple(answer.model_copy(update={"kind": "void"}) for answer in task.answers)
    revision = task.label_revision + 1
    return task.move(S.RETRACTED, now, label_revision=revision, value=None, resolved_by=None, answers=void)


def requeue(task: Task, now: datetime) -> Task:
    """A retracted task waits again, under the next epoch."""
    return task.move(S.QUEUED, now, epoch=task.epoch + 1)


def undo(task: Task, answer: Answer, now: datetime) -> Task:
    """The task without this answer; its label goes if the other answers do not carry it."""
    kept: Sequence[Answer] = [a.model_copy(update={"kind": "void"}) if a.id == answer.id else a for a in task.answers]
    rest = task.change(now, answers=tuple(kept))
    if answer.kind != "counted" or task.withdrawn:
        return rest
    verdict = quorum([a.value for a in rest.counted], task.required).verdict
    if task.state == S.ACCEPTED:
        if verdict == "accepted" or task.resolved_by or task.origin == "import":
            return rest
        return _taken_back(rest, verdict, now)
    if task.state not in (*FREE, S.DISPUTED):
        return rest
    return rest.model_copy(update={"state": S.DISPUTED if verdict == "disputed" else rest.waiting})


def withdraw(task: Task, why: str, now: datetime) -> Task:
    """Closed for good: nobody is asked about this sample again."""
    fields = {"withdrawn": why, "lease": None, "epoch": task.epoch + 1}
    if task.state == S.ACCEPTED:
        return retract(task, now).change(now, **fields)
    if task.state in OPEN:
        return task.move(S.SKIPPED, now, skip_reason="withdrawn", may_return=False, **fields)
    return task.change(now, may_return=False, **fields)


def never(withdrawn: SampleWithdrawn, now: datetime) -> Task:
    """The tombstone of a sample that was withdrawn before it was ever asked about."""
    return Task(
        id=task_id(withdrawn.project, withdrawn.sample_id),
        project=withdrawn.project,
        sample_id=withdrawn.sample_id,
        state=S.SKIPPED,
        skip_reason="withdrawn",
        withdrawn=withdrawn.why,
        created_at=now,
        changed_at=now,
    )


def imported(
    known: Task | None,
    project: str,
    sample: str,
    content: Content,
    value: Any,
    split: Split,
    schema: int,
    now: datetime,
) -> Task:
    """The task with a label that was made elsewhere, whether or not anybody was asked here."""
    task = known or Task(
        id=task_id(project, sample), project=project, sample_id=sample, state=S.QUEUED, created_at=now, changed_at=now
    )
    fields = {"origin": "import", "split": split, "content": content, "agreement": 1.0, "schema_version": schema}
    return accept(task, value, now, **fields)
