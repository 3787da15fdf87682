"""What a gate judges detectors by: mean average precision. Pure.

A box that is found is right if it overlaps (intersection over union) a true one of its label by enough, and no surer
box has taken that one. Average precision is the area under the precision that is reached at each recall or a higher
one, as PASCAL VOC has it since 2010; its mean over the labels that the truth names is the main metric at an overlap of
0.5 (map50), with that over 0.5, 0.55 .. 0.95 (COCO's) beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from services.contracts.boxes import overlap
from services.contracts.detection import Found
from services.retrain_trigger.resampling import IMAGINED, deviations, paired

METRIC = "map50"
OVERLAPS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))


@dataclass(frozen=True)
class Truth:
    """The true boxes of `samples` pictures in columns: places of pictures and of labels (B,), and sides (B, 4)."""

    samples: int
    owners: np.ndarray
    labels: np.ndarray
    sides: np.ndarray


@dataclass(frozen=True)
class Answer:
    """What a detector finds: all that it is in the least sure of; and from which confidence it is said."""

    found: Found
    confidence: float


def scored(truth: Truth, answer: Answer, labels: Sequence[str]) -> dict[str, Any]:
    """{metric, n, map50, map, per_class: {label: {n, ap50 | None, recall | None, precision | None}}}; one box at least.

    Recall and precision are of the boxes that are said.
    """
    near = rivals(truth, answer.found)
    each = [hits(answer.found, near, least) for least in OVERLAPS]
    curves = [_Curves(truth, answer.found, right, len(labels)) for right in each]
    whole = np.ones((1, truth.samples))
    every = np.stack([curve.precisions(whole)[0] for curve in curves])
    sizes = np.bincount(truth.labels, minlength=len(labels))
    said = answer.found.confidences >= answer.confidence
    return {
        "metric": METRIC,
        "n": truth.samples,
        METRIC: float(every[0][sizes > 0].mean()),
        "map": float(every[:, sizes > 0].mean()),
        "per_class": {
            label: {
                "n": int(sizes[at]),
                "ap50": float(every[0, at]) if sizes[at] else None,
                "recall": _share((each[0] & said)[answer.found.labels == at], sizes[at]),
                "precision": _share((each[0] & said)[answer.found.labels == at], said[answer.found.labels == at].sum()),
            }
            for at, label in enumerate(labels)
        },
    }


def compared(truth: Truth, candidate: Answer, champion: Answer, labels: Sequence[str]) -> dict[str, Any]:
    """{candidate, champion, paired} of two detectors on the same pictures; the difference is of map50 and ap50."""
    curves = [
        _Curves(truth, one.found, hits(one.found, rivals(truth, one.found), OVERLAPS[0]), len(labels), imagined)
        for imagined, one in enumerate((candidate, champion))
    ]

    def difference(counts: np.ndarray) -> np.ndarray:
        each = curves[0].precisions(counts) - curves[1].precisions(counts)
        known = np.isfinite(each)
        total = np.where(known, each, 0.0).sum(axis=1, keepdims=True)
        return np.concatenate([total / np.maximum(known.sum(axis=1, keepdims=True), 1), each], axis=1)

    sizes = np.bincount(truth.labels, minlength=len(labels)).tolist()
    found = difference(np.ones((1, truth.samples)))[0]
    return {
        "candidate": scored(truth, candidate, labels),
        "champion": scored(truth, champion, labels),
        "paired": paired(
            truth.samples, found, deviations(difference, truth.samples), dict(zip(labels, sizes, strict=True))
        ),
    }


Rivals = list[list[tuple[float, int]]]
"""Of each box that is found: the true ones of its picture and label, as (overlap, place), the best first."""


def rivals(truth: Truth, found: Found) -> Rivals:
    """Which true boxes each box that is found may be."""
    places: dict[tuple[int, int], list[int]] = {}
    for at, key in enumerate(zip(truth.owners.tolist(), truth.labels.tolist(), strict=True)):
        places.setdefault(key, []).append(at)
    rows: Rivals = []
    for at, key in enumerate(zip(found.owners.tolist(), found.labels.tolist(), strict=True)):
        near = places.get(key, [])
        shares = overlap(found.sides[at], truth.sides[near]).tolist()
        rows.append(sorted(zip(shares, near, strict=True), key=lambda one: -one[0]))
    return rows


def hits(found: Found, near: Rivals, least: float) -> np.ndarray:
    """(B,) whether each box that is found is right; the surest choose first, each the best that is left to it."""
    right, taken = np.zeros(len(found.owners), bool), set()
    for at in np.argsort(-found.confidences, kind="stable").tolist():
        best = next((place for share, place in near[at] if share >= least and place not in taken), None)
        if best is not None:
            right[at] = True
            taken.add(best)
    return right


class _Curves:
    """The precision-recall curve of each label, for any counts of the pictures.

    In an imagined picture is as much of each label as in the mean one; the detector whose number is `imagined` finds it
    in the first or in the second of them, surest of all.
    """

    def __init__(self, truth: Truth, found: Found, right: np.ndarray, labels: int, imagined: int = 0) -> None:
        self._parts = [self._label(truth, found, right, label, imagined) for label in range(labels)]

    def precisions(self, counts: np.ndarray) -> np.ndarray:
        """(B, samples) or (B, samples + 2) counts -> (B, C) average precisions; NaN where no box is true."""
        return np.stack([_area(counts, *part) for part in self._parts], axis=1)

    @staticmethod
    def _label(truth: Truth, found: Found, right: np.ndarray, label: int, imagined: int) -> tuple[np.ndarray, ...]:
        mine = np.flatnonzero(found.labels == label)
        mine = mine[np.argsort(-found.confidences[mine], kind="stable")]
        sizes = np.bincount(truth.owners[truth.labels == label], minlength=truth.samples).astype(np.float64)
        share = sizes.sum() / truth.samples
        owners = np.concatenate([[truth.samples + imagined], found.owners[mine]]).astype(np.int64)
        hit = np.concatenate([[share], right[mine]])
        miss = np.concatenate([[0.0], ~right[mine]])
        return owners, hit, miss, np.concatenate([sizes, np.full(IMAGINED, share)])


def _area(counts: np.ndarray, owners: np.ndarray, hit: np.ndarray, miss: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(B,) areas under the precision envelope; the imagined pictures are left out where `counts` has none."""
    real = counts.shape[1]
    seen = owners < real
    weights = counts[:, owners[seen]]
    total = counts @ sizes[:real]
    gains = weights * hit[seen]
    right, wrong = gains.cumsum(axis=1), (weights * miss[seen]).cumsum(axis=1)
    precision = right / np.maximum(right + wrong, 1e-12)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    area = (gains * envelope).sum(axis=1)
    return np.divide(area, total, out=np.full(len(counts), np.nan), where=total > 0)


def _share(part: np.ndarray, whole: int) -> float | None:
    return float(part.sum() / whole) if whole else None
