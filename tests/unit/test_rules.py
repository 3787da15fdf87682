"""Policy rules: bands, outcomes, thresholds, windows, and the laws of and, or, not. Rows 2.4-2.10, 2.13, 4.16, D18."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from services.contracts.projects import SelectionPolicy
from services.contracts.rules import Rule
from services.select_uncertain.rules import FALSE, TRUE, UNKNOWN, Facts, Tree

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
RULES = TypeAdapter(Rule)


def tree(**rule: Any) -> Tree:
    return Tree(RULES.validate_python(rule))


def facts(**known: Any) -> Facts:
    return Facts(**{"sample_id": "s", "captured_at": NOON, **known})


def value(rule: dict[str, Any], **known: Any) -> int:
    (result,) = tree(**rule).judge(facts(**known)).results.values()
    return result.value


def code(rule: dict[str, Any], **known: Any) -> str:
    (result,) = tree(**rule).judge(facts(**known)).results.values()
    assert result.value == UNKNOWN
    return result.code


# Leaves.


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_confidence_band_has_its_ends_and_nothing_beyond(a: float, b: float, inside: float) -> None:
    """Row 2.4 and the MLADE defect: the band that the README promised."""
    low, high = sorted((a, b))
    band = {"rule": "confidence", "low": low, "high": high}
    middle = min(max(low + inside * (high - low), low), high)
    assert [value(band, confidence=at) for at in (low, middle, high)] == [TRUE] * 3
    for beyond in (math.nextafter(low, -1), math.nextafter(high, 2)):
        assert value(band, confidence=beyond) == FALSE
    assert code(band) == "no_confidence"


def test_a_score_is_asked_by_its_name() -> None:
    band = {"rule": "score", "score": "margin", "low": 0.5}
    assert value(band, scores={"margin": 0.5, "entropy": 0.1}) == TRUE
    assert value(band, scores={"margin": 0.4999, "entropy": 0.9}) == FALSE
    assert code(band, scores={"entropy": 0.9}) == "no_score"
    assert code(band, scores={"margin": math.nan}) == "no_score"


def test_a_missing_outcome_is_not_selected_and_counted() -> None:
    """Row 2.5; also below a `not`."""
    rule = {"rule": "outcome", "labels": ["cat", "dog"]}
    assert value(rule, outcome="cat") == TRUE
    assert value(rule, outcome="cow") == FALSE
    assert code(rule) == "no_outcome"
    assert not tree(**rule).judge(facts()).passed
    assert not tree(rule="not", of=rule).judge(facts()).passed
    assert tree(rule="not", of=rule).judge(facts(outcome="cow")).passed


def test_any_of_several_classes_will_do_and_nothing_found_is_no_outcome() -> None:
    rule = {"rule": "outcome", "labels": ["cat", "dog"]}
    assert value(rule, outcome="cow", classes=["cow", "dog"]) == TRUE
    assert value(rule, outcome="cow", classes=["cow", "fox"]) == FALSE
    assert code(rule, outcome="") == "no_outcome"
    assert not tree(rule="not", of=rule).judge(facts(outcome="")).passed


@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_thresholds_are_strict(at: float) -> None:
    """Row 2.6."""
    rule = {"rule": "attribute", "field": "t", "above": -10.0, "below": 10.0}
    assert value(rule, attributes={"t": at}) == (TRUE if -10 < at < 10 else FALSE)
    assert value(rule, attributes={"t": -10.0}) == value(rule, attributes={"t": 10}) == FALSE


@pytest.mark.parametrize("odd", ["7", None, True, [1], {"a": 1}, math.nan, math.inf, ""])
def test_what_is_no_number_is_counted_and_no_crash(odd: Any) -> None:
    """Row 2.6."""
    rule = {"rule": "attribute", "field": "t", "above": 0}
    assert code(rule, attributes={"t": odd}) == "not_numeric"
    assert code(rule) == "no_attribute"


def test_tags_streams_sites_devices_and_models() -> None:
    assert value({"rule": "tagged", "tags": ["a", "b"]}, tags=("a", "b", "c")) == TRUE
    assert value({"rule": "tagged", "tags": ["a", "b"]}, tags=("a",)) == FALSE
    assert value({"rule": "tagged", "tags": ["a", "b"], "match": "any"}, tags=("a",)) == TRUE
    assert value({"rule": "stream", "streams": ["door"]}, stream="door") == TRUE
    assert value({"rule": "stream", "streams": ["door"]}, stream="gate") == FALSE
    assert code({"rule": "stream", "streams": ["door"]}) == "no_stream"
    assert value({"rule": "site", "sites": ["north"]}, site="north") == TRUE
    assert value({"rule": "device", "devices": ["cam-1"]}, device="cam-2") == FALSE
    active = {"rule": "model_version"}
    assert value(active, version="m2", active="m2") == TRUE
    assert value(active, version="m1", active="m2") == FALSE
    assert value({"rule": "model_version", "version": "m1"}, version="m1", active="m2") == TRUE
    assert code(active) == "no_model"


def test_an_absolute_window_has_its_start_and_not_its_end_whatever_the_offset() -> None:
    """Row 2.7."""
    rule = {"rule": "during", "start": "2026-06-01T13:00:00+05:30", "end": "2026-06-01T12:00:00Z"}
    start = datetime(2026, 6, 1, 7, 30, tzinfo=UTC)
    tick = timedelta(microseconds=1)
    assert value(rule, captured_at=start) == value(rule, captured_at=NOON - tick) == TRUE
    assert value(rule, captured_at=start - tick) == value(rule, captured_at=NOON) == FALSE
    assert value({"rule": "during", "start": "2026-06-01T12:00:00Z"}, captured_at=NOON) == TRUE


def test_a_weekly_window_through_the_tree() -> None:
    """Row 2.8; the zone's own days are in test_week.py."""
    rule = {"rule": "weekly", "zone": "Asia/Tokyo", "days": ["mon"], "start": "20:00", "end": "02:00"}
    assert value(rule, captured_at=NOON) == TRUE  # Monday 21:00 in Tokyo
    assert value(rule, captured_at=NOON + timedelta(hours=4, minutes=59)) == TRUE  # Tuesday 01:59, of Monday's window
    assert value(rule, captured_at=NOON + timedelta(hours=5)) == FALSE


