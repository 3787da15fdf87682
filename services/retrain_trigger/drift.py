"""Whether the scores of what comes in have changed: a window of them against the window after the activation. Pure.

Pearson's test of homogeneity says whether two histograms are of one distribution; that alone would find any difference
once there are enough samples, so the population stability index says whether it is large enough. Both must.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import chdtrc

ALPHA = 1e-3
"""Chance of a window of the same distribution to be taken for another one, at most."""
LEAST_EXPECTED = 5.0
SEEN = 100  # summaries that are remembered, so that one that comes twice counts once


def no_drift(version: str) -> dict[str, Any]:
    """What is known of a version that has just been activated."""
    return {"version": version, "reference": [], "current": [], "seen": [], "windows": 0, "last": None}


def added(state: Mapping[str, Any], key: str, counts: Sequence[int], window: int, psi: float) -> dict[str, Any]:
    """The state after one summary; `last` is {psi, p, drift} of the latest whole window."""
    if key in state["seen"]:
        return dict(state)
    after = {**state, "seen": [*state["seen"], key][-SEEN:]}
    part = "reference" if sum(state["reference"]) < window else "current"
    after[part] = np.add(state[part] or [0] * len(counts), counts).tolist()
    if part == "current" and sum(after["current"]) >= window:
        index, chance = stability(after["reference"], after["current"]), homogeneity(*_rows(after))
        last = {"psi": round(index, 4), "p": chance, "drift": index > psi and chance < ALPHA}
        after |= {"current": [], "windows": state["windows"] + 1, "last": last}
    return after


def stability(reference: Sequence[int], current: Sequence[int]) -> float:
    """Population stability index of two histograms, each bin half a sample fuller (so that none is empty)."""
    old, new = (np.asarray(counts, float) + 0.5 for counts in (reference, current))
    old, new = old / old.sum(), new / new.sum()
    return float(np.sum((new - old) * np.log(new / old)))


def homogeneity(reference: Sequence[int], current: Sequence[int]) -> float:
    """Chance of histograms that differ this much, were they of one distribution (Pearson, 1900).

    Neighbouring bins that hold too little are joined.
    """
    table = _joined(np.array([reference, current], float))
    if table.shape[1] < 2:
        return 1.0
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    statistic = float(((table - expected) ** 2 / expected).sum())
    return float(chdtrc(table.shape[1] - 1, statistic)) if math.isfinite(statistic) else 1.0


def _rows(state: Mapping[str, Any]) -> tuple[list[int], list[int]]:
    return state["reference"], state["current"]


def _joined(table: np.ndarray) -> np.ndarray:
    """Neighbouring columns together, until each has enough expected in both rows."""
    share = table.sum(axis=1).min() / table.sum()
    columns: list[np.ndarray] = []
    for column in table.T:
        if columns and columns[-1].sum() * share < LEAST_EXPECTED:
            columns[-1] = columns[-1] + column
        else:
            columns.append(column)
    if len(columns) > 1 and columns[-1].sum() * share < LEAST_EXPECTED:
        columns[-2:] = [columns[-2] + columns[-1]]
    return np.array(columns).T
