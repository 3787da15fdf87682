"""What a model's outputs say of its samples, by the kind of answer: how sure it is, its scores, its boxes. Pure.

The scores by name, each 0..1, higher is less certain; `margin` is there for every kind, and ranks where nobody chooses:

| answer         | scores                                                                             | `margin` is |
|----------------|------------------------------------------------------------------------------------|-------------|
| classification | `least_confidence`, `margin`, `entropy` (`uncertainty.py`)                         | itself      |
| multi-label    | `label_max`, `label_mean`: of the labels' own (`structured_uncertainty.py`)        | `label_mean` |
| detection      | `box_max`, `box_mean`, `box_sum`, `box_margin`: of the boxes' own, found or nearly | `box_max`   |

A box is nearly found from half the confidence at which one is found: what the detector may have missed is in doubt too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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
    """Of N samples: probabilities (N, C), or (N, M, C) with boxes (N, M, 4); embeddings (N, D); any may be None."""

    @property
    def probabilities(self) -> np.ndarray | None: ...

    @property
    def embeddings(self) -> np.ndarray | None: ...

    @property
    def boxes(self) -> np.ndarray | None: ...


@dataclass(frozen=True)
class Reading:
    """Of N samples: how sure (N,), scores by name (N,), and probabilities (N, C), or each one's boxes."""

    confidence: np.ndarray
    scores: dict[str, np.ndarray]
    probabilities: np.ndarray | None = None
    boxes: Sequence[Sequence[Detection]] = ()


def sound(outputs: Outputs, answer: Answer) -> np.ndarray | None:
    """(N,) whether a sample's outputs are finite and probabilities are some; None of outputs that are not there."""
    good: np.ndarray | None = None
    for columns in (outputs.embeddings, outputs.boxes if answer == "detection" else None):
        if columns is not None:
            good = _all(np.isfinite(columns), good)
    if outputs.probabilities is not None:
        p = np.asarray(outputs.probabilities, np.float64)
        good = _all(np.isfinite(p) & (p >= -1e-6) & (p <= 1 + SUM_TOLERANCE), good)
        if answer == "classification":
            good = _all(np.abs(p.sum(axis=1) - 1) <= SUM_TOLERANCE, good)
    return good


def _all(true: np.ndarray, before: np.ndarray | None) -> np.ndarray:
    """(N, ...) and (N,) -> (N,)."""
    rows = np.asarray(true.reshape(len(true), -1).all(axis=1))
    return rows if before is None else rows & before


def read(outputs: Outputs, rows: Sequence[int], manifest: ModelManifest) -> Reading | None:
    """What the sound `rows` of the outputs say; None of an extractor."""
    if outputs.probabilities is None:
        return None
    p = np.asarray(outputs.probabilities)[rows]
    match manifest.answer:
        case "classification":
            return Reading(p.max(axis=1), uncertainty.scores(p), p)
        case "multi-label":
            return _labels(np.clip(p, 0.0, 1.0))
        case "detection":
            assert outputs.boxes is not None  # a manifest names both
            return _boxes(np.asarray(outputs.boxes)[rows], np.clip(p, 0.0, 1.0), manifest)


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
