"""What the selection benchmark says of its curves."""

import numpy as np
import pytest

from bench.selection.statistics import area, difference, labels_needed, summary

LABELS = np.array([20.0, 40.0, 60.0])


def test_labels_needed_lie_on_the_line_between_two_batches() -> None:
    curve = np.array([0.5, 0.7, 0.9])
    assert labels_needed(LABELS, curve, 0.8) == pytest.approx(50)
    assert labels_needed(LABELS, curve, 0.4) == 20
    assert labels_needed(LABELS, curve, 0.95) is None


def test_the_area_is_the_mean_height() -> None:
    assert area(LABELS, np.array([[0.5, 0.5, 0.5], [0.0, 0.5, 1.0]])) == pytest.approx([0.5, 0.5])


def test_a_paired_difference_does_not_see_what_both_share() -> None:
    shared = np.random.default_rng(0).normal(size=10)
    mean, low, high = difference(shared + 0.01, shared)
    assert mean == pytest.approx(0.01)
    assert low == pytest.approx(0.01)
    assert high == pytest.approx(0.01)
    _, low, high = difference(np.random.default_rng(1).normal(size=10), shared)
    assert low < 0 < high


def test_a_summary_is_of_the_mean_curve_with_an_interval_over_seeds() -> None:
    found = summary([_run(s) for s in range(5)])
    low, high = found["labels_to_97_ci"]
    assert low <= found["labels_to_97"] <= high
    assert found["budget"] == 60
    assert found["seconds"] == 0.5


def test_the_area_ends_at_the_budget_where_a_curve_goes_on() -> None:
    short = summary([_run(s) | {"budget": 40} for s in range(5)])
    assert short["budget"] == 40
    assert short["aulc"] == pytest.approx(np.mean([0.6 + 0.005 * s for s in range(5)]))
    assert short["labels_to_97"] > 40


def _run(seed: int) -> dict[str, object]:
    scores = [0.5, 0.7 + 0.01 * seed, 0.9]
    return {"labels": LABELS.tolist(), "scores": scores, "budget": 60, "full": 0.9, "seconds": 1.0}


def test_seeds_that_begin_with_more_labels_than_others_are_compared_where_all_are() -> None:
    later = _run(1)
    later = {**later, "labels": later["labels"][1:], "scores": later["scores"][1:]}
    assert summary([_run(0), later])["curve"][0] == later["labels"]
