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

    def take(self, readings: Sequence[Reading]) -> None:
        """What all runs have said, in their order; an extractor's say nothing."""
        if not readings:
            return
        self.confidence = np.concatenate([one.confidence for one in readings])
        self.scores = {name: np.concatenate([one.scores[name] for one in readings]) for name in readings[0].scores}
        self.boxes = [boxes for one in readings for boxes in one.boxes]
        probabilities = [one.probabilities for one in readings if one.probabilities is not None]
        self.probabilities = np.concatenate(probabilities) if probabilities else None

    @property
    def row_of(self) -> dict[int, int]:
        return {position: row for row, position in enumerate(self.rows)}


@dataclass(frozen=True)
class Piece:
    """A sample's bytes and their type; with a claim, what they must hash to; or why there are none."""

    content: bytes = b""
    media_type: str = ""
    claim: Content | None = None
    missing: Failure | None = None


def predictions(model: Model, manifest: ModelManifest, pieces: Sequence[Piece], size: int) -> Predictions:
    """At most ceil(N / size) model runs for N pieces, unless a run fails."""
    result = Predictions()
    tensors: list[np.ndarray] = []
    for position, piece in enumerate(pieces):
        tensor = _tensor(piece, manifest)
        if isinstance(tensor, Failure):
            result.failures[position] = tensor
        else:
            result.rows.append(position)
            tensors.append(tensor)
    readings: list[Reading] = []
    embeddings: list[np.ndarray] = []
    kept: list[int] = []
    for start in range(0, len(tensors), size):
        positions = result.rows[start : start + size]
        for rows, outputs in _run(model, positions, np.stack(tensors[start : start + size]), result.failures):
            good = _sound(outputs, manifest, rows, result.failures)
            kept += [rows[at] for at in good]
            if (reading := read(outputs, good, manifest)) is not None:
                readings.append(reading)
            if outputs.embeddings is not None:
                embeddings.append(np.asarray(outputs.embeddings, np.float32)[good])
    result.rows = kept
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


def _run(
    model: Model, positions: list[int], batch: np.ndarray, failures: dict[int, Failure]
) -> list[tuple[list[int], Outputs]]:
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
) -> list[int]:
    """Rows whose outputs are what the manifest promises; the others become failures."""
    good = sound(outputs, manifest.answer)
    if good is None:
        return list(range(len(positions)))
    for at in map(int, np.flatnonzero(~good)):
        failures[positions[at]] = Failure("model-output", "the model's output is not finite, or no probabilities")
    return [int(at) for at in np.flatnonzero(good)]


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
