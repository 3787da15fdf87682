"""Quotas, credit, spacing, the share of labels, and rounds that keep to them. Rows 4.19, D18, 2.19."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.contracts.projects import SelectionPolicy
from services.contracts.rules import Quota, Spacing
from services.select_uncertain.budgets import Asked, Ledger
from services.select_uncertain.candidate import Candidate
from services.select_uncertain.filling import evictable, fill
from services.select_uncertain.pool import ProjectPool
from services.select_uncertain.rounds import eligible, remaining
from services.select_uncertain.rules import FALSE, TRUE, UNKNOWN, Facts

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
CLASSES = ["a", "b", "c"]


def facts(**known: Any) -> Facts:
    return Facts(**{"sample_id": "s", "captured_at": NOON, "outcome": "a", **known})


def asked(ago: float = 0.0, ended: str | None = None, drawn: bool = False, **known: Any) -> Asked:
    return Asked(NOON - timedelta(seconds=ago), facts(**known), ended, drawn)


def room(rule: Any, *before: Asked, seen: int = 100, **known: Any) -> int:
    return Ledger(before, seen, NOON).answer(rule, facts(**known)).value


@pytest.mark.parametrize(("per", "seconds"), [("hour", 3600), ("day", 86_400)])
def test_a_quota_looks_back_on_its_hour_or_day_and_not_beyond(per: Any, seconds: int) -> None:
    quota = Quota(rule="quota", most=2, per=per)
    assert room(quota, asked(1), asked(seconds - 0.001)) == FALSE
    assert room(quota, asked(1), asked(seconds)) == TRUE
    assert room(Quota(rule="quota", most=2), asked(1), asked(10 * seconds)) == FALSE
    assert room(Quota(rule="quota", most=0)) == FALSE


@pytest.mark.parametrize("how", ["labelled", "skipped", "expired"])
def test_a_place_is_given_back_when_a_question_ends_and_only_as_the_rule_says(how: Any) -> None:
    """Row 4.19 and the KAN defect: `relabel_count` was never reset."""
    assert room(Quota(rule="quota", most=1), asked(5, how)) == TRUE
    assert room(Quota(rule="quota", most=1, given_back=[how]), asked(5, how)) == TRUE
    assert room(Quota(rule="quota", most=1, given_back=[]), asked(5, how)) == FALSE
    assert room(Quota(rule="quota", most=1), asked(5)) == FALSE


@pytest.mark.parametrize(
    ("of", "field"), [("class", "outcome"), ("stream", "stream"), ("site", "site"), ("device", "device")]
)
def test_a_quota_of_each_counts_each(of: Any, field: str) -> None:
    """Row 2.19: also by site and device."""
    quota = Quota(rule="quota", most=1, of=of)
    assert room(quota, asked(**{field: "x"}), **{field: "x"}) == FALSE
    assert room(quota, asked(**{field: "x"}), **{field: "y"}) == TRUE
    if of in ("class", "stream"):
        assert room(quota, **{field: None}) == UNKNOWN


@pytest.mark.parametrize("gap", [-10.0, -9.999, 9.999, 10.0])
def test_spacing_is_kept_on_both_sides(gap: float) -> None:
    rule = Spacing(rule="spacing", seconds=10, per="class")
    other = asked(captured_at=NOON + timedelta(seconds=gap))
    far = asked(captured_at=NOON + timedelta(hours=1))
    assert room(rule, other, far) == (TRUE if abs(gap) >= 10 else FALSE)
    assert room(rule, other, far, outcome="b") == TRUE
    assert room(rule) == TRUE


def test_what_is_drawn_at_random_needs_and_takes_no_place_of_a_class() -> None:
    """Else audits would be refused by their predicted class, and say nothing of all predictions."""
    of_class, in_all = Quota(rule="quota", most=1, of="class"), Quota(rule="quota", most=1)
    assert room(of_class, asked(drawn=True)) == TRUE
    assert room(in_all, asked(drawn=True)) == FALSE
    ledger = Ledger([asked()], 10, NOON)
    assert ledger.drawn().answer(of_class, facts()).value == TRUE
    assert ledger.drawn().answer(in_all, facts()).value == FALSE


# Rounds.


def pool_of(n: int, active: str = "m", seed: int = 0) -> ProjectPool:
    """Samples of three classes and streams, captured a second apart; every tenth embedding is the one before it."""
    rng = np.random.default_rng(seed)
    pool = ProjectPool("p", active=active, epoch=1)
    vectors = rng.normal(size=(n, 4)).astype(np.float32)
    vectors[9::10] = vectors[8::10][: len(vectors[9::10])]
    for i in range(n):
        sure = float(rng.uniform(1 / 3, 1))
        best = int(rng.integers(3))
        p = np.full(3, (1 - sure) / 2)
        p[best] = sure
        pool.put(
            Candidate(
                f"s{i:04}",
                "CANDIDATE",
                active,
                {},
                probabilities=tuple(p),
                top={"label": CLASSES[best], "confidence": sure},
                embedding={"uri": "b", "row": i, "dim": 4, "dtype": "float32"},
                seen_at=NOON.isoformat(),
                captured_at=(NOON + timedelta(seconds=i)).isoformat(),
                stream=f"cam{i % 2}",
                site="here",
            ),
            NOON,
        )
    pool.keep_block(vectors.tobytes(), pool.candidates.values())
    return pool


def policy(where: dict[str, Any] | None = None, **more: Any) -> SelectionPolicy:
    return SelectionPolicy.model_validate({"where": where, "strategy": "margin", "control": 0, "audit": 0, **more})


def ask(pool: ProjectPool, rules: SelectionPolicy, size: int, seed: int = 0) -> list[Candidate]:
    filled = fill(pool, eligible(pool, rules, NOON, drawn=True), rules, size, seed, NOON)
    for choice in filled.choices:
        decision = {"round_id": "r", "trigger": choice.trigger, "score": choice.priority, "at": NOON.isoformat()}
        decision |= {"outcome": (choice.candidate.top or {}).get("label"), "model_version": pool.active}
        pool.put(choice.candidate.become("SELECTED", decision), NOON)
    return [choice.candidate for choice in filled.choices]


@settings(max_examples=25)
@given(st.integers(0, 60), st.integers(0, 12), st.integers(0, 4), st.integers(1, 20), st.integers(0, 99))
def test_no_round_exceeds_a_quota(n: int, in_all: int, of_class: int, size: int, seed: int) -> None:
    """The quotas hold over several rounds, also where a round's own choices use them up."""
    where = {
        "rule": "all",
        "of": [
            {"rule": "quota", "most": in_all},
            {"rule": "quota", "most": of_class, "of": "class"},
            {"rule": "spacing", "seconds": 2, "per": "stream"},
            {"rule": "label_share", "share": 0.2},
        ],
    }
    pool, rules = pool_of(n, seed=seed), policy(where, audit=1, control=1, site_budget=9)
    for turn in range(3):
        assert len(ask(pool, rules, size, seed + turn)) <= size
    put = [c for c in pool.candidates.values() if c.asked]
    assert len(put) <= min(in_all, int(0.2 * n + 1e-9), 9)
    chosen = [c for c in put if c.trigger == "policy"]
    for label in CLASSES:
        assert sum((c.top or {})["label"] == label for c in chosen) <= of_class
    for stream in ("cam0", "cam1"):
        times = sorted(c.facts("").captured_at for c in chosen if c.stream == stream)
        assert all((b - a).total_seconds() >= 2 for a, b in pairwise(times))


