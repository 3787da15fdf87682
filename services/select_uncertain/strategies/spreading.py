"""Strategies that ask about the uncertain and spread their picks: the default, k-means, BADGE, cluster-margin, Falcun.

All but `badge` and `falcun` pick from the 10 k least certain by margin, which are found in O(N).
"""

import numpy as np

from services.select_uncertain.strategies import geometry
from services.select_uncertain.strategies.coverage import MOST_CANDIDATES, coverage
from services.select_uncertain.strategies.pool import Pick, Pool, any_order, content_order

PREFILTER = 10
"""Candidates that stay per pick after the margin prefilter."""
WEIGHT = 1.5
"""Exponent of the uncertainty in the default's weights."""
FALCUN_POWER = 10.0


def uncertainty_coverage(pool: Pool, labelled: np.ndarray, k: int, rng: np.random.Generator) -> list[Pick]:
    """The default: of the 10 k least certain, those that best cover all that is uncertain.

    UHerding (Bae et al., ICLR 2025) with a prefilter: each sample of the pool (the MOST_CANDIDATES least certain of a
    larger one) is worth its uncertainty to the power of WEIGHT, and more where it may be of a class that is rare in the
    pool; greedily the candidate whose kernel adds most to what is covered is picked. The kernel's radius is the mean
    distance from a candidate to the nearest labelled point, so it shrinks as labels come in, and the picks go from
    spread to uncertain.
    """
    if not pool.is_scored:
        return coverage(pool, labelled, k, rng)
    kept, unsure, count = _least_certain(pool, k, MOST_CANDIDATES)
    if not count or count >= MOST_CANDIDATES:
        return [_pick(kept[i], unsure[i]) for i in range(count)]
    points = np.asarray(pool.embeddings[kept], np.float64)
    candidates = points[: PREFILTER * count]
    known = labelled if len(labelled) else geometry.centres(candidates, np.ones(len(candidates)), count, rng)
    gaps = geometry.nearest(points, known)
    radius = float(np.sqrt(gaps[: len(candidates)]).mean())
    covered = geometry.rbf(gaps, radius) if len(labelled) else np.zeros(len(points))
    kernel = geometry.rbf(geometry.distances(points, candidates), radius)
    weights = (unsure**WEIGHT + 1e-9) * _rarity(pool, kept)
    order, gains = geometry.greedy_cover(kernel, covered, weights, count)
    return [_pick(kept[i], unsure[i], f", covers {gain:.1%} more") for i, gain in zip(order, gains, strict=True)]


def k_means(pool: Pool, labelled: np.ndarray, k: int, rng: np.random.Generator) -> list[Pick]:
    """The least certain by margin, clustered into k by weighted k-means; of each cluster the one nearest its centre.

    Diverse mini-batch active learning (Zhdanov 2019).
    """
    if not pool.is_scored:
        return coverage(pool, labelled, k, rng)
    kept, unsure, count = _least_certain(pool, k)
    if not count or len(kept) > MOST_CANDIDATES:
        return [_pick(kept[i], unsure[i]) for i in range(count)]
    points = np.asarray(pool.embeddings[kept], np.float64)
    gaps = geometry.distances(points, geometry.centres(points, unsure + 1e-9, count, rng))
    picks = []
    for centre in range(count):
        best = int(gaps[:, centre].argmin())
        gaps[best] = np.inf
        picks.append(_pick(kept[best], unsure[best], ", in the middle of a cluster"))
    return picks


def cluster_margin(pool: Pool, labelled: np.ndarray, k: int, rng: np.random.Generator) -> list[Pick]:
    """The least certain by margin, by turns from their clusters, small ones first: Cluster-Margin.

    Citovsky et al., NeurIPS 2021; the clusters are by k-means (k of them), not by average linkage, for O(N) memory.
    """
    if not pool.is_scored:
        return coverage(pool, labelled, k, rng)
    kept, unsure, count = _least_certain(pool, k)
    if not count or len(kept) > MOST_CANDIDATES:
        return [_pick(kept[i], unsure[i]) for i in range(count)]
    points = np.asarray(pool.embeddings[kept], np.float64)
    found = geometry.centres(points, np.ones(len(points)), count, rng)
    owner = geometry.owners(points, found)
    sizes = np.bincount(owner)
    by_certainty = np.lexsort((np.arange(len(kept)), -unsure, owner))
    turn = np.empty(len(kept), np.int64)  # how many of its own cluster come before a candidate
    turn[by_certainty] = np.arange(len(kept)) - np.searchsorted(owner[by_certainty], owner[by_certainty])
    order = np.lexsort((owner, sizes[owner], turn))[:count]
    return [_pick(kept[int(i)], unsure[int(i)], f", of a cluster of {sizes[owner[i]]}") for i in order]


