"""What a gate judges models by that say any number of labels: Jaccard's index of each sample, F1 of each label. Pure.

Truth and answers are (N, C) booleans: whether a sample has a label. Jaccard: labels in both through labels in either,
1 where both are empty. The mean over samples is the main metric; a label's F1 joins its precision and recall.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from services.retrain_trigger.resampling import deviations, paired

METRIC = "jaccard"


def scored(truth: np.ndarray, said: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    """{metric, n, jaccard, exact, macro_f1, per_class: {label: {n, recall, precision, f1}}} of N >= 1 answers.

    What is undefined is None; the macro F1 is over the labels that the truth or the answers name.
    """
    both, given, answered = (truth & said).sum(axis=0), truth.sum(axis=0), said.sum(axis=0)
    f1 = _f1(both, given + answered)
    named = np.isfinite(f1)
    return {
        "metric": METRIC,
        "n": len(truth),
        METRIC: float(jaccard(truth, said).mean()),
        "exact": float((truth == said).all(axis=1).mean()),
        "macro_f1": float(f1[named].mean()) if named.any() else 1.0,
        "per_class": {
            label: {
                "n": int(given[at]),
                "recall": _share(both[at], given[at]),
                "precision": _share(both[at], answered[at]),
                "f1": float(f1[at]) if named[at] else None,
            }
            for at, label in enumerate(labels)
        },
    }


def compared(truth: np.ndarray, candidate: np.ndarray, champion: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    """{candidate, champion, paired} of two models' answers to the same samples."""
    whole = np.ones((1, len(truth)))
    difference = _Difference(truth, candidate, champion)
    classes = dict(zip(labels, truth.sum(axis=0).tolist(), strict=True))
    return {
        "candidate": scored(truth, candidate, labels),
        "champion": scored(truth, champion, labels),
        "paired": paired(len(truth), difference(whole)[0], deviations(difference, len(truth)), classes),
    }


def jaccard(truth: np.ndarray, said: np.ndarray) -> np.ndarray:
    """(N,)"""
    either = (truth | said).sum(axis=1)
    return np.where(either == 0, 1.0, (truth & said).sum(axis=1) / np.maximum(either, 1))


class _Difference:
    """Counts (B, N) or (B, N + 2) of the samples -> (B, 1 + C): mean Jaccard, and each label's F1."""

    def __init__(self, truth: np.ndarray, candidate: np.ndarray, champion: np.ndarray) -> None:
        share = truth.mean(axis=0)  # of a label in an imagined sample
        self._jaccard = np.concatenate([jaccard(truth, candidate) - jaccard(truth, champion), [1.0, -1.0]])
        self._given = np.concatenate([truth.astype(np.float64), np.stack([share, share])])
        none = np.zeros_like(share)
        self._both = [
            np.concatenate([truth & said, np.stack(imagined)])
            for said, imagined in ((candidate, (share, none)), (champion, (none, share)))
        ]
        self._said = [
            np.concatenate([said, np.stack(imagined)])
            for said, imagined in ((candidate, (share, none)), (champion, (none, share)))
        ]

    def __call__(self, counts: np.ndarray) -> np.ndarray:
        size = counts.shape[1]
        mean = (counts @ self._jaccard[:size]) / counts.sum(axis=1)
        given = counts @ self._given[:size]
        f1 = [
            _f1(counts @ both[:size], given + counts @ said[:size])
            for both, said in zip(self._both, self._said, strict=True)
        ]
        return np.concatenate([mean[:, None], f1[0] - f1[1]], axis=1)


def _f1(both: np.ndarray, named: np.ndarray) -> np.ndarray:
    """2 * true positives through (given + said); NaN of a label that nobody names."""
    return np.divide(2.0 * both, named, out=np.full(np.shape(both), np.nan), where=named > 0)


def _share(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None
