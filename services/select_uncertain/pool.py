"""What this service knows of a project's samples: scores, where their embeddings lie, and what became of them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

import numpy as np

from services.contracts.events import SampleScored
from services.contracts.projects import SelectionPolicy
from services.contracts.structured_uncertainty import AGGREGATES
from services.contracts.tasks import answer_of
from services.contracts.values import classes_of
from services.select_uncertain.audit import Estimate, estimate
from services.select_uncertain.budgets import Asked, Ledger
from services.select_uncertain.rules import Facts, Room, Tree
from services.select_uncertain.strategies import Pool

State = Literal["CANDIDATE", "DISCARDED", "SELECTED", "EXPIRED", "LABELED", "SKIPPED", "UNSCORABLE", "WITHDRAWN"]
ENDED: dict[State, str] = {"LABELED": "labelled", "SKIPPED": "skipped", "WITHDRAWN": "skipped", "EXPIRED": "expired"}

Place = Literal["site", "device"]

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


@dataclass
class ProjectPool:
    """The samples of one project in memory, kept in step with their records."""

    project: str
    active: str = NO_MODEL
    epoch: int = 0
    candidates: dict[str, Candidate] = field(default_factory=dict)
    changed_at: datetime | None = None
    requested_at: datetime | None = None  # when the last rescoring was asked for
    requests: int = 0  # rescorings asked for since the activation
    judged: int = 0  # models judged so far
    history: list[dict[str, Any]] = field(default_factory=list)  # models judged, as the stop rule wants them
    indexed: set[str] = field(default_factory=set)  # samples that a segment of the index names
    leased: set[str] = field(default_factory=set)  # questions that somebody is at, as far as is known here
    leaving: dict[str, tuple[datetime, int]] = field(default_factory=dict)  # those asked to give way: when, how often
    _states: dict[State, dict[str, Candidate]] = field(init=False)
    _asked: dict[Place, Counter[str]] = field(init=False)
    _vectors: dict[str, np.ndarray] = field(default_factory=dict)
    _tree: Tree = field(default_factory=lambda: Tree(None))
    _settled: dict[str, tuple[Candidate, str, list[int | None], bool]] = field(default_factory=dict)
    revision: int = 0  # grows with every change of a sample

    def __post_init__(self) -> None:
        self._states, self._asked = {}, {"site": Counter(), "device": Counter()}
        for candidate in self.candidates.values():
            self._count(candidate, 1)

    def put(self, candidate: Candidate, now: datetime) -> None:
        known = self.candidates.get(candidate.sample_id)
        if known is None or known.embedding != candidate.embedding:
            self._vectors.pop(candidate.sample_id, None)
            self.changed_at = now
        self._count(known, -1)
        self.candidates[candidate.sample_id] = candidate
        self._count(candidate, 1)
        self.revision += 1
        if candidate.state != "SELECTED":
            self.leased.discard(candidate.sample_id)
            self.leaving.pop(candidate.sample_id, None)

    def _count(self, candidate: Candidate | None, by: int) -> None:
        """What is asked of the pool again and again, kept so that nobody has to look through all of it."""
        if candidate is None:
            return
        there = self._states.setdefault(candidate.state, {})
        if by > 0:
            there[candidate.sample_id] = candidate
        else:
            del there[candidate.sample_id]
        for place, asked in self._asked.items():
            if candidate.asked:
                asked[getattr(candidate, place)] += by

    def in_state(self, *states: State) -> list[Candidate]:
        return [candidate for state in states for candidate in self._states.get(state, {}).values()]

    @property
    def asked(self) -> int:
        """Samples that a person was ever asked about; labels made elsewhere are not among them."""
        return self.asked_by("site").total()

    def asked_by(self, place: Place) -> Counter[str]:
        """The same, by the site or the device that they came from."""
        return +self._asked[place]

    @property
    def seen(self) -> int:
        """Samples that were scored or embedded."""
        return sum(1 for candidate in self.candidates.values() if candidate.version)

    def tree(self, policy: SelectionPolicy) -> Tree:
        """The policy's rules; what they said of samples is remembered until they change."""
        if self._tree.rule != policy.where:
            self._tree, self._settled = Tree(policy.where), {}
        return self._tree

    def ledger(self, now: datetime) -> Ledger:
        """What was asked so far."""
        return Ledger((c.question() for c in self.candidates.values() if c.asked), self.seen, now)

    def passes(self, candidate: Candidate, tree: Tree, room: Room | None) -> bool:
        """Whether a tree of `tree()` lets this sample be asked about now."""
        if tree.rule is None:
            return True
        known = self._settled.get(candidate.sample_id)
        if known is None or known[0] is not candidate or known[1] != self.active:
            settled = tree.settled(candidate.facts(self.active))
            known = (candidate, self.active, settled, tree.passes(settled, lambda: candidate.facts(self.active), None))
            self._settled[candidate.sample_id] = known
        if room is None or (tree.rises and not known[3]):
            return known[3]
        return tree.passes(known[2], lambda: candidate.facts(self.active), room)

    def audited(self, trigger: str) -> Estimate:
        """Errors of the active model among the answered `audit` (or `control`) questions that were put under it."""
        decisions = [c.decision for c in self.in_state("LABELED") if c.decision and c.trigger == trigger]
        mine = [d for d in decisions if d.get("model_version") == self.active and d.get("outcome") is not None]
        return estimate((d.get("answer", d["outcome"]), d["label"]) for d in mine)

    @property
    def _trained(self) -> list[Candidate]:
        return [c for c in self.in_state("LABELED") if c.decision and "judged" in c.decision]

    @property
    def label_counts(self) -> Counter[str]:
        """Samples to train on, by each label that they have."""
        labels = (candidate.decision["label"] for candidate in self._trained if candidate.decision)
        return Counter(name for label in labels for name in classes_of(label))

    @property
    def new_labels(self) -> int:
        """Labels to train on that came in since the last model was judged."""
        return len(self._new)

    @property
    def last_label_at(self) -> datetime | None:
        """When the newest of them came in."""
        return max((datetime.fromisoformat(d["labelled_at"]) for d in self._new), default=None)

    @property
    def _new(self) -> list[dict[str, Any]]:
        return [c.decision for c in self._trained if c.decision and c.decision["judged"] == self.judged]

    @property
    def open_tasks(self) -> int:
        return sum(len(self._states.get(state, ())) for state in ("SELECTED", "UNSCORABLE"))

    def stale(self, *states: State) -> list[str]:
        """Samples in these states whose scores and embedding are another model's."""
        return [c.sample_id for c in self.in_state(*states) if c.version and c.version != self.active]

    def ready(self) -> list[Candidate]:
        """What a round may choose from: unasked, and scored by the active model."""
        fresh = self.in_state("CANDIDATE")
        return sorted((c for c in fresh if c.version == self.active and c.embedding), key=lambda c: c.sample_id)

    def missing_vectors(self, candidates: Iterable[Candidate]) -> dict[str, list[Candidate]]:
        """Candidates whose embedding is not in memory, by the uri of the block that holds it."""
        wanted: dict[str, list[Candidate]] = {}
        for candidate in candidates:
            if candidate.sample_id not in self._vectors and candidate.embedding:
                wanted.setdefault(candidate.embedding["uri"], []).append(candidate)
        return wanted

    def keep_block(self, block: bytes, candidates: Iterable[Candidate]) -> None:
        """Remember the rows of an embedding block that belong to `candidates`."""
        for candidate in candidates:
            ref = candidate.embedding
            if ref is not None:
                rows = np.frombuffer(block, dtype=ref["dtype"]).reshape(-1, ref["dim"])
                self._vectors[candidate.sample_id] = rows[ref["row"]].astype(np.float32)

    def arrays(self, candidates: list[Candidate], aggregate: str | None = None) -> Pool:
        """Embeddings (N, D) of `candidates`, in their order, and probabilities (N, C), or else uncertainty (N,)."""
        vectors = [self._vectors[candidate.sample_id] for candidate in candidates]
        embeddings = np.stack(vectors) if vectors else np.zeros((0, 1), np.float32)
        if self.active == NO_MODEL:
            return Pool(embeddings)
        if not all(c.probabilities for c in candidates):
            return Pool(embeddings, uncertainty=np.array([c.unsure(aggregate) for c in candidates], np.float64))
        return Pool(embeddings, np.array([c.probabilities for c in candidates], np.float32))

    def asked_vectors(self, more: Sequence[str] = ()) -> np.ndarray:
        """Embeddings (M, D) of the samples asked so far, in the active model's space; `more` are about to be asked."""
        asked = [
            self._vectors[c.sample_id]
            for c in self.in_state("SELECTED", "LABELED")
            if c.version == self.active and c.sample_id in self._vectors
        ]
        asked += [self._vectors[sample] for sample in more]
        return np.stack(asked) if asked else np.zeros((0, 1), np.float32)
