"""Query strategies: unique picks, at most k and at most the pool, the same for the same arguments, and diverse."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.contracts import uncertainty
from services.select_uncertain.strategies import DEFAULT_STRATEGY, STRATEGIES, Pool
from services.select_uncertain.strategies.largest import largest, least_certain

NAMES = sorted(STRATEGIES)
SEEDS = {"size": st.integers(0, 40), "k": st.integers(0, 50), "seed": st.integers(0, 999)}


def pool_of(size: int, seed: int, kind: str = "scored") -> tuple[Pool, np.ndarray]:
    """A pool and 0..4 labelled points. Kinds: scored, unscored, alike (all equal), tied, copies, sure, own-score."""
    rng = np.random.default_rng(seed)
    embeddings = np.ones((size, 3)) if kind == "alike" else rng.normal(size=(size, 3))
    p = rng.dirichlet([0.5] * 4, size=size)
    if kind == "copies":
        embeddings, p = embeddings[rng.integers(0, size, size) // 2], p[rng.integers(0, size, size) // 2]
    if kind in ("tied", "alike"):
        p = np.full((size, 4), 0.25)
    if kind == "sure":
        p = np.eye(4)[rng.integers(0, 4, size)]
    labelled = rng.normal(size=(int(rng.integers(0, 5)), 3))
    if kind == "unscored":
        return Pool(embeddings.astype(np.float32)), labelled
    if kind == "own-score":
        return Pool(embeddings.astype(np.float32), uncertainty=rng.random(size)), labelled
    return Pool(embeddings.astype(np.float32), p.astype(np.float32)), labelled


KINDS = st.sampled_from(["scored", "unscored", "alike", "tied", "copies", "sure", "own-score"])


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25)
@given(**SEEDS, kind=KINDS)
def test_picks_are_unique_bounded_and_explained(name: str, size: int, k: int, seed: int, kind: str) -> None:
    """Whatever the pool: empty, of one, smaller than k, full of ties or of copies."""
    pool, labelled = pool_of(size, seed, kind)
    picks = STRATEGIES[name](pool, labelled, k, np.random.default_rng(seed))
    assert len(picks) == min(k, size)
    assert len({pick.index for pick in picks}) == len(picks)
    assert all(0 <= pick.index < size and 0 <= pick.score <= 1 and pick.reason for pick in picks)
    assert picks == STRATEGIES[name](pool, labelled, k, np.random.default_rng(seed))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15)
@given(size=st.integers(1, 40), k=st.integers(1, 12), seed=st.integers(0, 999), scored=st.booleans())
def test_the_order_of_the_pool_does_not_matter(name: str, size: int, k: int, seed: int, scored: bool) -> None:
    pool, labelled = pool_of(size, seed, "scored" if scored else "unscored")
    order = np.random.default_rng(seed + 1).permutation(size)
    here = [pick.index for pick in STRATEGIES[name](pool, labelled, k, np.random.default_rng(0))]
    there = STRATEGIES[name](pool.part(order), labelled, k, np.random.default_rng(0))
    assert here == [int(order[pick.index]) for pick in there]


@pytest.mark.parametrize("name", NAMES)
def test_copies_may_come_in_any_order_and_the_same_content_is_picked(name: str) -> None:
    pool, labelled = pool_of(30, 5)
    assert pool.probabilities is not None
    twice = Pool(np.repeat(pool.embeddings, 2, axis=0), np.repeat(pool.probabilities, 2, axis=0))
    order = np.random.default_rng(1).permutation(60)
    here = STRATEGIES[name](twice, labelled, 9, np.random.default_rng(0))
    there = STRATEGIES[name](twice.part(order), labelled, 9, np.random.default_rng(0))
    assert sorted(pick.index // 2 for pick in here) == sorted(int(order[pick.index]) // 2 for pick in there)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_finite_or_does_not_fit_is_refused(name: str) -> None:
    def picked(embeddings: np.ndarray, p: np.ndarray | None, k: int = 1) -> None:
        STRATEGIES[name](Pool(embeddings, p), np.zeros((1, 2)), k, np.random.default_rng(0))

    half = np.full((3, 2), 0.5)
    with pytest.raises(ValueError, match="probabilities for"):
        picked(np.ones((3, 2)), half[:2])
    with pytest.raises(ValueError, match="at least 0"):
        picked(np.ones((3, 2)), half, -1)
    for wrong in (np.nan, np.inf):
        broken = half.copy()
        broken[1, 0] = wrong
        with pytest.raises(ValueError, match="finite"):
            picked(np.ones((3, 2)), broken)
        if name not in ("margin", "least_confidence", "entropy"):  # which look at no embedding
            with pytest.raises(ValueError, match="finite"):
                picked(np.where(half == broken, 1.0, wrong), half)


@given(
    size=st.integers(0, 300),
    classes=st.integers(2, 7),
    k=st.integers(0, 40),
    seed=st.integers(0, 999),
    major=st.booleans(),
    tied=st.booleans(),
    double=st.booleans(),
)
def test_the_stream_of_margins_is_the_exact_top_k(
    size: int, classes: int, k: int, seed: int, major: bool, tied: bool, double: bool
) -> None:
    """Against the whole array sorted, in both layouts and with ties; a block has at least 64 rows."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet([1.0] * classes, size=size)
    if tied:
        p = np.round(p * 4) / 4
        p[:, -1] = np.clip(1 - p[:, :-1].sum(axis=1), 0, 1)
        p /= p.sum(axis=1, keepdims=True)
    p = p.astype(np.float64 if double else np.float32)
    p = np.asfortranarray(p) if major else p
    places, values = least_certain(p, k)
    wanted = uncertainty.margin(p) if size else np.zeros(0)
    assert len(set(places.tolist())) == len(places) == min(k, size)
    assert values == pytest.approx(np.sort(wanted)[::-1][:k], abs=1e-6)
    assert wanted[places] == pytest.approx(values, abs=1e-6)
    assert list(places) == list(largest(values, len(values)) if not len(values) else places)


