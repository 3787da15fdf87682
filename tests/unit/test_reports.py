"""What a backend reports: a number that the gate needs and that is not there fails the run, and is never 0."""

import copy
from typing import Any

import pytest

from services.retrain_trigger.backends import BadOutcome
from services.retrain_trigger.evaluation import compared
from services.retrain_trigger.reports import checked

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
    assert checked(GOOD, SNAPSHOT, "mdl_1") is GOOD["metrics"]
    assert checked({"evaluation_sha256": "e"}, {**SNAPSHOT, "counts": {"evaluation": 0}}, None) is None


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
        checked(result, SNAPSHOT, "mdl_1")
