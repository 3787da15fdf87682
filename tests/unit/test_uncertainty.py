"""Uncertainty scores: within 0..1, a tie is the maximum, the order of classes does not matter."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from services.contracts.uncertainty import SCORES, of_sound

NAMES = sorted(SCORES)


@st.composite
def probabilities(draw: st.DrawFn) -> np.ndarray:
    """(N, C) rows that sum to 1."""
    shape = (draw(st.integers(1, 6)), draw(st.integers(2, 7)))
    raw = draw(arrays(np.float64, shape, elements=st.floats(0, 1, width=32)))
    raw = raw + (raw.sum(axis=1, keepdims=True) == 0)
    return raw / raw.sum(axis=1, keepdims=True)


@given(probabilities())
def test_scores_lie_within_0_and_1(p: np.ndarray) -> None:
    for name, values in of_sound(p).items():
        assert values.shape == (len(p),), name
        assert ((values >= 0) & (values <= 1)).all(), name
        assert values == pytest.approx(SCORES[name](p)), name


@given(probabilities(), st.randoms(use_true_random=False))
def test_the_order_of_classes_does_not_matter(p: np.ndarray, shuffle: "np.random.Generator") -> None:
    order = list(range(p.shape[1]))
    shuffle.shuffle(order)
    for name in NAMES:
        assert SCORES[name](p[:, order]) == pytest.approx(SCORES[name](p), abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("classes", [2, 3, 10, 1000])
def test_a_tie_is_the_maximum_and_certainty_the_minimum(name: str, classes: int) -> None:
    tie = np.full((1, classes), 1 / classes)
    sure = np.eye(classes)[:1]
    assert SCORES[name](tie)[0] == pytest.approx(1.0)
    assert SCORES[name](sure)[0] == 0.0


def test_margin_is_maximal_when_only_the_two_best_tie() -> None:
    assert SCORES["margin"](np.array([[0.5, 0.5, 0.0]]))[0] == 1.0


@pytest.mark.parametrize(
    "wrong",
    [
        np.array([[0.5, np.nan]]),
        np.array([[0.5, np.inf]]),
        np.array([[0.9, 0.9]]),
        np.array([[1.5, -0.5]]),
        np.array([[1.0]]),
        np.array([0.5, 0.5]),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_probability_is_refused(name: str, wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="probabilities"):
        SCORES[name](wrong)
