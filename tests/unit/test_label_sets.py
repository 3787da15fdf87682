"""Several labels: Jaccard's index and F1 as scikit-learn has them, and a gate that keeps worse models out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from services.retrain_trigger.gate import GateSettings, judge
from services.retrain_trigger.label_sets import compared, jaccard, scored

LABELS = ("a", "b", "c")
SEED = 20261125
SETS = arrays.arrays(bool, st.tuples(st.integers(1, 30), st.just(3)))


@settings(deadline=None, max_examples=30)
@given(SETS, st.randoms(use_true_random=False))
def test_the_numbers_are_those_of_scikit_learn(truth: np.ndarray, random: st.DataObject) -> None:
    from sklearn.metrics import f1_score, jaccard_score

    said = np.random.default_rng(random.randint(0, 9999)).random(truth.shape) < 0.5  # type: ignore[attr-defined]
    found = scored(truth, said, LABELS)
    assert found["jaccard"] == pytest.approx(jaccard_score(truth, said, average="samples", zero_division=1.0))
    each = f1_score(truth, said, average=None, zero_division=np.nan)
    for at, label in enumerate(LABELS):
        row = found["per_class"][label]
        assert row["n"] == truth[:, at].sum()
        if truth[:, at].any() or said[:, at].any():
            assert row["f1"] == pytest.approx(each[at])  # type: ignore[index]
        else:
            assert row["f1"] is None


@settings(deadline=None)
@given(SETS)
def test_an_equal_answer_is_right_and_differs_by_nothing(truth: np.ndarray) -> None:
    assert (jaccard(truth, truth) == 1).all()
    metrics = compared(truth, truth, truth, LABELS)
    assert metrics["paired"]["difference"] == 0
    assert metrics["paired"]["deviation"] > 0, "few samples without a difference do not prove that there is none"
    assert all(row["difference"] == 0 for row in metrics["paired"]["per_class"].values())
    assert compared(truth, truth, truth, LABELS) == metrics


def wrong(rng: np.random.Generator, truth: np.ndarray, rate: float) -> np.ndarray:
    """Answers in which each label is wrong at that rate."""
    return truth ^ (rng.random(truth.shape) < rate)


@pytest.mark.parametrize("n", [60, 200])
@pytest.mark.parametrize("rate", [0.02, 0.2])
def test_of_candidates_that_are_worse_by_more_than_delta_at_most_5_percent_pass(n: int, rate: float) -> None:
    """`delta` is set just below by how much the candidate is worse in truth, the hardest case."""
    print("seed", SEED)
    rng = np.random.default_rng(SEED)
    many = rng.random((200_000, 3)) < 0.4
    loss = float(jaccard(many, wrong(rng, many, rate)).mean() - jaccard(many, wrong(rng, many, rate * 1.5)).mean())
    rule, passed = GateSettings(delta=loss * 0.98), 0
    for _ in range(200):
        truth = rng.random((n, 3)) < 0.4
        metrics = compared(truth, wrong(rng, truth, rate * 1.5), wrong(rng, truth, rate), LABELS)
        passed += judge(metrics, rule).promote
    assert passed <= 0.05 * 200


def test_most_clearly_better_candidates_pass() -> None:
    rng, passed = np.random.default_rng(SEED), 0
    for _ in range(100):
        truth = rng.random((200, 3)) < 0.4
        passed += judge(compared(truth, wrong(rng, truth, 0.1), wrong(rng, truth, 0.2), LABELS), GateSettings()).promote
    assert passed >= 90


def test_one_lost_label_is_chance_and_a_lost_class_is_a_fall() -> None:
    rng = np.random.default_rng(SEED)
    truth = rng.random((300, 3)) < (0.5, 0.5, 0.03)
    champion = wrong(rng, truth, 0.3)
    champion[:, 2] = truth[:, 2]
    one, lost = truth.copy(), truth.copy()
    one[np.flatnonzero(truth[:, 2])[0], 2] = False
    lost[:, 2] = False
    assert judge(compared(truth, one, champion, LABELS), GateSettings()).promote
    verdict = judge(compared(truth, lost, champion, LABELS), GateSettings())
    assert not verdict.promote
    assert verdict.numbers["fallen"] == {"c": 1.0}
