"""Strategies that spread their picks over the embeddings alone; they need no model: the cold start, and k-center."""

import numpy as np

from services.select_uncertain.strategies import geometry
from services.select_uncertain.strategies.pool import Pick, Pool, any_order

MOST_CANDIDATES = 4096
"""Most candidates that a coverage step compares with each other (a 128 MiB kernel matrix)."""


@any_order
def coverage(pool: Pool, labelled: np.ndarray, k: int, rng: np.random.Generator) -> list[Pick]:
    """The k that together, with what is labelled, lie closest to all others: for when there is no model.

    Greedy maximum of the mean kernel (MaxHerding, Bae et al., ECCV 2024) over at most MOST_CANDIDATES drawn from the
    pool; radius = mean distance to the nearest of k + M k-means centres.
    """
    count = pool.check(k)
    size = min(len(pool), MOST_CANDIDATES)
    kept = np.sort(rng.permutation(len(pool))[:size])
    if count >= MOST_CANDIDATES:
        return [Pick(int(i), 0.5, "random") for i in rng.permutation(len(pool))[:count]]
    points = np.asarray(pool.embeddings[kept], np.float64)
    found = geometry.centres(points, np.ones(size), min(count + len(labelled), size), rng)
    radius = float(np.sqrt(geometry.nearest(points, found)).mean())
    covered = geometry.rbf(geometry.nearest(points, labelled), radius) if len(labelled) else np.zeros(size)
    order, gains = geometry.greedy_cover(
        geometry.rbf(geometry.distances(points, points), radius), covered, np.ones(size), count
    )
    top = max([*gains, 1e-12])
    return [
        Pick(int(kept[i]), float(np.clip(gain / top, 0, 1)), f"covers {gain:.1%} more of the pool")
        for i, gain in zip(order, gains, strict=True)
    ]


@any_order
def k_center(pool: Pool, labelled: np.ndarray, k: int, rng: np.random.Generator) -> list[Pick]:
    """k by turns the one farthest from all that is labelled or picked: CoreSet (Sener and Savarese, ICLR 2018).

    Greedy 2-approximation (Gonzalez 1985). O(N) memory beside the pool, O(k N D) time. Without labels it begins with
    the sample nearest to the mean.
    """
    points = np.asarray(pool.embeddings, np.float32)
    squares = (points * points).sum(axis=1)
    gaps = geometry.nearest(points, labelled)
    picks: list[Pick] = []
    top = 0.0
    for _ in range(pool.check(k)):
        first = np.isinf(gaps).all()
        best = _middle(points) if first else int(gaps.argmax())
        far = 0.0 if first else float(np.sqrt(max(gaps[best], 0.0)))
        top = max(top, far)
        score = 1.0 if first or not top else far / top
        picks.append(Pick(best, score, f"{far:.3g} from the nearest that is asked"))
        gaps = np.minimum(gaps, np.maximum(squares + squares[best] - 2.0 * (points @ points[best]), 0.0))
        gaps[[pick.index for pick in picks]] = -1.0
    return picks


def _middle(points: np.ndarray) -> int:
    return int(geometry.distances(points, points.mean(axis=0, keepdims=True)).argmin())