@any_order
def badge(pool: Pool, labelled: np.ndarray, k: int, rng: np.random.Generator) -> list[Pick]:
    """k-means++ seeds among the gradients that a linear head would have if its guess were right: BADGE.

    Ash et al., ICLR 2020. A gradient is (p - onehot(argmax p)) x h; its inner products are products of those of the
    two factors, so that N (C + D) numbers do instead of N C D, for the same distribution of picks.
    """
    if pool.probabilities is None:
        return uncertainty_coverage(pool, labelled, k, rng)
    left = np.array(pool.probabilities, np.float32)
    left[np.arange(len(left)), left.argmax(axis=1)] -= 1.0
    right = np.asarray(pool.embeddings, np.float32)
    squares = (left * left).sum(axis=1) * (right * right).sum(axis=1)
    gaps = squares.copy()
    picks: list[Pick] = []
    for number in range(pool.check(k)):
        best = int(gaps.argmax()) if number == 0 else _drawn(gaps, [pick.index for pick in picks], rng)
        picks.append(Pick(best, _share(gaps[best], gaps.max()), "a gradient unlike the others picked"))
        inner = (left @ left[best]) * (right @ right[best])
        gaps = np.minimum(gaps, np.maximum(squares + squares[best] - 2.0 * inner, 0.0))
        gaps[best] = 0.0
    return picks


@any_order
def falcun(pool: Pool, labelled: np.ndarray, k: int, rng: np.random.Generator) -> list[Pick]:
    """k drawn by margin plus distance to those drawn before, both in the space of probabilities: Falcun.

    Gilhuber et al., ECML 2024. O(N C) time a pick; no embedding is looked at.
    """
    if pool.probabilities is None:
        return uncertainty_coverage(pool, labelled, k, rng)
    unsure = pool.unsure()
    gaps = unsure.copy()
    picks: list[Pick] = []
    for _ in range(pool.check(k)):
        top = gaps.max() - gaps.min()
        relevance = unsure + (gaps - gaps.min()) / (top if top > 0 else 1.0)
        chance = (relevance / max(relevance.max(), 1e-12)) ** FALCUN_POWER
        best = _drawn(chance, [pick.index for pick in picks], rng)
        picks.append(Pick(best, float(unsure[best]), f"drawn by margin {unsure[best]:.3f} and distance"))
        gaps = np.minimum(gaps, np.abs(pool.probabilities - pool.probabilities[best]).sum(axis=1))
    return picks


def _least_certain(pool: Pool, k: int, least: int = 0) -> tuple[np.ndarray, np.ndarray, int]:
    """Places (n,) and scores (n,) of the least certain, least certain first, and how many to pick of them.

    n is PREFILTER for each pick, but MOST_CANDIDATES at most, unless `least` asks for more.
    """
    count = pool.check(k)
    kept, unsure = pool.least_certain(max(count, least, min(PREFILTER * count, MOST_CANDIDATES)))
    order = np.lexsort((content_order(pool.part(kept)).argsort(), -unsure))
    return kept[order], unsure[order], count


def _rarity(pool: Pool, rows: np.ndarray) -> np.ndarray:
    """(n,) the mean of 1 / sqrt(mass of a class in the pool) over the classes that a sample may be of."""
    if pool.probabilities is None:
        return np.ones(len(rows))
    mass = pool.probabilities.sum(axis=0, dtype=np.float64)
    return pool.probabilities[rows] @ (1.0 / np.sqrt(mass + 1.0))


def _pick(index: int | np.integer, unsure: float | np.floating, more: str = "") -> Pick:
    return Pick(int(index), float(unsure), f"margin {unsure:.3f}{more}")


def _drawn(masses: np.ndarray, taken: list[int], rng: np.random.Generator) -> int:
    """An index that is not taken, with a chance in proportion to its mass; the same chance where all are 0."""
    masses = np.asarray(masses, np.float64).copy()
    masses[taken] = 0.0
    if not masses.any():
        masses[:] = 1.0
        masses[taken] = 0.0
    return int(rng.choice(len(masses), p=masses / masses.sum()))


def _share(value: np.floating, top: np.floating) -> float:
    return float(np.clip(value / top, 0.0, 1.0)) if top > 0 else 0.0
