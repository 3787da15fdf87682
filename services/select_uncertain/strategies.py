"""Query strategies: which k of the pool to ask a person about. Pure numpy; the same arguments give the same picks.

`uncertainty_coverage` is the default: the 10 k least certain by margin, then greedily those that cover the others
best, each weighted by its uncertainty (UHerding, Bae et al., ICLR 2025). Its radius is the mean distance to the nearest
labelled point, so it shrinks as labels come in. `coverage` is for the cold start, when no model has an opinion.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from services.contracts import uncertainty

PREFILTER = 10
"""Candidates that stay per pick after the margin prefilter."""
MOST_CANDIDATES = 4096
"""Most candidates that a coverage step compares with each other (a 64 MiB kernel matrix)."""
KMEANS_STEPS = 10
LOOKED_AT = 16
"""Candidates whose gain is brought up to date at once."""


@dataclass(frozen=True)
class Pool:
    """What may be asked: embeddings (N, D), and probabilities (N, C) unless there is no model yet."""

    embeddings: np.ndarray
    probabilities: np.ndarray | None = None


@dataclass(frozen=True)
class Pick:
    """One sample to ask: its index in the pool, a priority in 0..1, and why."""

    index: int
    score: float
    reason: str


Strategy = Callable[[Pool, np.ndarray, int, np.random.Generator], list[Pick]]
"""(pool, labelled embeddings (M, D), k, rng) -> at most k picks, best first, no sample twice."""


def random(pool: Pool, labelled: np.ndarray, k: int, rng: np.random.Generator) -> list[Pick]:
    """k samples, each with the same chance: the baseline and the control."""
    chosen = rng.permutation(len(pool.embeddings))[: _count(pool, k)]
    return [Pick(int(index), 0.5, "random") for index in chosen]


def least_confidence(pool: Pool, labelled: np.ndarray, k: int, rng: np.random.Generator) -> list[Pick]:
    """The k whose best class has the lowest probability."""
    return _most_uncertain("least_confidence", uncertainty.least_confidence, pool, labelled, k, rng)


def margin(pool: Pool, labelled: np.ndarray, k: int, rng: np.random.Generator) -> list[Pick]:
    """The k whose two best classes are closest."""
    return _most_uncertain("margin", uncertainty.margin, pool, labelled, k, rng)


def entropy(pool: Pool, labelled: np.ndarray, k: int, rng: np.random.Generator) -> list[Pick]:
    """The k whose probabilities are spread most."""
    return _most_uncertain("entropy", uncertainty.entropy, pool, labelled, k, rng)


def uncertainty_coverage(pool: Pool, labelled: np.ndarray, k: int, rng: np.random.Generator) -> list[Pick]:
    """The default: least certain by margin, spread so that near-duplicates are asked once."""
    if pool.probabilities is None:
        return coverage(pool, labelled, k, rng)
    count = _count(pool, k)
    unsure = uncertainty.margin(pool.probabilities)
    kept = _largest(unsure, min(len(unsure), max(count, min(PREFILTER * count, MOST_CANDIDATES))))
    if not count or len(kept) > MOST_CANDIDATES or not len(labelled):
        return [Pick(int(i), float(unsure[i]), f"margin {unsure[i]:.3f}") for i in kept[:count]]
    points = np.asarray(pool.embeddings[kept], np.float64)
    nearest = _nearest(points, labelled)
    radius = np.sqrt(nearest).mean()
    weights = unsure[kept] + 1e-9
    order, gains = _greedy(_kernel(_distances(points, points), radius), _kernel(nearest, radius), weights, count)
    return [
        Pick(int(kept[i]), float(unsure[kept[i]]), f"margin {unsure[kept[i]]:.3f}, covers {gain:.1%} more")
        for i, gain in zip(order, gains, strict=True)
    ]


def coverage(pool: Pool, labelled: np.ndarray, k: int, rng: np.random.Generator) -> list[Pick]:
    """The k that together, with what is labelled, lie closest to all others; needs no model.

    Greedy maximum of the mean kernel (MaxHerding), radius = mean distance to the nearest of k + M k-means centres.
    """
    count = _count(pool, k)
    if count >= MOST_CANDIDATES:
        return random(pool, labelled, k, rng)
    if not count:
        return []
    size = min(len(pool.embeddings), MOST_CANDIDATES)
    kept = np.sort(rng.permutation(len(pool.embeddings))[:size])
    points = np.asarray(pool.embeddings[kept], np.float64)
    radius = np.sqrt(_nearest(points, _centres(points, min(count + len(labelled), size), rng))).mean()
    covered = _kernel(_nearest(points, labelled), radius) if len(labelled) else np.zeros(size)
    order, gains = _greedy(_kernel(_distances(points, points), radius), covered, np.ones(size), count)
    top = max(gains[0], 1e-12)
    return [
        Pick(int(kept[i]), float(np.clip(gain / top, 0, 1)), f"covers {gain:.1%} more of the pool")
        for i, gain in zip(order, gains, strict=True)
    ]


STRATEGIES: dict[str, Strategy] = {
    "random": random,
    "least_confidence": least_confidence,
    "margin": margin,
    "entropy": entropy,
    "uncertainty_coverage": uncertainty_coverage,
    "coverage": coverage,
}
"""Every strategy by its name. With no probabilities in the pool, all but `random` pick by coverage."""
DEFAULT_STRATEGY = "uncertainty_coverage"


def _count(pool: Pool, k: int) -> int:
    if k < 0:
        raise ValueError(f"k is at least 0, not {k}")
    if pool.probabilities is not None and len(pool.probabilities) != len(pool.embeddings):
        raise ValueError(f"{len(pool.probabilities)} probabilities for {len(pool.embeddings)} embeddings")
    if not np.isfinite(pool.embeddings).all():
        raise ValueError("an embedding is not finite")
    return min(k, len(pool.embeddings))


def _most_uncertain(
    name: str,
    score: Callable[[np.ndarray], np.ndarray],
    pool: Pool,
    labelled: np.ndarray,
    k: int,
    rng: np.random.Generator,
) -> list[Pick]:
    if pool.probabilities is None:
        return coverage(pool, labelled, k, rng)
    count = _count(pool, k)
    values = score(pool.probabilities)
    return [Pick(int(i), float(values[i]), f"{name} {values[i]:.3f}") for i in _largest(values, count)]


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """Indices of the `count` largest values, largest first, the lower index first where they tie; O(N)."""
    if count < len(values):
        least = np.partition(values, len(values) - count)[len(values) - count] if count else np.inf
        above = np.flatnonzero(values > least)
        level = np.flatnonzero(values == least)[: count - len(above)]
        chosen = np.sort(np.concatenate([above, level]))
    else:
        chosen = np.arange(len(values))
    return chosen[np.argsort(-values[chosen], kind="stable")]


def _distances(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances (A, B) of (A, D) and (B, D)."""
    square = (left * left).sum(axis=1)[:, None] + (right * right).sum(axis=1)[None]
    return np.maximum(square - 2.0 * (left @ right.T), 0.0)