@settings(max_examples=10)
@given(st.floats(0, 1), st.text(max_size=5))
def test_a_random_share_is_a_share_and_always_the_same(share: float, salt: str) -> None:
    judged = tree(rule="random", share=share, salt=salt)
    drawn = [judged.judge(facts(sample_id=f"smp_{n}")).passed for n in range(1000)]
    assert abs(sum(drawn) / 1000 - share) <= 0.07  # over four standard deviations
    assert drawn[:50] == [judged.judge(facts(sample_id=f"smp_{n}")).passed for n in range(50)]


# Laws. Leaves of three values: a stream that is, is not, or is unknown.

LEAVES = {
    TRUE: {"rule": "confidence"},
    FALSE: {"rule": "site", "sites": ["elsewhere"]},
    UNKNOWN: {"rule": "outcome", "labels": ["x"]},
}
KNOWN = {"confidence": 0.5}
trees = st.recursive(
    st.sampled_from([TRUE, FALSE, UNKNOWN]).map(lambda v: (LEAVES[v], v)),
    lambda inner: st.one_of(
        inner.map(lambda t: ({"rule": "not", "of": t[0]}, -t[1])),
        st.lists(inner, min_size=1, max_size=4).map(
            lambda ts: ({"rule": "all", "of": [t[0] for t in ts]}, min(t[1] for t in ts))
        ),
        st.lists(inner, min_size=1, max_size=4).map(
            lambda ts: ({"rule": "any", "of": [t[0] for t in ts]}, max(t[1] for t in ts))
        ),
    ),
    max_leaves=12,
)


def kleene(rule: dict[str, Any]) -> int:
    one = tree(**rule)
    return one._value([r for r in one.settled(facts(**KNOWN)) if r is not None])


@given(trees)
def test_trees_follow_the_three_valued_logic_and_only_true_passes(drawn: tuple[dict[str, Any], int]) -> None:
    rule, expected = drawn
    assert kleene(rule) == expected
    judged = tree(**rule).judge(facts(**KNOWN))
    assert judged.passed == (expected == TRUE)
    assert len(judged.told()) == len(tree(**rule).leaves)
    one = tree(**rule)
    assert one.passes(one.settled(facts(**KNOWN)), lambda: facts(**KNOWN), None) == judged.passed


