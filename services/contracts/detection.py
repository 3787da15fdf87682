"""What a detector gives of each place in a picture -> the boxes that it finds: one path for serving and evaluation.

Pure. Of each place the most probable label counts; of boxes of one label that overlap too much, the surest stays
(non-maximum suppression); a box is cut at the picture's edge, and one without area is none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from services.contracts.boxes import overlap
from services.contracts.events import Detection
from services.contracts.manifest import Thresholds
from services.contracts.values import DIGITS, MAX_BOXES


@dataclass(frozen=True)
class Found:
    """Boxes of some samples in columns, sample by sample, each one's surest first.

    `owners` (B,) are places of samples, `labels` (B,) places of labels, `confidences` (B,), `sides` (B, 4).
    """

    owners: np.ndarray
    labels: np.ndarray
    confidences: np.ndarray
    sides: np.ndarray

    def of(self, rows: np.ndarray) -> "Found":
        """Some of them, by place or by mask."""
        return Found(self.owners[rows], self.labels[rows], self.confidences[rows], self.sides[rows])


def decoded(
    boxes: np.ndarray, probabilities: np.ndarray, labels: Sequence[str], thresholds: Thresholds
) -> list[list[Detection]]:
    """Boxes (N, M, 4) and probabilities (N, M, C) of M places -> the detections in each picture, the surest first."""
    return told(found(boxes, probabilities, thresholds), len(boxes), labels)


def found(boxes: np.ndarray, probabilities: np.ndarray, thresholds: Thresholds) -> Found:
    """The same in columns: no less sure than `thresholds.confidence`, MAX_BOXES a picture at most."""
    best = probabilities.max(axis=2, initial=0.0)
    owners, places = np.nonzero(best >= thresholds.confidence)
    sides = _within(np.asarray(boxes[owners, places], np.float64))
    some = (sides[:, 2:] > 0).all(axis=1)
    owners, places, sides = owners[some], places[some], sides[some]
    labels = probabilities[owners, places].argmax(axis=1) if len(owners) else np.zeros(0, np.int64)
    every = Found(owners, labels, np.asarray(best[owners, places], np.float64), sides)
    kept = every.of(_apart(every, probabilities.shape[2], thresholds.overlap))
    kept = kept.of(np.lexsort((-kept.confidences, kept.owners)))
    rank = np.arange(len(kept.owners)) - np.searchsorted(kept.owners, kept.owners)
    return kept.of(rank < MAX_BOXES)


def told(boxes: Found, samples: int, labels: Sequence[str]) -> list[list[Detection]]:
    """The boxes of each of the samples, as events have them."""
    rows: list[list[Detection]] = [[] for _ in range(samples)]
    confidences = np.round(boxes.confidences, 7).tolist()
    for at, (x, y, width, height) in enumerate(boxes.sides.tolist()):
        label = labels[int(boxes.labels[at])]
        box = Detection(label=label, confidence=confidences[at], x=x, y=y, width=width, height=height)
        rows[int(boxes.owners[at])].append(box)
    return rows


def _within(sides: np.ndarray) -> np.ndarray:
    """(B, 4), cut at the edges and rounded as `values.checked` does; no width or height where nothing is left."""
    start = np.clip(sides[:, :2], 0.0, 1.0)
    end = np.clip(sides[:, :2] + sides[:, 2:], 0.0, 1.0)
    start = np.round(start, DIGITS)
    return np.concatenate([start, np.round(np.maximum(end - start, 0.0), DIGITS)], axis=1)


def _apart(boxes: Found, labels: int, most: float) -> np.ndarray:
    """Places of the boxes that stay. Each turn takes the surest left of every sample and label, all at once."""
    groups = boxes.owners * labels + boxes.labels
    left = np.lexsort((-boxes.confidences, groups))
    kept: list[np.ndarray] = [np.zeros(0, np.int64)]
    while len(left) and len(kept) <= MAX_BOXES:
        group = groups[left]
        first = np.concatenate([[True], group[1:] != group[:-1]])
        kept.append(left[first])
        leader = left[first][first.cumsum() - 1]
        left = left[~first & (overlap(boxes.sides[left], boxes.sides[leader]) <= most)]
    return np.concatenate(kept)
