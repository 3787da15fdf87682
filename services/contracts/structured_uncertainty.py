"""Uncertainty of samples that get more than one answer: several labels, boxes in a picture, windows of a series.

Like the scores of `uncertainty.py`: 0..1, higher is less certain. Each aggregate answers another question: `max` finds
the sample with one doubtful part, `mean` the one that is doubtful throughout, `sum` the one with most to learn from.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np

from services.contracts.tasks import answer_of
from services.contracts.uncertainty import checked, margin

LabelAggregate = Literal["max", "mean", "cardinality"]
BoxAggregate = Literal["max", "mean", "sum", "margin"]
WindowAggregate = Literal["max", "mean", "flips"]

AGGREGATES: Mapping[str, Mapping[str, str]] = {
    "multi-label": {"max": "label_max", "mean": "label_mean"},
    "detection": {"max": "box_max", "mean": "box_mean", "sum": "box_sum", "margin": "box_margin"},
}
"""By answer and aggregate the score that is said of each sample; `cardinality` is of all samples, and none's own."""
DEFAULTS: Mapping[str, str] = {"multi-label": "label_mean", "detection": "box_max"}
"""The score that is `margin` as well: it ranks where a policy chooses none."""


def score_name(task: str, aggregate: str | None) -> str:
    """The score that ranks the samples of a task. Raises ValueError for an aggregate that it does not have."""
    if aggregate is None:
        return "margin"
    there = AGGREGATES.get(answer_of(task), {})
    if aggregate not in there:
        choices = ", ".join(there) or "none: a sample has one answer"
        raise ValueError(f"the task {task} has no aggregate {aggregate!r}; there is {choices}")
    return there[aggregate]


def multi_label(probabilities: np.ndarray, how: LabelAggregate = "mean") -> np.ndarray:
    """(N, L) independent probabilities of L labels -> (N,): of each label 1 - |2 p - 1|, then `max` or `mean`.

    `cardinality` multiplies the mean with how far the number of labels said (p > 0.5) is from the number expected over
    all samples (label cardinality inconsistency, Li and Guo, IJCAI 2013), scaled by the worst. Raises ValueError.
    """
    p = np.asarray(probabilities, np.float64)
    if p.ndim != 2 or p.shape[1] < 1:
        raise ValueError(f"label probabilities are (N, L) with at least one label, not {p.shape}")
    _within(p, "label probabilities")
    unsure = 1.0 - np.abs(2.0 * p - 1.0)
    if how == "max":
        return unsure.max(axis=1)
    mean = unsure.mean(axis=1)
    if how == "mean" or not len(p):
        return mean
    off = np.abs((p > 0.5).sum(axis=1) - p.sum() / len(p))
    return mean * (1.0 + off) / (1.0 + off.max())


def detections(scores: np.ndarray, owners: np.ndarray, samples: int, how: BoxAggregate = "max") -> np.ndarray:
    """Boxes of all samples -> (samples,). `scores` is (B,) confidences or (B, C) class probabilities, `owners` (B,).

    `owners[b]` is the sample of box b, 0..samples - 1. A box's own uncertainty is 1 - |2 s - 1| of its confidence, or
    its margin score (1 vs 2, Brust et al., VISAPP 2019). `max`, `mean`; `sum` as s / (1 + s), which keeps the order;
    `margin`: 1 - (best - second best) of the boxes' confidences, so one sure box alone is certain. A sample without
    boxes gets 0: what was missed altogether is for the audit to find. Raises ValueError.
    """
    s = np.asarray(scores, np.float64)
    places = np.asarray(owners, np.int64)
    if places.shape != s.shape[:1]:
        raise ValueError(f"{len(s)} boxes and {places.shape} owners")
    if len(places) and not 0 <= places.min() <= places.max() < samples:
        raise ValueError(f"a box's owner is a sample of 0..{samples - 1}")
    if s.ndim == 2:
        confidence, unsure = checked(s).max(axis=1), margin(s)
    else:
        _within(s, "box confidences")
        confidence, unsure = s, 1.0 - np.abs(2.0 * s - 1.0)
    counts = np.bincount(places, minlength=samples)
    if how == "margin":
        return _box_margin(confidence, places, samples)
    if how == "max":
        found = np.zeros(samples)
        np.maximum.at(found, places, unsure)
        return found
    total = np.bincount(places, unsure, minlength=samples)
    return total / np.maximum(counts, 1) if how == "mean" else total / (1.0 + total)


def windows(probabilities: np.ndarray, width: int, stride: int, how: WindowAggregate = "mean") -> np.ndarray:
    """(T, C) class probabilities of the points of a series -> (W,), W = 1 + (T - width) // stride, 0 if T < width.

    `max` and `mean` are of the points' margin scores. `flips` is the share of neighbours in the window whose likeliest
    class differs: a series seldom changes at every step, so that is a model in doubt (temporal coherence, Bengar et
    al., ICCVW 2019). Raises ValueError.
    """
    if width < 1 or stride < 1:
        raise ValueError(f"a window and a stride are at least 1 long, not {width} and {stride}")
    p = checked(probabilities)
    count = max(0, 1 + (len(p) - width) // stride)
    if not count:
        return np.zeros(0)
    values, span = margin(p), width
    if how == "flips":
        best = p.argmax(axis=1)
        values, span = (best[1:] != best[:-1]).astype(np.float64), width - 1
    if not span:
        return np.zeros(count)
    seen = np.lib.stride_tricks.sliding_window_view(values, span)[::stride][:count]
    return seen.max(axis=1) if how == "max" else seen.mean(axis=1)


def _box_margin(confidence: np.ndarray, places: np.ndarray, samples: int) -> np.ndarray:
    """1 - (best - second best) of each sample's confidences; a missing second is 0, and no box at all is certain."""
    order = np.lexsort((-confidence, places))
    ranks = np.arange(len(order)) - np.searchsorted(places[order], places[order])
    found = np.zeros((2, samples))
    for rank in (0, 1):
        boxes = order[ranks == rank]
        found[rank, places[boxes]] = confidence[boxes]
    return np.where(np.bincount(places, minlength=samples) > 0, 1.0 - (found[0] - found[1]), 0.0)


def _within(values: np.ndarray, what: str) -> None:
    if not np.isfinite(values).all() or (values < 0).any() or (values > 1).any():
        raise ValueError(f"{what} are finite and within 0..1")
