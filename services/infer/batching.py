"""A batch of contents -> what a model says of each: as few model runs as possible, and no row fails another. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from services.contracts.events import Content, Detection
from services.contracts.ids import sha256
from services.contracts.manifest import ModelManifest
from services.contracts.preprocessing import UnreadableSample, decode
from services.infer.reading import Outputs, Reading, read, sound


class Model(Protocol):
    """Takes float32 (N, *sample shape)."""

    def predict(self, batch: np.ndarray, /) -> Outputs: ...


@dataclass(frozen=True)
class Failure:
    """Why a sample has no prediction: a word for machines and a sentence for people."""

    error: str
    detail: str
    retryable: bool = False
    """Whether the sample may be scored another time: nothing is wrong with it."""


@dataclass
class Predictions:
    """Row i of each array belongs to position `rows[i]` of what was asked; the other positions failed."""

    rows: list[int] = field(default_factory=list)
    failures: dict[int, Failure] = field(default_factory=dict)
    confidence: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    boxes: list[Sequence[Detection]] = field(default_factory=list)
    embeddings: np.ndarray | None = None
    scores: dict[str, np.ndarray] = field(default_factory=dict)
    ood: np.ndarray | None = None

    def take(self, readings: Sequence[Reading]) -> None:
        """What all runs have said, in their order; an extractor's say nothing."""
        if not readings:
            return
        self.confidence = np.concatenate([one.confidence for one in readings])
        self.scores = {name: np.concatenate([one.scores[name] for one in readings]) for name in readings[0].scores}
        self.boxes = [boxes for one in readings for boxes in one.boxes]
        self.probabilities = _joined([one.probabilities for one in readings])
        self.ood = _joined([one.ood for one in readings])

    @property
    def row_of(self) -> dict[int, int]:
        return {position: row for row, position in enumerate(self.rows)}


def _joined(columns: Sequence[np.ndarray | None]) -> np.ndarray | None:
    there = [column for column in columns if column is not None]
    return np.concatenate(there) if there else None


@dataclass(frozen=True)
class Piece:
    """A sample's bytes and their type; with a claim, what they must hash to; or why there are none."""

    content: bytes = b""
    media_type: str = ""
    claim: Content | None = None
    missing: Failure | None = None


Run = tuple[Sequence[int], Outputs]
"""Positions of samples, and what a model has put out for them, in their order."""


def predictions(model: Model, manifest: ModelManifest, pieces: Sequence[Piece], size: int) -> Predictions:
    """At most ceil(N / size) model runs for N pieces, unless a run fails."""
    positions, tensors, failures = readable(manifest, pieces)
    runs: list[Run] = []
    for start in range(0, len(tensors), size):
        batch = np.stack(tensors[start : start + size])
        runs += _run(model, positions[start : start + size], batch, failures)
    return gathered(manifest, runs, failures)


def readable(
    manifest: ModelManifest, pieces: Sequence[Piece]
) -> tuple[list[int], list[np.ndarray], dict[int, Failure]]:
    """Positions and tensors of the pieces that can be read, and why the others cannot."""
    positions: list[int] = []
    tensors: list[np.ndarray] = []
    failures: dict[int, Failure] = {}
    for position, piece in enumerate(pieces):
        tensor = _tensor(piece, manifest)
        if isinstance(tensor, Failure):
            failures[position] = tensor
        else:
            positions.append(position)
            tensors.append(tensor)
    return positions, tensors, failures


def gathered(manifest: ModelManifest, runs: Sequence[Run], failures: dict[int, Failure]) -> Predictions:
    """What all runs say of the samples whose outputs are sound; the others join the failures."""
    result = Predictions(failures=failures)
    readings: list[Reading] = []
    embeddings: list[np.ndarray] = []
    for positions, outputs in runs:
        good = _sound(outputs, manifest, positions, failures)
        result.rows += [positions[at] for at in good.tolist()]
        if (reading := read(outputs, good, manifest)) is not None:
            readings.append(reading)
        if outputs.embeddings is not None:
            embeddings.append(np.asarray(outputs.embeddings, np.float32)[good])
    result.take(readings)
    result.embeddings = np.concatenate(embeddings) if embeddings else None
    return result


def _tensor(piece: Piece, manifest: ModelManifest) -> np.ndarray | Failure:
    if piece.missing is not None:
        return piece.missing
    if piece.claim is not None and sha256(piece.content) != piece.claim.sha256:
        return Failure("content-hash", "the content is not what its claim says: its sha256 differs")
    try:
        return decode(piece.content, piece.media_type, manifest.input)
    except UnreadableSample as error:
        return Failure("unreadable", str(error))


def _run(model: Model, positions: list[int], batch: np.ndarray, failures: dict[int, Failure]) -> list[Run]:
    """One run; if it fails, one for each row, so that the row that breaks the model is known."""
    try:
        return [(positions, model.predict(batch))]
    except Exception as error:
        if len(positions) == 1:
            failures[positions[0]] = Failure("model-failed", f"the model fails on it: {_brief(error)}")
            return []
    ran = []
    for at, position in enumerate(positions):
        ran += _run(model, [position], batch[at : at + 1], failures)
    return ran


def _sound(
    outputs: Outputs, manifest: ModelManifest, positions: Sequence[int], failures: dict[int, Failure]
) -> np.ndarray:
    """Rows whose outputs are what the manifest promises; the others become failures."""
    good = sound(outputs, manifest.answer)
    if good is None:
        return np.arange(len(positions))
    for at in np.flatnonzero(~good).tolist():
        failures[positions[at]] = Failure("model-output", "the model's output is not finite, or no probabilities")
    return np.flatnonzero(good)


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
