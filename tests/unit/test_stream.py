"""Top-k in O(k) memory, thresholds under drift, near-duplicates. Rows D5, D18; issue 6 point 2."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.select_uncertain.duplicates import fresh
from services.select_uncertain.stream import AdaptiveThreshold, TopK

values = st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]) | st.floats(0, 1), max_size=200)


@given(values, st.integers(0, 20), st.lists(st.integers(1, 50), min_size=1, max_size=20), st.integers(0, 9))
def test_the_k_best_of_a_stream_are_those_of_the_whole_whatever_the_chunks_and_the_order(
    scores: list[float], k: int, chunks: list[int], seed: int
) -> None:
    keys = np.arange(len(scores))
    expected = [(int(key), scores[key]) for key in np.lexsort((keys, -np.array(scores)))[:k]]
    order = np.random.default_rng(seed).permutation(len(scores))
    top, at = TopK(k), 0
    for size in [*chunks, len(scores) + 1]:
        part = order[at : at + size]
        top.push(np.array(scores)[part], keys[part])
        at += size
    assert top.best() == expected


def test_the_memory_of_a_top_k_does_not_grow_with_the_stream() -> None:
    import tracemalloc

    rng, top = np.random.default_rng(0), TopK(100)
    top.push(rng.random(50_000), np.arange(50_000))
    tracemalloc.start()
    for turn in range(1, 10):
        top.push(rng.random(50_000), np.arange(turn * 50_000, (turn + 1) * 50_000))
        assert len(top.best()) == 100
    chunk = 2 * 50_000 * 8
    assert tracemalloc.get_traced_memory()[1] < chunk + 500_000
    tracemalloc.stop()


def test_keys_may_be_names_and_nan_is_refused() -> None:
    top = TopK(2)
    top.push(np.array([0.1, 0.9, 0.9]), np.array(["c", "b", "a"]))
    assert top.best() == [("a", 0.9), ("b", 0.9)]
    with pytest.raises(ValueError, match="not a number"):
        top.push(np.array([math.nan]), np.array(["d"]))


DRIFTS = {
    "none": lambda x, t: x,
    "up": lambda x, t: x + 5 * t,
    "down": lambda x, t: x - 5 * t,
    "waves": lambda x, t: x + np.sin(t * 20),
    "jump": lambda x, t: np.where(t < 0.5, x, 0.1 * x),
    "ties": lambda x, t: np.round(x * 2) / 2,
    "constant": lambda x, t: np.full_like(x, 0.5),
}


@settings(max_examples=15)
@given(st.sampled_from(sorted(DRIFTS)), st.floats(0.02, 0.9), st.integers(0, 2**20))
def test_a_threshold_holds_its_share_whatever_drifts(drift: str, share: float, seed: int) -> None:
    count = 2000
    scores = DRIFTS[drift](np.random.default_rng(seed).random(count), np.linspace(0, 1, count))
    threshold = AdaptiveThreshold(share, 200)
    taken = np.array(threshold.push(scores))
    assert (np.cumsum(taken) <= share * np.arange(1, count + 1) + share + 1e-6).all(), "the budget is never exceeded"
    assert threshold.taken >= share * count - max(25, 0.02 * count), "nor left lying about"
    if drift in ("none", "jump") and share < 0.8:
        assert scores[taken].mean() > scores.mean(), "and it takes the higher ones"


def test_a_threshold_goes_on_where_it_was() -> None:
    scores = np.random.default_rng(1).random(600).tolist()
    whole = AdaptiveThreshold(0.1, 100)
    expected = whole.push(scores)
    first = AdaptiveThreshold(0.1, 100)
    got = first.push(scores[:250])
    assert got + AdaptiveThreshold(0.1, 100, first.state).push(scores[250:]) == expected
    with pytest.raises(ValueError, match="not a number"):
        whole.push([math.nan])


@settings(max_examples=30)
@given(st.integers(0, 30), st.integers(0, 10), st.floats(0, 0.5), st.integers(0, 99))
def test_no_two_that_stay_are_near_duplicates_and_none_of_what_was_asked(
    n: int, m: int, distance: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    vectors, asked = rng.normal(size=(n, 3)), rng.normal(size=(m, 3))
    vectors[n // 2 :] = vectors[: n - n // 2] * rng.uniform(0.5, 2)  # the same direction: a distance of 0
    kept = fresh(vectors, asked, distance)
    unit = lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True)  # noqa: E731
    stays = unit(vectors[kept])
    near = 1 - stays @ stays.T + 3 * np.eye(len(stays))
    assert not len(stays) or near.min() > distance
    assert not len(stays) or not m or (1 - stays @ unit(asked).T).min() > distance
    for row in np.flatnonzero(~kept):
        others = np.concatenate([unit(vectors[:row][kept[:row]]), unit(asked)])
        assert (1 - unit(vectors[row : row + 1]) @ others.T).min() <= distance + 2e-6
    assert kept.sum() <= max(n - n // 2, 1) or n < 2


def test_an_embedding_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        fresh(np.array([[math.nan, 1.0]]), np.zeros((0, 2)), 0.1)
