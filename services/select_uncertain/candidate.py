"""One sample as this service knows it: its scores, where its embedding lies, and what became of it."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from services.contracts.events import SampleScored
from services.contracts.structured_uncertainty import AGGREGATES
from services.contracts.tasks import answer_of
from services.contracts.values import classes_of
from services.select_uncertain.budgets import Asked
from services.select_uncertain.rules import Facts

State = Literal["CANDIDATE", "DISCARDED", "SELECTED", "EXPIRED", "LABELED", "SKIPPED", "UNSCORABLE", "WITHDRAWN"]
ENDED: dict[State, str] = {"LABELED": "labelled", "SKIPPED": "skipped", "WITHDRAWN": "skipped", "EXPIRED": "expired"}

NO_MODEL = "none"


CORE = (
    "sample_id",
    "state",
    "version",
    "content",
    "probabilities",
    "top",
    "embedding",
    "decision",
    "seen_at",
    "site",
)
SAID = ("device", "scores", "captured_at", "stream", "attributes", "tags", "flags")
"""Fields that a record has only where there is something to say."""
ASKED = ("round_id", "policy", "strategy", "trigger", "model_version", "at", "judged")
"""What stays of the decision about a withdrawn sample."""


@dataclass(frozen=True)
class Candidate:
    """One sample, as its record `cand:{project}:{sample}` has it; only a classification has its probabilities there."""

    sample_id: str
    state: State
    version: str
    content: dict[str, Any]
    probabilities: tuple[float, ...] = ()
    top: dict[str, Any] | None = None
    embedding: dict[str, Any] | None = None
    decision: dict[str, Any] | None = None
    seen_at: str = ""
    site: str = ""
    device: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    captured_at: str = ""
    stream: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    flags: dict[str, bool] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        kept = {name: getattr(self, name) for name in CORE}
        return kept | {name: value for name in SAID if (value := getattr(self, name))}

    @classmethod
    def of_record(cls, record: dict[str, Any]) -> "Candidate":
        known = {name: record[name] for name in cls.__dataclass_fields__ if name in record}
        lists = {name: tuple(known.get(name, ())) for name in ("probabilities", "tags")}
        return cls(**{**known, **lists})

    def scored(self, event: SampleScored) -> "Candidate":
        """This sample, with the scores of another model version; what was said of it before stays."""
        return Candidate(
            sample_id=self.sample_id,
            state=self.state,
            version=event.model_version,
            content=self.content,
            decision=self.decision,
            seen_at=self.seen_at,
            site=self.site,
            device=self.device,
            flags=self.flags,
            probabilities=tuple(event.probabilities) if answer_of(event.task) == "classification" else (),
            top=event.top.model_dump(exclude_none=True) if event.top else None,
            embedding=event.embedding_ref.model_dump() if event.embedding_ref else None,
            scores=dict(event.scores),
            captured_at=event.captured_at.isoformat() if event.captured_at else self.captured_at,
            stream=event.stream_id or self.stream,
            attributes=dict(event.attributes) or self.attributes,
            tags=tuple(event.tags) or self.tags,
        )

    @property
    def asked(self) -> bool:
        """Whether a person was ever asked about it; a label made elsewhere, or a question that gave way, is none."""
        return bool(self.decision and "round_id" in self.decision)

    @property
    def trigger(self) -> str:
        return (self.decision or {}).get("trigger", "")

    @property
    def answer(self) -> Any:
        """What a model says that it is, as an annotator would; None before a model has said anything."""
        top = self.top or {}
        value = top.get("value")
        return top.get("label") if value is None else value

    @property
    def outcome(self) -> str | None:
        """The class that it counts as: of several the surest, and "" where a model has found nothing."""
        return None if self.top is None else self.top["label"] if classes_of(self.answer) else ""

    def unsure(self, aggregate: str | None = None) -> float:
        """0..1: of one label the margin, else the score of the aggregate; 1 when there is no model's opinion."""
        if len(self.probabilities) > 1:
            second, first = sorted(self.probabilities)[-2:]
            return 1.0 - (first - second)
        names = [known[aggregate] for known in AGGREGATES.values() if aggregate and aggregate in known]
        return next((self.scores[name] for name in (*names, "margin") if name in self.scores), 1.0)

    def facts(self, active: str) -> Facts:
        """What rules may ask of it; a sample that came without a time counts as captured when it was seen."""
        top = self.top or {}
        return Facts(
            sample_id=self.sample_id,
            captured_at=datetime.fromisoformat(self.captured_at or self.seen_at or "1970-01-01T00:00:00+00:00"),
            confidence=top.get("confidence"),
            outcome=self.outcome,
            classes=tuple(classes_of(self.answer)) if self.top else (),
            scores=self.scores,
            attributes=self.attributes,
            tags=self.tags,
            stream=self.stream,
            site=self.site,
            device=self.device,
            version=self.version,
            active=active,
            flags=self.flags,
        )

    def question(self) -> Asked:
        """What the ledger takes down of it, as of when it was asked about."""
        decision = self.decision or {}
        asked = replace(self.facts(""), outcome=decision.get("outcome", self.outcome))
        at = datetime.fromisoformat(decision.get("at") or self.seen_at or "1970-01-01T00:00:00+00:00")
        return Asked(at, asked, ENDED.get(self.state), self.trigger in ("audit", "control"))

    def withdrawn(self) -> "Candidate":
        """A tombstone: that it was asked about, which budgets count, and nothing of what it was or who it is about."""
        asked = {name: value for name, value in (self.decision or {}).items() if name in ASKED}
        return Candidate(
            self.sample_id,
            "WITHDRAWN",
            self.version,
            {},
            decision=asked or None,
            seen_at=self.seen_at,
            site=self.site,
            device=self.device,
        )

    def become(self, state: State, decision: dict[str, Any] | None = None) -> "Candidate":
        return replace(self, state=state, decision=decision or self.decision)
