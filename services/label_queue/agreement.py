"""How far annotators agree: each two of them, on each class, and all together. Pure."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from services.contracts.values import agree, classes_of
from services.label_queue.intervals import wilson

RESAMPLES = 1000  # of the bootstrap
Answers = Mapping[str, Any]  # annotator -> value, of one task


def agreement(tasks: Iterable[Answers], seed: int = 0) -> dict[str, Any]:
    """Over tasks with two answers and more: `alpha`, `pairs`, `classes`, each with a 95 % interval.

    A pair's agreement is the share of their common tasks with equal answers, its kappa that share corrected for
    chance (Cohen 1960; null when chance alone would agree). A class's is the specific agreement
    2·both / (both + either) over all pairs of answers (Cicchetti and Feinstein 1990). Alpha is Krippendorff's (2011),
    nominal. Intervals are Wilson's for shares, and a percentile bootstrap over tasks for the others.

    Of several labels, and of boxes, alpha and kappa are of the question whether a label is there, put for each label;
    a pair's agreement is that of whole answers (`values.agree`).
    """
    rows = [row for row in tasks if len(row) > 1]
    names = sorted({name for row in rows for value in row.values() for name in classes_of(value)})
    place = {name: at for at, name in enumerate(names)}
    counts = np.zeros((len(rows), len(names)))
    for at, row in enumerate(rows):
        for value in row.values():
            counts[at, [place[name] for name in classes_of(value)]] += 1
    sizes = np.array([len(row) for row in rows], float)
    rng = np.random.default_rng(seed)
    weights = _resamples(len(rows), rng)
    cells, weighted = counts, weights
    if any(not isinstance(value, str) for row in rows for value in row.values()):
        cells = np.stack([counts, sizes[:, None] - counts], axis=2).reshape(-1, 2)
        weighted = np.repeat(weights, len(names), axis=1)
    return {
        "tasks": len(rows),
        "alpha": _told(krippendorff(cells), _alphas(cells, weighted)),
        "pairs": [_pair(who, both, names, rng) for who, both in sorted(_pairs(rows).items())],
        "classes": _classes(names, counts, sizes, weights),
    }


def krippendorff(counts: np.ndarray) -> float | None:
    """Alpha for nominal values from answers by task and class (T, K); None if there is but one class, or no task."""
    if not len(counts):
        return None
    (alpha,) = _alphas(counts, np.ones((1, len(counts))))
    return None if np.isnan(alpha) else float(alpha)


def _alphas(counts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Alpha for each of the weightings (B, T) of the tasks; NaN where it is not defined."""
    sizes = counts.sum(axis=1)
    # Of each task, in values that can be paired: how many there are, by class, and how many pairs differ.
    differ = (sizes**2 - (counts**2).sum(axis=1)) / np.maximum(sizes - 1, 1)
    total, by_class = weights @ sizes, weights @ counts
    expected = (total**2 - (by_class**2).sum(axis=1)) / np.maximum(total - 1, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected > 0, 1 - (weights @ differ) / expected, np.nan)


def _resamples(tasks: int, rng: np.random.Generator) -> np.ndarray:
    """How often each task is in each resample (B, T); fewer of them over many tasks, where they hardly differ."""
    if not tasks:
        return np.zeros((0, 0))
    times = max(100, min(RESAMPLES, 2_000_000 // tasks))
    return rng.multinomial(tasks, np.full(tasks, 1 / tasks), size=times).astype(float)


def _told(value: float | None, resampled: np.ndarray) -> dict[str, Any]:
    known = resampled[~np.isnan(resampled)]
    if value is None or not len(known):
        return {"value": value, "interval": None}
    return {"value": value, "interval": [float(edge) for edge in np.percentile(known, [2.5, 97.5])]}


def _pairs(rows: Sequence[Answers]) -> dict[tuple[str, str], list[tuple[Any, Any]]]:
    found: dict[tuple[str, str], list[tuple[Any, Any]]] = {}
    for row in rows:
        for (one, first), (other, second) in itertools.combinations(sorted(row.items()), 2):
            found.setdefault((one, other), []).append((first, second))
    return found


def _pair(
    who: tuple[str, str], both: Sequence[tuple[Any, Any]], names: Sequence[str], rng: np.random.Generator
) -> dict[str, Any]:
    table = _table(both, names)
    total, equal = len(both), sum(agree(first, second) for first, second in both)
    cells = table.sum()
    again = rng.multinomial(int(cells), table.ravel() / max(cells, 1), size=RESAMPLES).reshape(-1, *table.shape)
    value = float(_kappas(table[None])[0])
    kappa = _told(None if np.isnan(value) else value, _kappas(again))
    return {
        "annotators": list(who),
        "tasks": total,
        "agreement": equal / total,
        "interval": list(wilson(equal, total)),
        "kappa": kappa["value"],
        "kappa_interval": kappa["interval"],
    }


def _table(both: Sequence[tuple[Any, Any]], names: Sequence[str]) -> np.ndarray:
    """How often the two say what (K, K); of several labels (2, 2), how often they say that one is there."""
    if all(isinstance(value, str) for pair in both for value in pair):
        used = {name: at for at, name in enumerate(sorted({value for pair in both for value in pair}))}
        table = np.zeros((len(used), len(used)))
        for first, second in both:
            table[used[first], used[second]] += 1
        return table
    table = np.zeros((2, 2))
    for first, second in both:
        ours, theirs = set(classes_of(first)), set(classes_of(second))
        for name in names:
            table[int(name in ours), int(name in theirs)] += 1
    return table


def _kappas(tables: np.ndarray) -> np.ndarray:
    """Cohen's kappa of contingency tables (B, K, K); NaN where chance alone would agree."""
    total = np.maximum(tables.sum(axis=(1, 2)), 1)
    equal = np.trace(tables, axis1=1, axis2=2) / total
    chance = (tables.sum(axis=1) * tables.sum(axis=2)).sum(axis=1) / total**2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(chance < 1, (equal - chance) / (1 - chance), np.nan)


def _classes(names: Sequence[str], counts: np.ndarray, sizes: np.ndarray, weights: np.ndarray) -> list[dict[str, Any]]:
    both = counts * (counts - 1)  # ordered pairs of answers that both name this class
    either = counts * (sizes[:, None] - 1)  # ordered pairs of which the first does
    rows = []
    for at, name in enumerate(names):
        with np.errstate(divide="ignore", invalid="ignore"):
            again = (weights @ both[:, at]) / (weights @ either[:, at])
        told = _told(float(both[:, at].sum() / either[:, at].sum()), again)
        answers = int(either[:, at].sum())
        rows.append({"value": name, "answers": answers, "agreement": told["value"], "interval": told["interval"]})
    return rows