@given(st.lists(trees, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_order_does_not_matter_and_de_morgan_holds(drawn: list[tuple[dict[str, Any], int]], random: Any) -> None:
    parts = [rule for rule, _ in drawn]
    mixed = parts[:]
    random.shuffle(mixed)
    for kind, dual in (("all", "any"), ("any", "all")):
        assert kleene({"rule": kind, "of": parts}) == kleene({"rule": kind, "of": mixed})
        negated = [{"rule": "not", "of": part} for part in parts]
        assert kleene({"rule": "not", "of": {"rule": kind, "of": parts}}) == kleene({"rule": dual, "of": negated})
    for part in parts:
        assert kleene({"rule": "not", "of": {"rule": "not", "of": part}}) == kleene(part)
        assert kleene({"rule": "all", "of": [part, part]}) == kleene({"rule": "any", "of": [part]}) == kleene(part)


@given(trees, st.floats(0, 1), st.sampled_from([None, "x", "y"]))
def test_what_is_finally_refused_stays_refused_whatever_a_later_model_says(
    drawn: tuple[dict[str, Any], int], confidence: float, outcome: str | None
) -> None:
    """Only sites are final here; confidence and class may change."""
    rule, _ = drawn
    one = tree(**rule)
    judged = one.judge(facts(**KNOWN))
    assert one.never(facts(**KNOWN)) == judged.final
    if judged.final:
        assert not one.judge(facts(confidence=confidence, outcome=outcome)).passed


def test_windows_are_final_and_scores_and_quotas_are_not() -> None:
    past = {"rule": "during", "end": "2020-01-01T00:00:00Z"}
    assert tree(**past).never(facts())
    assert tree(rule="all", of=[past, {"rule": "confidence", "low": 0.9}]).never(facts())
    assert not tree(rule="any", of=[past, {"rule": "confidence", "low": 0.9}]).never(facts(confidence=0.1))
    assert not tree(rule="any", of=[past, {"rule": "quota", "most": 0}]).never(facts())
    assert not tree(rule="not", of=past).never(facts())
    unknown = {"rule": "attribute", "field": "t", "above": 0}
    assert tree(**unknown).never(facts())
    assert tree(rule="not", of=unknown).never(facts())


# What a policy may say.


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ({"rule": "confidence", "low": 0.8, "high": 0.3}, "swap them"),
        ({"rule": "confidence", "low": -0.1}, "greater than or equal to 0"),
        ({"rule": "confidence", "high": 1.1}, "less than or equal to 1"),
        ({"rule": "confidence", "low": "nan"}, "finite"),
        ({"rule": "duty_cycle", "share": 1.01}, "less than or equal to 1"),
        ({"rule": "duty_cycle", "share": -0.01}, "greater than or equal to 0"),
        ({"rule": "during", "start": "2026-01-01T00:00:00Z", "end": "2026-01-01T00:00:00Z"}, "not after start"),
        ({"rule": "during", "start": "2026-01-01T00:00:00"}, "timezone"),
        ({"rule": "during"}, "say start, end, or both"),
        ({"rule": "weekly", "zone": "Mars/Phobos"}, "IANA name"),
        ({"rule": "weekly", "zone": "../../etc/passwd"}, "IANA name"),
        ({"rule": "weekly", "zone": "UTC", "start": "08:00", "end": "08:00"}, "whole day"),
        ({"rule": "weekly", "zone": "UTC", "start": "08:00Z"}, "no offset"),
        ({"rule": "weekly", "zone": "UTC", "start": 8}, "HH:MM"),
        ({"rule": "weekly", "zone": "UTC", "days": []}, "at least 1"),
        ({"rule": "weekly", "zone": "UTC", "days": ["monday"]}, "'mon'"),
        ({"rule": "attribute", "field": "t"}, "say above, below, or both"),
        ({"rule": "attribute", "field": "t", "above": 2, "below": 2}, "the greater number"),
        ({"rule": "quota", "most": -1}, "greater than or equal to 0"),
        ({"rule": "quota", "most": 1, "per": "week"}, "'hour'"),
        ({"rule": "spacing", "seconds": 0}, "greater than 0"),
        ({"rule": "outcome", "labels": []}, "at least 1"),
        ({"rule": "confidence", "lo": 0.1}, "Extra inputs"),
        ({"rule": "eval", "code": "1"}, "'confidence'"),
        ({"low": 1}, "discriminator"),
        ({"rule": "all", "of": []}, "at least 1"),
    ],
)
def test_a_bad_rule_is_refused_with_what_to_do(rule: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        SelectionPolicy.model_validate({"where": rule})


def test_a_tree_has_its_limits() -> None:
    deep: dict[str, Any] = {"rule": "confidence"}
    for _ in range(12):
        deep = {"rule": "not", "of": deep}
    with pytest.raises(ValidationError, match="12 is the most"):
        SelectionPolicy.model_validate({"where": deep})
    wide = {"rule": "all", "of": [{"rule": "any", "of": [{"rule": "confidence"}] * 50}] * 5}
    with pytest.raises(ValidationError, match="200 is the most"):
        SelectionPolicy.model_validate({"where": wide})
    named = {"rule": "any", "of": [{"rule": "confidence", "name": "a"}, {"rule": "confidence", "name": "a"}]}
    with pytest.raises(ValidationError, match="two rules have the name"):
        SelectionPolicy.model_validate({"where": named})
    with pytest.raises(ValidationError, match="depend on the sample alone"):
        SelectionPolicy.model_validate({"results": {"rule": "quota", "most": 1}})


def test_a_tree_of_ten_rules_judges_a_batch_quickly() -> None:
    """Cheap: 200 samples through ten leaves in well under a tenth of a second."""
    import time

    leaf = [
        {"rule": "confidence", "high": 0.9},
        {"rule": "outcome", "labels": ["a", "b"]},
        {"rule": "attribute", "field": "t", "above": 1},
        {"rule": "weekly", "zone": "Europe/Berlin", "start": "08:00", "end": "17:00"},
        {"rule": "duty_cycle", "share": 0.5},
    ]
    one = tree(rule="all", of=[*leaf, {"rule": "any", "of": leaf}])
    batch = [facts(sample_id=f"s{n}", confidence=0.5, outcome="a", attributes={"t": 2}) for n in range(200)]
    began = time.process_time()
    for sample in batch:
        one.settled(sample)
    assert time.process_time() - began < 0.1
