"""Drift of the scores: found when there is some, seldom found when there is none."""

from typing import Any

import numpy as np
import pytest

from services.retrain_trigger.drift import added, homogeneity, no_drift, stability

SEED = 20261125
BINS, WINDOW, PSI = 20, 500, 0.2


def histogram(rng: np.random.Generator, sharpness: float, samples: int) -> list[int]:
    """Confidences of a model: the sharper, the surer."""
    return np.histogram(rng.beta(sharpness, 1.0, samples), BINS, (0, 1))[0].tolist()


def watched(rng: np.random.Generator, sharpness: Any, windows: int) -> list[bool]:
    """Whether each window after the reference is taken for drift; they come in summaries of 100."""
    state, found = no_drift("mdl_1"), []
    for number in range((windows + 1) * WINDOW // 100):
        state = added(state, str(number), histogram(rng, sharpness(number * 100 / WINDOW - 1), 100), WINDOW, PSI)
        if len(found) < state["windows"]:
            found.append(state["last"]["drift"])
    assert len(found) == windows
    return found


def test_a_stationary_stream_is_seldom_taken_for_drift() -> None:
    print("seed", SEED)
    rng = np.random.default_rng(SEED)
    found = [drift for _ in range(40) for drift in watched(rng, lambda at: 6.0, 25)]
    assert len(found) == 1000
    assert sum(found) <= 2


@pytest.mark.parametrize("after", [3.0, 15.0])
def test_a_change_is_found_in_its_first_whole_window(after: float) -> None:
    rng = np.random.default_rng(SEED)
    for _ in range(50):
        found = watched(rng, lambda at: 6.0 if at < 5 else after, 6)
        assert found == [False] * 5 + [True]


def test_a_slow_drift_is_found_since_the_reference_stays() -> None:
    rng = np.random.default_rng(SEED)
    found = watched(rng, lambda at: 6.0 - max(at, 0) * 0.2, 20)
    assert not any(found[:3])
    assert all(found[-3:])


def test_a_small_change_is_left_alone_however_sure() -> None:
    rng = np.random.default_rng(SEED)
    state = no_drift("mdl_1")
    for number, sharpness in enumerate((6.0, 6.6)):
        state = added(state, str(number), histogram(rng, sharpness, 100_000), 100_000, PSI)
    assert state["last"]["p"] < 1e-6
    assert not state["last"]["drift"]


def test_a_summary_that_comes_twice_counts_once() -> None:
    once = added(no_drift("mdl_1"), "a", [1, 2], 100, PSI)
    assert added(once, "a", [1, 2], 100, PSI) == once


def test_the_numbers_are_those_of_their_definitions() -> None:
    from scipy.stats import chi2_contingency

    old, new = [50, 30, 20], [20, 30, 50]
    assert homogeneity(old, new) == pytest.approx(chi2_contingency([old, new], correction=False).pvalue)
    assert homogeneity([0, 0, 3], [0, 0, 3]) == 1.0
    a, b = ((np.array(counts) + 0.5) / 101.5 for counts in (old, new))
    assert stability(old, new) == pytest.approx(sum((b - a) * np.log(b / a)))
    assert stability(old, old) == 0
