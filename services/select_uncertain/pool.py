"""What this service knows of a project's samples: scores, where their embeddings lie, and what became of them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import numpy as np

from services.contracts.projects import SelectionPolicy
from services.contracts.values import classes_of
from services.select_uncertain.audit import Estimate, estimate
from services.select_uncertain.budgets import Ledger
from services.select_uncertain.candidate import NO_MODEL, Candidate, State
from services.select_uncertain.rules import Room, Tree
from services.select_uncertain.strategies import Pool

Place = Literal["site", "device"]


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
