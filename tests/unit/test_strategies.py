"""Query strategies: unique picks, at most k and at most the pool, the same for the same arguments, and diverse."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.select_uncertain.strategies import DEFAULT_STRATEGY, STRATEGIES, Pool

NAMES = sorted(STRATEGIES)


def pool_of(size: int, seed: int, scored: bool = True, alike: bool = False) -> tuple[Pool, np.ndarray]:
    rng = np.random.default_rng(seed)
    embeddings = np.ones((size, 3)) if alike else rng.normal(size=(size, 3))
    p = rng.dirichlet([0.5] * 4, size=size) if scored else None
    return Pool(embeddings.astype(np.float32), p), rng.normal(size=(int(rng.integers(0, 5)), 3))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, deadline=None)
@given(
    size=st.integers(0, 40),
    k=st.integers(0, 50),
    seed=st.integers(0, 999),
    scored=st.booleans(),
    alike=st.booleans(),
)
def test_picks_are_unique_bounded_and_explained(
    name: str, size: int, k: int, seed: int, scored: bool, alike: bool
) -> None:
    pool, labelled = pool_of(size, seed, scored, alike)
    picks = STRATEGIES[name](pool, labelled, k, np.random.default_rng(seed))
    assert len(picks) == min(k, size)
    assert len({pick.index for pick in picks}) == len(picks)
    assert all(0 <= pick.index < size and 0 <= pick.score <= 1 and pick.reason for pick in picks)
    assert picks == STRATEGIES[name](pool, labelled, k, np.random.default_rng(seed))


@pytest.mark.parametrize("name", ["least_confidence", "margin", "entropy", "uncertainty_coverage"])
def test_the_order_of_the_pool_does_not_matter(name: str) -> None:
    pool, labelled = pool_of(60, 7)
    assert pool.probabilities is not None
    order = np.random.default_rng(8).permutation(60)
    turned = Pool(pool.embeddings[order], pool.probabilities[order])
    here = [pick.index for pick in STRATEGIES[name](pool, labelled, 5, np.random.default_rng(0))]
    there = [int(order[p.index]) for p in STRATEGIES[name](turned, labelled, 5, np.random.default_rng(0))]
    assert here == there


def test_the_default_asks_a_near_duplicate_once() -> None:
    """Ten copies of the least certain sample, and one other cluster: two picks are one of each."""
    embeddings = np.array([[0.0, 0.0]] * 10 + [[5.0, 5.0]] * 10) + np.arange(20)[:, None] * 1e-4
    p = np.array([[0.5, 0.5]] * 10 + [[0.55, 0.45]] * 10)
    picks = STRATEGIES[DEFAULT_STRATEGY](Pool(embeddings, p), np.array([[2.5, -9.0]]), 2, np.random.default_rng(0))
    assert {pick.index < 10 for pick in picks} == {True, False}
    greedy = STRATEGIES["margin"](Pool(embeddings, p), embeddings[:0], 2, np.random.default_rng(0))
    assert all(pick.index < 10 for pick in greedy)


def test_coverage_finds_every_cluster_before_a_second_of_one() -> None:
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(8, 5)) * 20
    points = np.concatenate([centre + rng.normal(size=(40, 5)) for centre in centres])
    owner = np.repeat(np.arange(8), 40)
    picks = STRATEGIES["coverage"](Pool(points), points[:0], 8, rng)
    assert len({owner[pick.index] for pick in picks}) == 8


def test_a_pool_that_does_not_fit_together_is_refused() -> None:
    with pytest.raises(ValueError, match="probabilities for"):
        STRATEGIES["margin"](Pool(np.ones((3, 2)), np.full((2, 2), 0.5)), np.ones((0, 2)), 1, np.random.default_rng(0))
    with pytest.raises(ValueError, match="finite"):
        STRATEGIES["random"](Pool(np.array([[np.nan]])), np.ones((0, 1)), 1, np.random.default_rng(0))
    with pytest.raises(ValueError, match="at least 0"):
        STRATEGIES["random"](Pool(np.ones((3, 2))), np.ones((0, 2)), -1, np.random.default_rng(0))
