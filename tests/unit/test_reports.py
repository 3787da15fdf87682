"""What a backend reports: a number that the gate needs and that is not there fails the run, and is never 0."""

import copy
from typing import Any

import numpy as np
import pytest

from services.retrain_trigger import label_sets
from services.retrain_trigger.backends import BadOutcome
from services.retrain_trigger.evaluation import compared
from services.retrain_trigger.reports import checked

TASK = "image-classification"
SNAPSHOT = {"evaluation_sha256": "e", "counts": {"evaluation": 4}}
METRICS = compared(["a", "b", "a", "b"], ["a", "b", "a", "a"], ["a", "a", "a", "a"], ["a", "b"])
GOOD = {"evaluation_sha256": "e", "metrics": METRICS}


def without(*path: str) -> dict[str, Any]:
    result = copy.deepcopy(GOOD)
    place: Any = result
    for name in path[:-1]:
        place = place[name]
    del place[path[-1]]
    return result


def changed(value: Any, *path: str) -> dict[str, Any]:
    result = copy.deepcopy(GOOD)
    place: Any = result
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return result


def test_what_is_whole_is_taken() -> None:
    assert checked(GOOD, SNAPSHOT, "mdl_1", TASK) is GOOD["metrics"]
    assert checked({"evaluation_sha256": "e"}, {**SNAPSHOT, "counts": {"evaluation": 0}}, None, TASK) is None


@pytest.mark.parametrize(
    ("result", "says"),
    [
        (without("metrics"), "metrics"),
        (changed(None, "metrics"), "metrics"),
        (without("metrics", "candidate"), "metrics/candidate"),
        (without("metrics", "candidate", "accuracy"), "metrics/candidate/accuracy"),
        (changed("0.9", "metrics", "candidate", "accuracy"), "metrics/candidate/accuracy"),
        (changed(float("nan"), "metrics", "candidate", "accuracy"), "metrics/candidate/accuracy"),
        (changed(90, "metrics", "candidate", "accuracy"), "metrics/candidate/accuracy"),
        (changed({}, "metrics", "candidate", "per_class"), "metrics/candidate/per_class"),
        (without("metrics", "paired", "champion_only_correct"), "metrics/paired/champion_only_correct"),
        (changed(-1, "metrics", "paired", "candidate_only_correct"), "metrics/paired/candidate_only_correct"),
        (without("metrics", "champion"), "mdl_1"),
        (changed(3, "metrics", "paired", "n"), "3 samples"),
        (changed("other", "evaluation_sha256"), "another evaluation set"),
    ],
)
def test_what_is_missing_fails_and_is_named(result: dict[str, Any], says: str) -> None:
    with pytest.raises(BadOutcome, match=says):
        checked(result, SNAPSHOT, "mdl_1", TASK)


SETS = label_sets.compared(*(np.eye(4, 2, dtype=bool) for _ in range(3)), ["a", "b"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, None),
        ({"candidate": {**SETS["candidate"], "jaccard": None}}, "metrics/candidate/jaccard"),
        ({"candidate": METRICS["candidate"]}, "metrics/candidate/metric"),
        ({"paired": METRICS["paired"]}, "metrics/paired/difference"),
        ({"paired": {**SETS["paired"], "deviation": float("nan")}}, "metrics/paired/deviation"),
        ({"paired": {**SETS["paired"], "per_class": {"a": {"n": 1}}}}, "metrics/paired/per_class/a/difference"),
    ],
)
def test_every_task_has_its_own_metric(change: dict[str, Any], says: str | None) -> None:
    result = {"evaluation_sha256": "e", "metrics": {**SETS, **change}}
    if says is None:
        assert checked(result, SNAPSHOT, "mdl_1", "text-multi-label") is result["metrics"]
        with pytest.raises(BadOutcome, match="metrics/candidate"):
            checked(result, SNAPSHOT, "mdl_1", "image-detection")
    else:
        with pytest.raises(BadOutcome, match=says):
            checked(result, SNAPSHOT, "mdl_1", "text-multi-label")
