"""What a model's outputs say of its samples, by the kind of answer: how sure it is, its scores, its boxes. Pure.

The scores by name, each 0..1, higher is less certain; `margin` is there for every kind, and ranks where nobody chooses:

| answer         | scores                                                                             | `margin` is |
|----------------|------------------------------------------------------------------------------------|-------------|
| classification | `least_confidence`, `margin`, `entropy` (`uncertainty.py`)                         | itself      |
| multi-label    | `label_max`, `label_mean`: of the labels' own (`structured_uncertainty.py`)        | `label_mean` |
| detection      | `box_max`, `box_mean`, `box_sum`, `box_margin`: of the boxes' own, found or nearly | `box_max`   |

Beside them, where a model says how foreign a sample is to it: `ood`, which no strategy ranks by and policies may use.
A box is nearly found from half the confidence at which one is found: what the detector may have missed is in doubt too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from services.contracts import detection, uncertainty
from services.contracts.events import Detection
from services.contracts.manifest import ModelManifest
from services.contracts.structured_uncertainty import AGGREGATES, DEFAULTS, detections, multi_label
from services.contracts.tasks import Answer

SUM_TOLERANCE = 1e-3
NEAR = 0.5
"""Of the threshold's confidence: from there a box counts as nearly found."""


class Outputs(Protocol):
    """Of N samples: probabilities (N, C), or (N, M, C) with boxes (N, M, 4); embeddings (N, D); ood (N,); or None."""

    @property
    def probabilities(self) -> np.ndarray | None: ...

    @property
    def embeddings(self) -> np.ndarray | None: ...

    @property
    def margin(self) -> np.ndarray | None: ...

    @property
    def boxes(self) -> np.ndarray | None: ...

    @property
    def ood(self) -> np.ndarray | None: ...


@dataclass(frozen=True)
class Reading:
    """Of N samples: how sure (N,), scores by name (N,), and probabilities (N, C), or each one's boxes."""

    confidence: np.ndarray
    scores: dict[str, np.ndarray]
    probabilities: np.ndarray | None = None
    boxes: Sequence[Sequence[Detection]] = ()
    ood: np.ndarray | None = None


def sound(outputs: Outputs, answer: Answer) -> np.ndarray | None:
    """(N,) whether a sample's outputs are finite and probabilities are some; None of outputs that are not there."""
    good: np.ndarray | None = None
    finite = (outputs.embeddings, outputs.margin, outputs.ood, outputs.boxes if answer == "detection" else None)
    for columns in finite:
        if columns is not None:
            good = _all(np.isfinite(columns), good)
    if (p := outputs.probabilities) is not None:
        good = _all((p >= -1e-6) & (p <= 1 + SUM_TOLERANCE), good)  # neither is true of NaN
        if answer == "classification":
            good &= np.abs(p.sum(axis=1, dtype=np.float64) - 1) <= SUM_TOLERANCE
    return good


def _all(true: np.ndarray, before: np.ndarray | None) -> np.ndarray:
    """(N, ...) and (N,) -> (N,)."""
    rows = np.asarray(true.reshape(len(true), -1).all(axis=1))
    return rows if before is None else rows & before


def read(outputs: Outputs, rows: np.ndarray, manifest: ModelManifest) -> Reading | None:
    """What the sound `rows` (N,) of the outputs say; None of an extractor."""
    if outputs.probabilities is None:
        return None
    ood = None if outputs.ood is None else np.clip(outputs.ood[rows], 0.0, 1.0)
    reading = _answers(outputs, np.clip(outputs.probabilities[rows], 0.0, 1.0), rows, manifest)
    return reading if ood is None else replace(reading, ood=ood, scores={**reading.scores, "ood": ood})


def _answers(outputs: Outputs, p: np.ndarray, rows: np.ndarray, manifest: ModelManifest) -> Reading:
    match manifest.answer:
        case "classification":
            margin = None if outputs.margin is None else outputs.margin[rows]
            return Reading(p.max(axis=1), uncertainty.of_sound(p, margin), p)
        case "multi-label":
            return _labels(p)
        case "detection":
            assert outputs.boxes is not None  # a manifest names both
            return _boxes(outputs.boxes[rows], p, manifest)


def embedded(probabilities: np.ndarray, manifest: ModelManifest) -> np.ndarray:
    """(N, D): what stands for the embeddings of a model that gives none."""
    return summary(probabilities) if manifest.answer == "detection" else probabilities


def summary(probabilities: np.ndarray) -> np.ndarray:
    """(N, M, C) -> (N, 2 C) float32: an embedding for a detector that gives none.

    Of each label how sure the surest place is, and log(1 + how many things are expected): pictures of much the same
    content lie together, wherever in them it is.
    """
    p = np.maximum(probabilities, 0.0)
    return np.concatenate([p.max(axis=1, initial=0.0), np.log1p(p.sum(axis=1))], axis=1).astype(np.float32)


def _labels(p: np.ndarray) -> Reading:
    scores = {name: multi_label(p, how) for how, name in AGGREGATES["multi-label"].items()}  # type: ignore[arg-type]
    scores["margin"] = scores[DEFAULTS["multi-label"]]
    return Reading(np.maximum(p, 1.0 - p).min(axis=1), scores, p)


def _boxes(boxes: np.ndarray, p: np.ndarray, manifest: ModelManifest) -> Reading:
    thresholds, count = manifest.thresholds, len(p)
    near = thresholds.model_copy(update={"confidence": NEAR * thresholds.confidence})
    every = detection.found(boxes, p, near)
    seen = (every.confidences, every.owners, count)
    scores = {name: detections(*seen, how) for how, name in AGGREGATES["detection"].items()}  # type: ignore[arg-type]
    scores["margin"] = scores[DEFAULTS["detection"]]
    kept = every.of(every.confidences >= thresholds.confidence)
    least = np.ones(count)
    np.minimum.at(least, kept.owners, kept.confidences)
    none = np.bincount(kept.owners, minlength=count) == 0
    missed = 1.0 - p.reshape(count, -1).max(axis=1, initial=0.0)
    return Reading(np.where(none, missed, least), scores, boxes=detection.told(kept, count, manifest.labels))
