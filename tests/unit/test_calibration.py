"""Temperature scaling and the calibration error."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.retrain_trigger.calibration import WIDEST, calibration_error, temperature


def drawn(size: int, scale: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `scale` times too large, and classes drawn from the true probabilities."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(size, 4)) * 2
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    classes = (p.cumsum(axis=1) < rng.random((size, 1))).sum(axis=1)
    return logits * scale, np.minimum(classes, 3)


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_the_scale(scale: float) -> None:
    logits, classes = drawn(4000, scale, 1)
    found = temperature(logits, classes, np.ones(4000))
    assert found == pytest.approx(scale, rel=0.1)

    def error(t: float) -> float:
        p = np.exp(logits / t) / np.exp(logits / t).sum(axis=1, keepdims=True)
        return calibration_error(p, classes)

    assert error(found) < 0.03
    assert scale == 1.0 or error(found) < error(1.0) / 2


@settings(deadline=None)
@given(size=st.integers(0, 12), scale=st.floats(0.1, 10), seed=st.integers(0, 99))
def test_a_temperature_is_bounded_and_few_samples_move_it_little(size: int, scale: float, seed: int) -> None:
    logits, classes = drawn(size, scale, seed)
    found = temperature(logits, classes, np.ones(size))
    assert 1 / WIDEST <= found <= WIDEST
    assert size or found == 1.0
    assert found == pytest.approx(temperature(logits, classes, np.full(size, 7.0)))  # only their shares count


def test_a_class_that_was_never_seen_does_not_break_it() -> None:
    logits = np.array([[-0.1, -2.3, -np.inf], [-1.6, -0.2, -np.inf]])
    assert 1 / WIDEST <= temperature(logits, np.array([0, 1]), np.ones(2)) <= 1


def test_the_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    p = np.array([[0.8, 0.2]] * 10)
    assert calibration_error(p, np.array([0] * 8 + [1] * 2)) == pytest.approx(0.0)
    assert calibration_error(p, np.array([0] * 3 + [1] * 7)) == pytest.approx(0.5)
    assert calibration_error(np.zeros((0, 2)), np.zeros(0, int)) == 0.0
