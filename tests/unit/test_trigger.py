"""The retrain rule, case by case."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contracts.projects import TriggerRule
from services.retrain_trigger.trigger import Counters, Flight, decide, error_lower_bound, shortage

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
PAUSE = 30.0
ENOUGH = {"a": 20, "b": 20}


def rule(**more: object) -> TriggerRule:
    return TriggerRule.model_validate({"n": 10, "min_per_class": 5, **more})


CASES = [
    ("enough new labels", rule(), Counters(new=10, per_class=ENOUGH), Flight(), "count", {}),
    ("one too few", rule(), Counters(new=9, per_class=ENOUGH), Flight(), None, {"labels": 1}),
    ("none at all", rule(n=1), Counters(new=0, per_class=ENOUGH), Flight(), None, {"labels": 1}),
    (
        "a class is short",
        rule(),
        Counters(new=10, per_class={"a": 20, "b": 3}),
        Flight(),
        "count",
        {"per_class": {"b": 2}},
    ),
    (
        "one class only, though the rule asks for none",
        rule(min_per_class=0),
        Counters(new=10, per_class={"a": 20, "b": 0}),
        Flight(),
        "count",
        {"per_class": {"b": 1}},
    ),
    ("a run is active", rule(), Counters(new=10, per_class=ENOUGH), Flight("run_x"), "count", {"run_active": "run_x"}),
    (
        "old enough",
        rule(max_age_seconds=60),
        Counters(new=1, per_class=ENOUGH, oldest_new=NOW - timedelta(seconds=60)),
        Flight(),
        "schedule",
        {},
    ),
    (
        "old enough, but too few",
        rule(max_age_seconds=60, n_min=2),
        Counters(new=1, per_class=ENOUGH, oldest_new=NOW - timedelta(days=3)),
        Flight(),
        None,
        {"labels": 9},
    ),
    (
        "too many audited errors",
        rule(error_rate=0.2),
        Counters(new=1, per_class=ENOUGH, audit_errors=5, audit_total=8),
        Flight(),
        "error_rate",
        {},
    ),
    (
        "one audited error is no evidence",
        rule(error_rate=0.2),
        Counters(new=1, per_class=ENOUGH, audit_errors=1, audit_total=1),
        Flight(),
        None,
        {"labels": 9},
    ),
]


@pytest.mark.parametrize(("name", "how", "counters", "flight", "reason", "missing"), CASES, ids=[c[0] for c in CASES])
def test_the_rule(name, how, counters, flight, reason, missing) -> None:
    decision = decide(how, counters, flight, NOW, PAUSE)
    assert (decision.reason, dict(decision.missing)) == (reason, missing)
    assert decision.fire == (reason is not None and not missing)


@pytest.mark.parametrize(
    ("failed", "cooldown", "pause"), [(False, 0, 0), (False, 90, 90), (True, 0, 30), (True, 90, 90)]
)
def test_the_cooldown_ends_to_the_second(failed: bool, cooldown: float, pause: float) -> None:
    counters = Counters(new=10, per_class=ENOUGH)
    how = rule(cooldown_seconds=cooldown)
    ended = NOW - timedelta(seconds=pause)
    assert decide(how, counters, Flight(None, ended, failed), NOW, PAUSE).fire
    late = Flight(None, ended + timedelta(seconds=1), failed)
    assert set(decide(how, counters, late, NOW, PAUSE).missing) == ({"cooldown_until"} if pause else set())


@pytest.mark.parametrize("ahead", [timedelta(minutes=10), timedelta(days=365)])
def test_a_clock_that_was_put_back_holds_nothing_up(ahead: timedelta) -> None:
    stamped = NOW + ahead
    aged = Counters(new=1, per_class=ENOUGH, oldest_new=stamped)
    assert decide(rule(max_age_seconds=60), aged, Flight(), NOW, PAUSE).reason == "schedule"
    enough = Counters(new=10, per_class=ENOUGH, oldest_new=stamped, newest_new=stamped)
    assert decide(rule(debounce_seconds=60), enough, Flight(), NOW, PAUSE).fire
    assert decide(rule(cooldown_seconds=60), enough, Flight(None, stamped, False), NOW, PAUSE).fire


def test_another_clock_that_is_a_little_ahead_hurries_nothing() -> None:
    stamped = NOW + timedelta(seconds=1)
    aged = Counters(new=1, per_class=ENOUGH, oldest_new=stamped, newest_new=stamped)
    assert decide(rule(max_age_seconds=60), aged, Flight(), NOW, PAUSE).reason is None
    assert "settles" in decide(rule(n=1, debounce_seconds=60), aged, Flight(), NOW, PAUSE).missing
    ended = Flight(None, stamped, False)
    assert "cooldown_until" in decide(rule(n=1, cooldown_seconds=60), aged, ended, NOW, PAUSE).missing


def test_forced_only_two_classes_are_needed() -> None:
    assert shortage(rule(), Counters(per_class={"a": 1, "b": 1, "c": 0}), forced=True) == {}
    assert shortage(rule(), Counters(per_class={"a": 9, "b": 0, "c": 0}), forced=True) == {"b": 1, "c": 1}


def test_the_error_bound_is_clopper_and_pearsons() -> None:
    assert error_lower_bound(0, 0) == 0.0
    assert error_lower_bound(0, 50) == 0.0
    assert error_lower_bound(1, 1) == pytest.approx(0.05, abs=1e-9)
    assert error_lower_bound(3, 3) == pytest.approx(0.05 ** (1 / 3), abs=1e-9)
    assert error_lower_bound(5, 50) == pytest.approx(0.0402, abs=1e-4)


@given(st.integers(1, 200), st.data())
def test_the_error_bound_is_below_the_estimate_and_grows_with_errors(total: int, data: st.DataObject) -> None:
    errors = data.draw(st.integers(1, total))
    bound = error_lower_bound(errors, total)
    assert 0 < bound < errors / total + 1e-12
    assert error_lower_bound(errors - 1, total) < bound
