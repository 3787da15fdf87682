"""The queue's unit: the question what one sample is, its states, and the moves that there are. Pure."""

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict

from services.contracts.events import Content, Top, Trigger
from services.contracts.problem import Problem

Split = Literal["train", "evaluation", "gold"]
Reveal = Literal["before", "after", "never"]


class State(StrEnum):
    """Where a task is."""

    QUEUED = "QUEUED"
    LEASED = "LEASED"
    LABELED = "LABELED"  # answered, and waiting for a further annotator
    DISPUTED = "DISPUTED"
    ACCEPTED = "ACCEPTED"
    SKIPPED = "SKIPPED"
    RETRACTED = "RETRACTED"


S = State
FREE = frozenset({S.QUEUED, S.LABELED})
OPEN = frozenset({S.QUEUED, S.LABELED, S.LEASED, S.DISPUTED})
MOVES: dict[State, frozenset[State]] = {
    S.QUEUED: frozenset({S.LEASED, S.LABELED, S.DISPUTED, S.ACCEPTED, S.SKIPPED}),
    S.LEASED: frozenset({S.QUEUED, S.LABELED, S.DISPUTED, S.ACCEPTED, S.SKIPPED}),
    S.LABELED: frozenset({S.LEASED, S.QUEUED, S.DISPUTED, S.ACCEPTED, S.SKIPPED}),
    S.DISPUTED: frozenset({S.QUEUED, S.LABELED, S.ACCEPTED, S.SKIPPED}),
    S.ACCEPTED: frozenset({S.RETRACTED}),
    S.SKIPPED: frozenset({S.QUEUED, S.LABELED, S.ACCEPTED}),
    S.RETRACTED: frozenset({S.QUEUED, S.ACCEPTED}),
}


class LeaseLost(Problem):
    """The lease is not the caller's any more."""

    def __init__(self, detail: str = "This lease is not yours any more; claim again.") -> None:
        super().__init__(409, "lease-lost", detail)


class IllegalMove(Problem):
    """The task is not in a state that this can be done in."""

    def __init__(self, state: State, what: str) -> None:
        super().__init__(409, f"not-{what}", f"The task is {state}, and so not {what}.")


class NotFree(Exception):
    """The task cannot be claimed by this annotator now."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class Lease(_Value):
    """Who works on a task: `since` the claim, until `until`. The epoch is the task's."""

    holder: str
    since: AwareDatetime
    until: AwareDatetime


class Answer(_Value):
    """What one annotator said under one lease.

    A draft came too late to count; a void one was taken back; a revised one gave way to the answer that `revises` it.
    `suggestion` is when the annotator was shown what the model says: before this answer, after it, or never.
    """

    id: str
    annotator: str
    epoch: int
    value: Any
    at: AwareDatetime
    seconds: float | None = None
    schema_version: int = 1
    kind: Literal["counted", "draft", "void", "revised"] = "counted"
    suggestion: Reveal = "never"
    revises: str | None = None


class Task(_Value):
    """The question what one sample is, with all that became of it.

    A gold sample's task holds the true answer; each annotator who is tested with it gets a copy, a *probe*.
    """

    id: str
    project: str
    sample_id: str
    state: State
    revision: int = 1
    epoch: int = 0
    priority: float = 0.0
    required: int = 1
    content: Content | None = None
    round_id: str = ""
    rounds: tuple[str, ...] = ()
    trigger: Trigger = "policy"
    is_audit: bool = False
    weight: float = 1.0
    model_version: str = "none"
    prelabel: Top | None = None
    reasons: tuple[str, ...] = ()
    ranked_at: AwareDatetime | None = None
    lease: Lease | None = None
    holders: dict[int, str] = {}
    answers: tuple[Answer, ...] = ()
    value: Any = None
    label_revision: int = 0
    agreement: float = 1.0
    resolved_by: str | None = None
    origin: Literal["queue", "import"] = "queue"
    split: Split = "train"
    schema_version: int = 1
    asked: bool = False
    skip_reason: str | None = None
    skipped_by: str | None = None
    may_return: bool = False
    withdrawn: str | None = None
    noted: bool = False
    probe: str | None = None
    created_at: AwareDatetime
    changed_at: AwareDatetime

    @property
    def counted(self) -> tuple[Answer, ...]:
        return tuple(answer for answer in self.answers if answer.kind == "counted")

    @property
    def is_open(self) -> bool:
        """Whether the queue still wants an answer."""
        return self.state in OPEN

    def fits(self, annotator: str) -> bool:
        """Whether this waits for an answer that the annotator may give."""
        return self.state in FREE and all(answer.annotator != annotator for answer in self.counted)

    def holds(self, annotator: str, now: datetime) -> bool:
        """Whether the annotator has a lease on this that has not run out."""
        return self.lease is not None and self.lease.holder == annotator and self.lease.until > now

    def change(self, now: datetime, **fields: Any) -> Self:
        return self.model_copy(update={"revision": self.revision + 1, "changed_at": now, **fields})

    def move(self, state: State, now: datetime, **fields: Any) -> Self:
        """Raises IllegalMove for one that the table does not have."""
        if state != self.state and state not in MOVES[self.state]:
            raise IllegalMove(self.state, state.lower())
        return self.change(now, state=state, **fields)

    @property
    def waiting(self) -> State:
        """The state in which this waits for an annotator."""
        return S.LABELED if self.counted else S.QUEUED
