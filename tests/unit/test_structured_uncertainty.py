"""Scores of samples with several labels, boxes or windows, and of labels to ask for again."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from services.contracts.structured_uncertainty import detections, multi_label, windows
from services.contracts.uncertainty import margin
from services.select_uncertain.strategies.relabel import NO_VOTE, relabel_scores

unit = st.floats(0, 1, width=32)


@given(arrays(np.float64, st.tuples(st.integers(0, 6), st.integers(1, 5)), elements=unit), st.randoms())
def test_multi_label_lies_within_0_and_1_and_follows_the_order_of_samples(p: np.ndarray, shuffle) -> None:
    order = list(range(len(p)))
    shuffle.shuffle(order)
    for how in ("max", "mean", "cardinality"):
        values = multi_label(p, how)
        assert values.shape == (len(p),)
        assert ((values >= 0) & (values <= 1)).all()
        assert multi_label(p[order], how) == pytest.approx(values[order])


def test_multi_label_tells_one_doubt_from_many() -> None:
    p = np.array([[0.5, 0.0, 0.0], [0.3, 0.3, 0.3], [1.0, 0.0, 0.0]])
    assert multi_label(p, "max") == pytest.approx([1.0, 0.6, 0.0])
    assert multi_label(p, "mean") == pytest.approx([1 / 3, 0.6, 0.0])
    more = np.array([[0.9, 0.9, 0.9, 0.9], [0.9, 0.1, 0.1, 0.1], [0.9, 0.1, 0.1, 0.1], [0.9, 0.1, 0.1, 0.1]])
    assert multi_label(more, "cardinality").argmax() == 0  # as unsure, but of a number of labels that is unusual


boxes = st.integers(0, 8).flatmap(
    lambda n: st.tuples(arrays(np.float64, n, elements=unit), arrays(np.int64, n, elements=st.integers(0, 3)))
)


@given(boxes, st.randoms())
def test_a_sample_s_boxes_may_come_in_any_order(given_boxes: tuple[np.ndarray, np.ndarray], shuffle) -> None:
    scores, owners = given_boxes
    order = list(range(len(scores)))
    shuffle.shuffle(order)
    for how in ("max", "mean", "sum", "margin"):
        values = detections(scores, owners, 4, how)
        assert ((values >= 0) & (values <= 1)).all()
        assert (values[np.bincount(owners, minlength=4) == 0] == 0).all()
        assert detections(scores[order], owners[order], 4, how) == pytest.approx(values)


def test_boxes_are_aggregated_as_asked() -> None:
    scores, owners = np.array([0.5, 0.9, 0.9, 0.8, 0.8]), np.array([0, 0, 1, 2, 2])
    assert detections(scores, owners, 4, "max") == pytest.approx([1.0, 0.2, 0.4, 0.0])
    assert detections(scores, owners, 4, "mean") == pytest.approx([0.6, 0.2, 0.4, 0.0])
    assert detections(scores, owners, 4, "sum") == pytest.approx([1.2 / 2.2, 0.2 / 1.2, 0.8 / 1.8, 0.0])
    assert detections(scores, owners, 4, "margin") == pytest.approx([0.6, 0.1, 1.0, 0.0])
    classes = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    assert detections(classes, np.array([0, 1]), 2, "max") == pytest.approx([1.0, 0.0])


def test_windows_see_the_doubtful_stretch() -> None:
    p = np.array([[0.9, 0.1]] * 4 + [[0.5, 0.5]] * 2 + [[0.1, 0.9], [0.9, 0.1]] * 2)
    assert windows(p, 2, 2, "mean") == pytest.approx([0.2, 0.2, 1.0, 0.2, 0.2])
    assert windows(p, 3, 3, "max") == pytest.approx([0.2, 1.0, 0.2])
    assert windows(p, 5, 5, "flips") == pytest.approx([0.0, 1.0])
    assert windows(p, 1, 1, "mean") == pytest.approx(margin(p))
    assert windows(p, 1, 1, "flips") == pytest.approx(np.zeros(10))
    assert len(windows(p, 11, 1)) == 0


@pytest.mark.parametrize(
    "refused",
    [
        lambda: multi_label(np.array([[0.5, np.nan]])),
        lambda: multi_label(np.array([[1.5]])),
        lambda: detections(np.array([np.nan]), np.array([0]), 1),
        lambda: detections(np.array([0.5]), np.array([1]), 1),
        lambda: detections(np.array([0.5]), np.array([0, 0]), 1),
        lambda: windows(np.array([[0.5, np.nan]]), 1, 1),
        lambda: windows(np.array([[0.5, 0.5]]), 0, 1),
        lambda: relabel_scores(np.array([[0.5, np.nan]]), np.array([[0]])),
        lambda: relabel_scores(np.array([[0.5, 0.5]]), np.array([[2]])),
        lambda: relabel_scores(np.array([[0.5, 0.5]]), np.array([[0], [0]])),
    ],
)
def test_what_is_no_answer_is_refused(refused) -> None:
    with pytest.raises(ValueError, match=r"0\.\.|within|owners|long|beside"):
        refused()


@settings(deadline=None)
@given(st.integers(0, 20), st.integers(0, 4), st.integers(0, 999))
def test_relabel_scores_lie_within_0_and_1_whatever_the_order(size: int, people: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, votes = rng.dirichlet([1] * 3, size=size), rng.integers(NO_VOTE, 3, (size, people))
    scores = relabel_scores(p, votes)
    assert scores.shape == (size,)
    assert ((scores >= 0) & (scores <= 1)).all()
    order = rng.permutation(size)
    assert relabel_scores(p[order], votes[order]) == pytest.approx(scores[order])


def test_a_second_opinion_is_asked_where_voices_differ_first() -> None:
    """40 samples of which most are agreed on; then: agreed twice, once, not at all by anybody, and disputed."""
    p = np.tile([[0.9, 0.1], [0.1, 0.9]], (20, 1))
    votes = np.tile([[0, 0, NO_VOTE], [1, 1, NO_VOTE]], (20, 1))
    odd_p = np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.5, 0.5]])
    odd_votes = np.array([[0, 0, 0], [0, NO_VOTE, NO_VOTE], [NO_VOTE] * 3, [0, 1, NO_VOTE]])
    thrice, once, never, disputed = relabel_scores(np.vstack([p, odd_p]), np.vstack([votes, odd_votes]))[40:]
    assert thrice < once < never < disputed