@given(st.integers(1, 30))
def test_a_round_is_filled_as_far_as_quotas_let_it(size: int) -> None:
    """What one class's quota refuses, the others get."""
    pool = pool_of(60)
    put = ask(pool, policy({"rule": "quota", "most": 4, "of": "class"}), size)
    assert len(put) == min(size, 12)


@settings(max_examples=25)
@given(st.integers(0, 40), st.integers(1, 30), st.integers(1, 12), st.integers(0, 2), st.integers(0, 99))
def test_rounds_together_use_the_budget_and_never_more(n: int, budget: int, batch: int, drawn: int, seed: int) -> None:
    pool, rules = pool_of(n, seed=seed), policy(budget=budget, batch=batch, audit=drawn, control=drawn)
    for turn in range(45):
        ask(pool, rules, remaining(pool, rules), seed + turn)
        assert pool.asked <= budget
    assert pool.asked == min(n, budget)


def test_a_capture_band_with_its_quota_and_its_spacing_of_a_class() -> None:
    """Row 4.19: only 30 to 80 %, so many of a class and 10 s apart; and what is labelled makes room."""
    most, gap = 4, 10
    where = {
        "rule": "all",
        "of": [
            {"rule": "confidence", "low": 0.3, "high": 0.8},
            {"rule": "quota", "most": most, "of": "class"},
            {"rule": "spacing", "seconds": gap, "per": "class"},
        ],
    }
    pool, rules = pool_of(200), policy(where)
    put = ask(pool, rules, 100)
    assert all(0.3 <= (c.top or {})["confidence"] <= 0.8 for c in put)
    for label in CLASSES:
        mine = sorted(c.facts("").captured_at for c in put if (c.top or {})["label"] == label)
        assert len(mine) == most
        assert all((b - a).total_seconds() >= gap for a, b in pairwise(mine))
    assert ask(pool, rules, 100) == []
    pool.put(put[0].become("LABELED", pool.candidates[put[0].sample_id].decision), NOON)
    (next_one,) = ask(pool, rules, 100)
    assert next_one.outcome == put[0].outcome


