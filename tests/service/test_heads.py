"""Heads: the labels choose between them, calibrate them, and never judge a model that has seen them."""

import numpy as np
import pytest
from sklearn.datasets import load_digits, make_moons

from services.retrain_trigger.calibration import calibration_error
from services.retrain_trigger.heads import Examples, HeadParams, fit


def digits(labelled: int) -> tuple[Examples, np.ndarray, np.ndarray]:
    data = load_digits()
    x, order = data.data / 16, np.random.default_rng(4).permutation(len(data.target))
    test, given, pool = order[:600], order[600 : 600 + labelled], order[600 + labelled :]
    return Examples(x[given], data.target[given], np.ones(labelled), x[pool]), x[test], data.target[test]


def noise(size: int) -> Examples:
    """Labels that have nothing to do with the samples, and room enough to learn them by heart."""
    rng = np.random.default_rng(7)
    return Examples(rng.normal(size=(size, 300)), rng.integers(0, 2, size), np.ones(size), rng.normal(size=(80, 300)))


@pytest.mark.parametrize("kind", ["spread", "logistic"])
def test_the_folds_do_not_leak(kind: str) -> None:
    examples = noise(120)
    head = fit(examples, HeadParams(head=kind))  # type: ignore[arg-type]
    assert (head.model.predict(examples.embeddings) == examples.classes).all()
    assert 0.3 < head.checked[kind]["accuracy"] < 0.7
    assert head.temperature > 2  # it has no reason to be sure of anything
    assert head.model.predict_proba(examples.unlabelled).max() < 0.95


@pytest.mark.parametrize("labelled", [40, 200])
def test_calibration_brings_confidence_and_accuracy_together(labelled: int) -> None:
    examples, x, y = digits(labelled)
    errors, answers = {}, {}
    for calibrate in (False, True):
        model = fit(examples, HeadParams(calibrate=calibrate)).model
        errors[calibrate] = calibration_error(model.predict_proba(x), y)
        answers[calibrate] = model.predict(x)
    assert (answers[True] == answers[False]).all()  # the likeliest label stays the likeliest
    assert errors[True] < max(errors[False], 0.04)


def test_the_unlabelled_are_used_where_they_help() -> None:
    """Forty labels of digits: the pool helps, and the folds say nothing against it."""
    examples, x, y = digits(40)
    head = fit(examples, HeadParams())
    assert head.kind == "spread"
    assert set(head.checked) == {"spread", "logistic"}
    alone = fit(examples, HeadParams(head="logistic")).model
    assert head.model.score(x, y) > alone.score(x, y) + 0.02


def test_the_unlabelled_are_left_out_where_they_mislead() -> None:
    """Six clusters far apart, each with both labels, and noise beside the one direction that tells them apart."""
    rng = np.random.default_rng(3)
    y, cluster = rng.integers(0, 2, 1400), rng.integers(0, 6, 1400)
    signal, noise = (2 * y - 1 + 0.5 * rng.normal(size=1400))[:, None], 3 * rng.normal(size=(1400, 20))
    x = np.concatenate([signal, 40 * np.eye(6)[cluster], noise], axis=1)
    examples, params = Examples(x[:200], y[:200], np.ones(200), x[400:800]), HeadParams(c=1)
    head = fit(examples, params)
    assert head.kind == "logistic"
    forced = fit(examples, params.model_copy(update={"head": "spread"})).model
    assert head.model.score(x[800:], y[800:]) > forced.score(x[800:], y[800:]) + 0.02


def test_too_few_labels_for_folds_change_nothing() -> None:
    x, y = make_moons(60, random_state=0)
    examples = Examples(x[:8], y[:8], np.ones(8), x[8:])
    head = fit(examples, HeadParams())
    assert head.kind == "spread"
    assert head.temperature == 1.0
    assert not head.checked


def test_a_class_with_one_label_is_trained_and_not_judged() -> None:
    examples, _, _ = digits(60)
    classes = examples.classes.copy()
    classes[0] = 77
    head = fit(Examples(examples.embeddings, classes, examples.weights, examples.unlabelled), HeadParams())
    assert 77 in head.model.classes_
    assert head.checked["spread"]["n"] < 60
