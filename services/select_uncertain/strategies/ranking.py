"""Strategies that look at one sample at a time: random, by a score of the probabilities, by a score with noise."""

from collections.abc import Callable

import numpy as np

from services.contracts import uncertainty
from services.select_uncertain.strategies.coverage import coverage
from services.select_uncertain.strategies.largest import largest
from services.select_uncertain.strategies.pool import Pick, Pool, any_order

POWER = 1.0
"""Exponent of the scores in `power_margin`; the paper's default."""


@any_order
def random(pool: Pool, labelled: np.ndarray, k: int, rng: np.random.Generator) -> list[Pick]:
    """k samples, each with the same chance: the baseline and the control."""
    chosen = rng.permutation(len(pool))[: pool.check(k)]
    return [Pick(int(index), 0.5, "random") for index in chosen]


def least_confidence(pool: Pool, labelled: np.ndarray, k: int, rng: np.random.Generator) -> list[Pick]:
    """The k whose best class has the lowest probability (Lewis and Gale 1994)."""
    return _ranked("least_confidence", uncertainty.least_confidence, pool, labelled, k, rng)


def entropy(pool: Pool, labelled: np.ndarray, k: int, rng: np.random.Generator) -> list[Pick]:
    """The k whose probabilities are spread most (Shannon 1948)."""
    return _ranked("entropy", uncertainty.entropy, pool, labelled, k, rng)


def margin(pool: Pool, labelled: np.ndarray, k: int, rng: np.random.Generator) -> list[Pick]:
    """The k whose two best classes are closest (Scheffer et al. 2001); O(k) memory beside the pool."""
    if not pool.is_scored:
        return coverage(pool, labelled, k, rng)
    chosen, values = pool.least_certain(pool.count(k))
    return [Pick(int(i), float(v), f"margin {v:.3f}") for i, v in zip(chosen, values, strict=True)]


@any_order
def power_margin(pool: Pool, labelled: np.ndarray, k: int, rng: np.random.Generator) -> list[Pick]:
    """k drawn without replacement, each with a chance that grows as its margin score to the power of `POWER`.

    Stochastic batch acquisition (Kirsch et al., TMLR 2023): the largest of POWER log s + Gumbel noise.
    """
    if not pool.is_scored:
        return coverage(pool, labelled, k, rng)
    values = pool.unsure()
    keys = POWER * np.log(values + 1e-12) + rng.gumbel(size=len(values))
    return [Pick(int(i), float(values[i]), f"drawn by margin {values[i]:.3f}") for i in largest(keys, pool.check(k))]


def _ranked(
    name: str,
    score: Callable[[np.ndarray], np.ndarray],
    pool: Pool,
    labelled: np.ndarray,
    k: int,
    rng: np.random.Generator,
) -> list[Pick]:
    if not pool.is_scored:
        return coverage(pool, labelled, k, rng)
    count = pool.check(k)
    values = pool.unsure() if pool.probabilities is None else score(pool.probabilities)
    return [Pick(int(i), float(values[i]), f"{name} {values[i]:.3f}") for i in largest(values, count)]