def _nearest(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Squared distance (P,) from each point to the nearest of the others, in blocks of bounded memory."""
    best = np.full(len(points), np.inf)
    for start in range(0, len(others), MOST_CANDIDATES):
        block = np.asarray(others[start : start + MOST_CANDIDATES], np.float64)
        best = np.minimum(best, _distances(points, block).min(axis=1))
    return best


def _kernel(squared: np.ndarray, radius: float) -> np.ndarray:
    """RBF kernel exp(-d^2 / (2 r^2)); with a radius of 0 (all points alike) only equal points are close."""
    return np.exp(-squared / max(2.0 * radius * radius, 1e-12))


def _greedy(kernel: np.ndarray, covered: np.ndarray, weights: np.ndarray, k: int) -> tuple[list[int], list[float]]:
    """Greedy maximum of sum_i w_i max_j kernel[i, j]; the picks and the share of all weight each one adds.

    Lazy (Minoux 1978): a gain only shrinks as others are picked, so an old one is a bound, and most stay unlooked at.
    """
    chosen: list[int] = []
    gains: list[float] = []
    bounds = weights @ np.maximum(kernel - covered[:, None], 0.0)
    fresh = np.ones(len(bounds), dtype=bool)
    while len(chosen) < k:
        best = int(bounds.argmax())
        if not fresh[best]:
            stale = _largest(np.where(fresh, -np.inf, bounds), min(LOOKED_AT, int((~fresh).sum())))
            bounds[stale] = weights @ np.maximum(kernel[:, stale] - covered[:, None], 0.0)
            fresh[stale] = True
            continue
        chosen.append(best)
        gains.append(float(bounds[best] / weights.sum()))
        covered = np.maximum(covered, kernel[:, best])
        bounds[best] = -np.inf
        fresh[:] = False
        fresh[chosen] = True
    return chosen, gains


def _centres(points: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """k-means centres (k, D), seeded by k-means++ (Arthur and Vassilvitskii 2007)."""
    chosen = [int(rng.integers(len(points)))]
    nearest = _distances(points, points[chosen]).ravel()
    for _ in range(k - 1):
        total = nearest.sum()
        chosen.append(int(rng.choice(len(points), p=nearest / total)) if total > 0 else chosen[0])
        nearest = np.minimum(nearest, _distances(points, points[chosen[-1:]]).ravel())
    centres = points[chosen]
    for _ in range(KMEANS_STEPS):
        owner = _distances(points, centres).argmin(axis=1)
        sizes = np.bincount(owner, minlength=k)[:, None]
        sums = np.zeros_like(centres)
        np.add.at(sums, owner, points)
        centres = np.where(sizes > 0, sums / np.maximum(sizes, 1), centres)
    return centres
