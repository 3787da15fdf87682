"""What is known of one sample's label, and what it may be used for. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Self
from zlib import crc32

from pydantic import AwareDatetime, BaseModel, ConfigDict

from services.contracts.events import Content, LabelAccepted, LabelRetracted, Top, Trigger
from services.contracts.ids import sha256
from services.contracts.tasks import Task, answer_of
from services.contracts.values import BadValue, agree, checked, classes_of
from services.retrain_trigger.trigger import Audits, Counters

SHARDS = 64
GATE_SHARE = 0.2
"""Share of the labels that judge models and never train them, in a project without an imported evaluation set."""

Role = Literal["train", "evaluation", "none"]


@dataclass(frozen=True)
class Schema:
    """What is asked of every sample."""

    task: Task
    labels: Sequence[str]

    def answer(self, value: Any) -> Any | None:
        """The value in its one form; None where it is no answer."""
        try:
            return checked(value, self.task, self.labels)
        except BadValue:
            return None

    @property
    def fewest_classes(self) -> int:
        """How many labels have to be named before anything can be learnt: one alone is nothing to choose from."""
        return 2 if answer_of(self.task) == "classification" else 1


class Entry(BaseModel):
    """A sample's label. The highest revision is true; `pinned` and `trained` are never taken back."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    sample_id: str
    revision: int
    value: Any = None
    weight: float = 1.0
    content: Content | None = None
    at: AwareDatetime
    is_audit: bool = False
    trigger: Trigger = "policy"
    predicted: Top | None = None
    model_version: str = "none"
    state: Literal["accepted", "retracted", "withdrawn"] = "accepted"
    pinned: bool = False  # brought along to judge models with
    trained: bool = False  # some snapshot trained on it
    snapshot: str | None = None  # the first one that has this revision
    trace: str | None = None  # the traceparent that the label came with

    def role(self, schema: Schema, salt: str, imported: bool) -> Role:
        """What the label is for. What judges models never trains one, whichever came first."""
        if self.state != "accepted" or self.content is None or schema.answer(self.value) is None:
            return "none"
        judges = self.pinned if imported else held_out(self.sample_id, salt)
        if self.pinned or judges:
            return "evaluation" if judges and not self.trained else "none"
        return "train"

    def accept(self, event: LabelAccepted, at: datetime, trace: str | None = None) -> Self:
        """The entry after a label that came `at`; a lower or the same revision changes only whether it is pinned.

        A label that no run has used goes on waiting when it is changed; one that was used, or taken back, is new.
        """
        pinned = self.pinned or event.split == "evaluation"
        if self.state == "withdrawn":
            return self
        if event.label_revision <= self.revision:
            return self.model_copy(update={"pinned": pinned})
        waits = self.state == "accepted" and self.snapshot is None
        after = entry(event, self.at if waits else at, trace).model_dump()
        return type(self).model_validate({**after, "pinned": pinned, "trained": self.trained})

    def retract(self, event: LabelRetracted) -> Self:
        """The entry after its label was taken back."""
        if self.state == "withdrawn" or event.label_revision <= self.revision:
            return self
        return self.model_copy(update={"revision": event.label_revision, "state": "retracted", "predicted": None})

    def mark(self, snapshot: str, trained: bool) -> Self:
        """The entry after a run with this very revision in its snapshot."""
        return self.model_copy(update={"snapshot": self.snapshot or snapshot, "trained": self.trained or trained})

    def withdraw(self) -> Self:
        """A tombstone: nothing of the label is left, nor can a late event bring it back."""
        kept = {"sample_id": self.sample_id, "revision": self.revision, "at": self.at, "trained": self.trained}
        return type(self).model_validate({**kept, "state": "withdrawn", "snapshot": self.snapshot})


def entry(event: LabelAccepted, at: datetime, trace: str | None = None) -> Entry:
    """The entry that a first label makes."""
    return Entry(
        sample_id=event.sample_id,
        revision=event.label_revision,
        value=event.value,
        weight=event.weight,
        content=event.content,
        at=at,
        is_audit=event.is_audit,
        trigger=event.trigger,
        predicted=event.predicted,
        model_version=event.model_version,
        pinned=event.split == "evaluation",
        trace=trace,
    )


def tombstone(sample_id: str, revision: int, state: Literal["retracted", "withdrawn"], at: datetime) -> Entry:
    """The entry of a sample whose label is gone before it came."""
    return Entry(sample_id=sample_id, revision=revision, state=state, at=at)


def shard_of(sample_id: str) -> int:
    """Which of the SHARDS documents holds the sample."""
    return crc32(sample_id.encode()) % SHARDS


def held_out(sample_id: str, salt: str) -> bool:
    """Whether the sample judges models: known before its label is, and never changing."""
    return int(sha256(f"{salt}|{sample_id}".encode())[:8], 16) < GATE_SHARE * 16**8


def imported(entries: Iterable[Entry]) -> bool:
    """Whether somebody brought an evaluation set along."""
    return any(entry.pinned and entry.state == "accepted" for entry in entries)


def audits(entries: Iterable[Entry], version: str | None) -> Audits:
    """What the audit found of a version: labels of samples that were asked about because it was sure of them."""
    found = [
        not agree(one.predicted.answer, one.value)
        for one in entries
        if one.is_audit and one.state == "accepted" and one.predicted and version and one.model_version == version
    ]
    return Audits(errors=sum(found), total=len(found))


def count(entries: Mapping[str, Entry], schema: Schema, salt: str, active: str | None) -> Counters:
    """The counters of the retrain rule, derived; `active` is the version whose audited errors count."""
    brought = imported(entries.values())
    per_class = Counter(dict.fromkeys(schema.labels, 0))
    new, retracted, evaluation = 0, 0, 0
    oldest: datetime | None = None
    newest: datetime | None = None
    for one in entries.values():
        retracted += one.state == "retracted" and one.snapshot is not None
        role = one.role(schema, salt, brought)
        evaluation += role == "evaluation"
        if role == "train":
            per_class.update(classes_of(one.value))
        if role != "none" and not one.pinned and one.snapshot is None:
            new += 1
            oldest = one.at if oldest is None else min(oldest, one.at)
            newest = one.at if newest is None else max(newest, one.at)
    audited = audits(entries.values(), active)
    return Counters(
        new=new,
        retracted=retracted,
        per_class=dict(per_class),
        fewest_classes=schema.fewest_classes,
        evaluation=evaluation,
        audit_errors=audited.errors,
        audit_total=audited.total,
        oldest_new=oldest,
        newest_new=newest,
    )