def test_empty_and_single_pools() -> None:
    rules = policy({"rule": "quota", "most": 1})
    assert ask(pool_of(0), rules, 5) == []
    assert len(ask(pool_of(1), rules, 5)) == 1
    assert ask(pool_of(1), policy({"rule": "quota", "most": 0}), 5) == []


def test_the_order_in_which_samples_came_does_not_matter() -> None:
    rules = policy({"rule": "quota", "most": 3, "of": "class"}, near_duplicate=0.01)
    forth, back = pool_of(50), pool_of(50)
    back.candidates = dict(reversed(back.candidates.items()))
    assert {c.sample_id for c in ask(forth, rules, 8)} == {c.sample_id for c in ask(back, rules, 8)}


def test_a_class_keeps_its_most_valuable_questions_and_never_lets_go_of_a_leased_one() -> None:
    """Row 4.20: the cap, by value and not by age, and the lease."""
    pool = pool_of(60)
    ask(pool, policy(), 30)
    opened = [c for c in pool.in_state("SELECTED") if (c.top or {})["label"] == "a"]
    assert len(opened) > 4
    value = {c.sample_id: (c.decision or {})["score"] for c in opened}
    worst = min(value, key=lambda s: (value[s], s))
    pool.leased.add(worst)
    gone = {c.sample_id for c in evictable(pool, 4) if (c.top or {})["label"] == "a"}
    assert len(gone) == len(opened) - 4
    assert worst not in gone
    kept = set(value) - gone - {worst}
    assert min(value[s] for s in kept) >= max(value[s] for s in gone)
    pool.leased.update(value)
    assert not [c for c in evictable(pool, 4) if (c.top or {})["label"] == "a"]


def test_a_full_class_takes_a_better_question_only() -> None:
    pool, rules = pool_of(60), policy(open_per_class=2)
    first = ask(pool, rules, 6)
    assert {label: sum((c.top or {})["label"] == label for c in first) for label in CLASSES} == {"a": 2, "b": 2, "c": 2}
    assert ask(pool, rules, 6) == []
