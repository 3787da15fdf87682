"""Distances, kernels, greedy coverage and k-means: what the strategies that spread their picks share."""

import numpy as np

from services.select_uncertain.strategies.largest import largest

BLOCK = 4096
"""Rows of a distance matrix that are held at once."""
KMEANS_STEPS = 10
LOOKED_AT = 16
"""Candidates whose gain is brought up to date at once."""


def distances(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances (A, B) of (A, D) and (B, D)."""
    square = (left * left).sum(axis=1)[:, None] + (right * right).sum(axis=1)[None]
    return np.maximum(square - 2.0 * (left @ right.T), 0.0)


def nearest(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Squared distance (P,) from each point to the nearest of the others (inf without any), in bounded memory."""
    best = np.full(len(points), np.inf, points.dtype)
    for start in range(0, len(points), BLOCK):
        rows = slice(start, start + BLOCK)
        for column in range(0, len(others), BLOCK):
            block = np.asarray(others[column : column + BLOCK], points.dtype)
            best[rows] = np.minimum(best[rows], distances(points[rows], block).min(axis=1))
    return best


def rbf(squared: np.ndarray, radius: float) -> np.ndarray:
    """exp(-d^2 / (2 r^2)); with a radius of 0 (all points alike) only equal points are close."""
    return np.exp(-squared / max(2.0 * radius * radius, 1e-12))


def greedy_cover(kernel: np.ndarray, covered: np.ndarray, weights: np.ndarray, k: int) -> tuple[list[int], list[float]]:
    """Greedy maximum of sum_i w_i max_j kernel[i, j] over k columns j; the picks and the share of weight each adds.

    Lazy (Minoux 1978): a gain only shrinks as others are picked, so an old one is a bound, and most stay unlooked at.
    """
    chosen: list[int] = []
    gains: list[float] = []
    bounds = weights @ np.maximum(kernel - covered[:, None], 0.0)
    fresh = np.ones(len(bounds), dtype=bool)
    total = weights.sum()
    while len(chosen) < k:
        best = int(bounds.argmax())
        if not fresh[best]:
            stale = largest(np.where(fresh, -np.inf, bounds), min(LOOKED_AT, int((~fresh).sum())))
            bounds[stale] = weights @ np.maximum(kernel[:, stale] - covered[:, None], 0.0)
            fresh[stale] = True
            continue
        chosen.append(best)
        gains.append(float(bounds[best] / total))
        covered = np.maximum(covered, kernel[:, best])
        bounds[best] = -np.inf
        fresh[:] = False
        fresh[chosen] = True
    return chosen, gains


def centres(points: np.ndarray, weights: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Weighted k-means centres (k, D) of (P, D), seeded by k-means++ (Arthur and Vassilvitskii 2007)."""
    chosen = [_drawn(weights, rng)]
    gaps = distances(points, points[chosen]).ravel()
    for _ in range(k - 1):
        chosen.append(_drawn(weights * gaps, rng))
        gaps = np.minimum(gaps, distances(points, points[chosen[-1:]]).ravel())
    found = points[chosen]
    for _ in range(KMEANS_STEPS):
        owner = owners(points, found)
        mass = np.bincount(owner, weights, minlength=k)[:, None]
        sums = np.zeros_like(found)
        np.add.at(sums, owner, points * weights[:, None])
        found = np.where(mass > 0, sums / np.maximum(mass, 1e-300), found)
    return found


def owners(points: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Index (P,) of the nearest centre of each point, in bounded memory."""
    parts = [distances(points[at : at + BLOCK], found).argmin(axis=1) for at in range(0, len(points), BLOCK)]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _drawn(masses: np.ndarray, rng: np.random.Generator) -> int:
    """An index, each with a chance in proportion to its mass; the same chance where there is none."""
    total = masses.sum()
    return int(rng.choice(len(masses), p=masses / total)) if total > 0 else int(rng.integers(len(masses)))
