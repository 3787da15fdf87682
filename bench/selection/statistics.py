"""What the curves say: labels needed, area, and paired differences with intervals by bootstrap over the seeds."""

from collections.abc import Sequence
from typing import Any

import numpy as np

RESAMPLES = 2000
SHARE = 0.97
"""Of the fully supervised score."""


def labels_needed(labels: np.ndarray, curve: np.ndarray, wanted: float) -> float | None:
    """Where a curve first reaches `wanted`, between its points by a straight line; None if it does not."""
    reached = np.flatnonzero(curve >= wanted)
    if not len(reached):
        return None
    at = int(reached[0])
    if at == 0:
        return float(labels[0])
    share = (wanted - curve[at - 1]) / (curve[at] - curve[at - 1])
    return float(labels[at - 1] + share * (labels[at] - labels[at - 1]))


def area(labels: np.ndarray, curves: np.ndarray) -> np.ndarray:
    """Mean height (S,) of curves (S, P) over the labels (P,)."""
    return np.trapezoid(curves, labels, axis=1) / (labels[-1] - labels[0])


def summary(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """{labels_to_97, labels_to_97_ci, aulc, aulcs, full, seconds} of one strategy's runs, in the order of seeds.

    The area is up to the runs' budget, though a curve may go on beyond it.
    """
    # Where coverage goes on until it has two classes, some seeds begin with more labels than others.
    common = sorted(set.intersection(*(set(one["labels"]) for one in results)))
    curves = np.array([[dict(zip(one["labels"], one["scores"], strict=True))[at] for at in common] for one in results])
    labels = np.array(common, float)
    full = np.array([one["full"] for one in results])
    picks = np.random.default_rng(97).integers(0, len(results), (RESAMPLES, len(results)))
    found = [labels_needed(labels, curves[rows].mean(axis=0), SHARE * full[rows].mean()) for rows in picks]
    spread = np.sort([np.inf if one is None else one for one in found])
    low, high = spread[int(0.025 * RESAMPLES)], spread[int(0.975 * RESAMPLES) - 1]
    budget = results[0]["budget"]
    within = labels <= budget
    areas = area(labels[within], curves[:, within])
    needed = labels_needed(labels, curves.mean(axis=0), SHARE * full.mean())
    return {
        "labels_to_97": None if needed is None else round(needed, 1),
        "labels_to_97_ci": [None if np.isinf(end) else round(float(end), 1) for end in (low, high)],
        "aulc": round(float(areas.mean()), 4),
        "aulcs": areas,
        "budget": budget,
        "full": round(float(full.mean()), 4),
        "seconds": round(float(np.mean([one["seconds"] for one in results]) / max(len(labels) - 1, 1)), 5),
        "curve": [labels.tolist(), curves.mean(axis=0).round(4).tolist()],
    }


def difference(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float, float]:
    """Mean of the paired differences (S,), and its 95 % interval by bootstrap over the seeds."""
    gaps = ours - theirs
    picks = np.random.default_rng(95).integers(0, len(gaps), (RESAMPLES, len(gaps)))
    low, high = np.quantile(gaps[picks].mean(axis=1), (0.025, 0.975))
    return float(gaps.mean()), float(low), float(high)
