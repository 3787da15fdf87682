"""What this service knows of a project's samples: scores, where their embeddings lie, and what became of them."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import numpy as np

from services.contracts.events import SampleScored
from services.select_uncertain.strategies import Pool

State = Literal["CANDIDATE", "SELECTED", "LABELED", "SKIPPED", "UNSCORABLE", "WITHDRAWN"]

Place = Literal["site", "device"]

NO_MODEL = "none"


@dataclass(frozen=True)
class Candidate:
    """One sample, as its record `cand:{project}:{sample}` has it."""

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

    def record(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def of_record(cls, record: dict[str, Any]) -> "Candidate":
        known = {name: record[name] for name in cls.__dataclass_fields__ if name in record}
        return cls(**{**known, "probabilities": tuple(known.get("probabilities", ()))})

    def scored(self, event: SampleScored) -> "Candidate":
        """This sample, with the scores of another model version."""
        return Candidate(
            sample_id=self.sample_id,
            state=self.state,
            version=event.model_version,
            content=self.content,
            probabilities=tuple(event.probabilities),
            top=event.top.model_dump() if event.top else None,
            embedding=event.embedding_ref.model_dump() if event.embedding_ref else None,
            decision=self.decision,
            seen_at=self.seen_at,
            site=self.site,
            device=self.device,
        )

    def become(self, state: State, decision: dict[str, Any] | None = None) -> "Candidate":
        changed = {**self.record(), "state": state, "decision": decision or self.decision}
        return Candidate.of_record(changed)


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
    indexed: set[str] = field(default_factory=set)  # samples that a segment of the index names
    _vectors: dict[str, np.ndarray] = field(default_factory=dict)

    def put(self, candidate: Candidate, now: datetime) -> None:
        known = self.candidates.get(candidate.sample_id)
        if known is None or known.embedding != candidate.embedding:
            self._vectors.pop(candidate.sample_id, None)
            self.changed_at = now
        self.candidates[candidate.sample_id] = candidate

    def in_state(self, *states: State) -> list[Candidate]:
        return [candidate for candidate in self.candidates.values() if candidate.state in states]

    @property
    def asked(self) -> int:
        """Samples that a person was ever asked about; labels made elsewhere are not among them."""
        return self.asked_by("site").total()

    def asked_by(self, place: Place) -> Counter[str]:
        """The same, by the site or the device that they came from."""
        asked = (c for c in self.candidates.values() if c.decision and "round_id" in c.decision)
        return Counter(getattr(c, place) for c in asked)

    @property
    def _trained(self) -> list[Candidate]:
        return [c for c in self.in_state("LABELED") if c.decision and "judged" in c.decision]

    @property
    def label_counts(self) -> Counter[str]:
        """Labels to train on, by label."""
        return Counter(str(candidate.decision["label"]) for candidate in self._trained if candidate.decision)

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
        return len(self.in_state("SELECTED", "UNSCORABLE"))

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

    def arrays(self, candidates: list[Candidate]) -> Pool:
        """Embeddings (N, D) and probabilities (N, C) of `candidates`, in their order."""
        vectors = [self._vectors[candidate.sample_id] for candidate in candidates]
        embeddings = np.stack(vectors) if vectors else np.zeros((0, 1), np.float32)
        if self.active == NO_MODEL:
            return Pool(embeddings)
        return Pool(embeddings, np.array([c.probabilities for c in candidates], np.float32))

    def asked_vectors(self) -> np.ndarray:
        """Embeddings (M, D) of the samples asked so far, in the active model's space."""
        asked = [
            self._vectors[c.sample_id]
            for c in self.in_state("SELECTED", "LABELED")
            if c.version == self.active and c.sample_id in self._vectors
        ]
        return np.stack(asked) if asked else np.zeros((0, 1), np.float32)