def test_the_stream_crosses_blocks_and_prefers_the_lower_index_where_margins_tie(monkeypatch) -> None:
    monkeypatch.setattr("services.select_uncertain.strategies.largest.BLOCK_BYTES", 1)  # blocks of 64 rows
    p = np.tile(np.array([[0.7, 0.3], [0.5, 0.5]], np.float32), (200, 1))
    places, values = least_certain(p, 5)
    assert list(places) == [1, 3, 5, 7, 9]
    assert list(values) == [1.0] * 5
    p[390, 0] = np.nan
    with pytest.raises(ValueError, match="finite"):
        least_certain(p, 5)


@pytest.mark.parametrize("name", [DEFAULT_STRATEGY, "k_means"])
def test_a_near_duplicate_is_asked_once(name: str) -> None:
    """Ten copies of the least certain sample, and one other cluster: two picks are one of each."""
    embeddings = np.array([[0.0, 0.0]] * 10 + [[5.0, 5.0]] * 10) + np.arange(20)[:, None] * 1e-4
    p = np.array([[0.5, 0.5]] * 10 + [[0.55, 0.45]] * 10)
    picks = STRATEGIES[name](Pool(embeddings, p), np.array([[2.5, -9.0]]), 2, np.random.default_rng(0))
    assert {pick.index < 10 for pick in picks} == {True, False}
    greedy = STRATEGIES["margin"](Pool(embeddings, p), embeddings[:0], 2, np.random.default_rng(0))
    assert all(pick.index < 10 for pick in greedy)


@pytest.mark.parametrize("name", ["coverage", "k_center"])
def test_coverage_finds_every_cluster_before_a_second_of_one(name: str) -> None:
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(8, 5)) * 20
    points = np.concatenate([centre + rng.normal(size=(40, 5)) for centre in centres])
    owner = np.repeat(np.arange(8), 40)
    picks = STRATEGIES[name](Pool(points), points[:0], 8, rng)
    assert len({owner[pick.index] for pick in picks}) == 8


def test_badge_draws_as_if_it_held_the_gradients_themselves() -> None:
    """The factors give the distances between the N x (C D) gradients, so the same draws."""
    pool, _ = pool_of(30, 11)
    assert pool.probabilities is not None
    left = pool.probabilities.astype(np.float64)
    left[np.arange(30), left.argmax(axis=1)] -= 1
    gradients = (left[:, :, None] * pool.embeddings[:, None]).reshape(30, -1)
    picks = [pick.index for pick in STRATEGIES["badge"](pool, np.zeros((0, 3)), 30, np.random.default_rng(2))]
    assert picks[0] == int((gradients**2).sum(axis=1).argmax())
    counts = np.zeros(30)
    for seed in range(400):
        counts[STRATEGIES["badge"](pool, np.zeros((0, 3)), 2, np.random.default_rng(seed))[1].index] += 1
    gaps = ((gradients - gradients[picks[0]]) ** 2).sum(axis=1)
    assert counts / 400 == pytest.approx(gaps / gaps.sum(), abs=0.1)


@pytest.mark.parametrize("name", ["power_margin", "falcun"])
def test_a_stochastic_strategy_prefers_the_uncertain_and_varies(name: str) -> None:
    p = np.array([[0.5, 0.5]] * 20 + [[0.99, 0.01]] * 80)
    pool = Pool(np.random.default_rng(0).normal(size=(100, 2)), p)
    runs = [STRATEGIES[name](pool, np.zeros((0, 2)), 5, np.random.default_rng(seed)) for seed in range(20)]
    assert np.mean([[pick.index < 20 for pick in picks] for picks in runs]) > 0.6
    assert len({tuple(pick.index for pick in picks) for picks in runs}) > 10
