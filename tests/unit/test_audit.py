"""The error estimate from the audit, and when to stop. Rows D12, D20."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom

from services.contracts.projects import SelectionPolicy, StopRule
from services.select_uncertain.audit import Estimate, estimate, interval
from services.select_uncertain.candidate import Candidate
from services.select_uncertain.rounds import _by_share, choose
from services.select_uncertain.stopping import gain, judged, verdict
from services.select_uncertain.strategies import Pool


@settings(max_examples=40)
@given(st.integers(0, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_is_clopper_and_pearsons(counts: tuple[int, int]) -> None:
    """Against the quantiles of the beta distribution that define it."""
    k, n = counts
    low, high = interval(k, n)
    assert low == pytest.approx(beta.ppf(0.025, k, n - k + 1) if k else 0.0, abs=1e-9)
    assert high == pytest.approx(beta.ppf(0.975, k + 1, n - k) if k < n else 1.0, abs=1e-9)
    assert interval(n - k, n) == pytest.approx((1 - high, 1 - low), abs=1e-9)


@pytest.mark.parametrize("n", [1, 10, 50, 120])
def test_it_covers_every_rate_in_95_cases_of_100(n: int) -> None:
    """Exactly, over all outcomes; Wilson's falls short for rare errors."""
    low, high = np.transpose([interval(k, n) for k in range(n + 1)])
    for rate in (0.0, 0.001, 0.01, 0.05, 0.3, 0.5, 0.99):
        chances = binom.pmf(np.arange(n + 1), n, rate)
        assert chances[(low <= rate) & (rate <= high)].sum() >= 0.95 - 1e-9


def test_without_labels_everything_is_possible_and_counts_must_be_counts() -> None:
    assert interval(0, 0) == (0.0, 1.0)
    assert Estimate(0, 0).rate is None
    with pytest.raises(ValueError, match="3 errors of 2"):
        interval(3, 2)
    assert estimate([("a", "a"), ("a", "b")]) == Estimate(1, 2)
    box = {"label": "a", "x": 0.1, "y": 0.1, "width": 0.4, "height": 0.4}
    near, far = {**box, "x": 0.15}, {**box, "x": 0.4}
    pairs = [({"boxes": [box]}, {"boxes": [near]}), ({"boxes": [box]}, {"boxes": [far]}), (["a"], ["a", "b"])]
    assert estimate(pairs) == Estimate(2, 3)


def candidates(n: int) -> list[Candidate]:
    return [Candidate(f"s{i}", "CANDIDATE", "m", {}) for i in range(n)]


def test_the_audit_share_is_a_share_of_the_confident_and_another_for_another_model() -> None:
    """Row D12: audit share r within tolerance."""
    ready, policy = candidates(20_000), SelectionPolicy(audit_share=0.05)
    drawn = _by_share(ready, np.arange(20_000), policy)
    assert abs(len(drawn) / 20_000 - 0.05) < 0.005
    other = [Candidate(c.sample_id, c.state, "m2", {}) for c in ready]
    again = set(_by_share(other, np.arange(20_000), policy))
    assert len(set(drawn) & again) < 0.2 * len(drawn)


def audited(seed: int, kind: dict[str, Any]) -> tuple[Estimate, float]:
    """A pool whose uncertain predictions are wrong far more often than its confident ones, asked in four rounds that
    take the uncertain first: what the audit's labels say, and the truth of the confident."""
    rng = np.random.default_rng(seed)
    n, budget = 800, 60
    confidence = rng.uniform(0.5, 1.0, n)
    wrong = rng.random(n) < np.where(confidence >= 0.9, 0.1, 0.5)
    ready, p = candidates(n), np.stack([confidence, 1 - confidence], axis=1)
    vectors = rng.normal(size=(n, 2)).astype(np.float32)
    policy = SelectionPolicy.model_validate({"strategy": "margin", "confident": 0.9, "seed": seed, **kind})
    left, errors, labels = list(range(n)), 0, 0
    for turn in range(4):
        pool = Pool(vectors[left], p[left])
        here = [ready[i] for i in left]
        picks = choose(here, pool, np.zeros((0, 1)), policy, budget, 1000 * seed + turn)
        for pick in picks:
            if pick.trigger == "audit":
                errors, labels = errors + bool(wrong[int(pick.candidate.sample_id[1:])]), labels + 1
        gone = {int(pick.candidate.sample_id[1:]) for pick in picks}
        left = [i for i in left if i not in gone]
    return Estimate(errors, labels), float(wrong[confidence >= 0.9].mean())


@pytest.mark.parametrize("kind", [{"audit": 8}, {"audit": 0, "audit_share": 0.15}])
def test_the_estimate_is_unbiased_and_its_interval_covers_under_the_sampling_that_there_is(kind) -> None:
    """Over 80 pools: the mean error of the estimate is within three standard errors of 0, coverage at least 95 % (less
    the chance of 80 trials), though what the strategy asks about is wrong five times as often."""
    runs = [audited(seed, kind) for seed in range(80)]
    off = np.array([(one.rate or 0.0) - truth for one, truth in runs])
    assert abs(off.mean()) < 3 * off.std() / np.sqrt(len(off))
    ends = np.array([interval(one.errors, one.labels) for one, _ in runs])
    truths = np.array([truth for _, truth in runs])
    assert ((ends[:, 0] <= truths) & (truths <= ends[:, 1])).mean() >= 0.9


# Stopping.


def test_gain_is_what_the_last_models_added_to_the_best_before() -> None:
    assert gain([0.5, 0.7, 0.8], 2) == pytest.approx(0.3)
    assert gain([0.5, 0.9, 0.8, 0.85], 2) == 0.0
    assert gain([0.5, 0.9], 2) is None


RULE = StopRule(gain=0.01, runs=2, pause=True)


@pytest.mark.parametrize(
    ("accuracies", "audit", "rule", "stop"),
    [
        ([0.9], Estimate(0, 0), RULE, False),
        ([0.9, 0.905, 0.909], Estimate(0, 0), RULE, True),
        ([0.9, 0.905, 0.91], Estimate(0, 0), RULE, False),
        ([0.9, 0.95, 0.951, 0.2], Estimate(0, 0), RULE, True),
        ([0.9, 0.9, 0.9], Estimate(5, 50), RULE.model_copy(update={"audit_error": 0.05}), False),
        ([0.9, 0.9, 0.9], Estimate(0, 400), RULE.model_copy(update={"audit_error": 0.05}), True),
        ([0.9, 0.9, 0.9], Estimate(0, 0), RULE.model_copy(update={"audit_error": 0.05}), False),
        ([0.9, 0.9, 0.9], Estimate(0, 0), None, False),
    ],
)
def test_the_loop_says_when_more_labels_do_not_help(accuracies, audit, rule, stop) -> None:
    said = verdict(rule, accuracies, audit)
    assert (said["stop"], said["paused"]) == (stop, stop)
    assert said["why"]
    assert not verdict(rule and rule.model_copy(update={"pause": False}), accuracies, audit)["paused"]


@given(st.lists(st.floats(0, 1), min_size=3, max_size=12), st.integers(1, 3), st.floats(0.001, 0.5))
def test_a_better_model_never_makes_it_stop(accuracies: list[float], runs: int, epsilon: float) -> None:
    rule = StopRule(gain=epsilon, runs=runs)
    if not verdict(rule, accuracies, Estimate(0, 0))["stop"]:
        better = [*accuracies[:-1], min(1.0, accuracies[-1] + 0.1)]
        assert not verdict(rule, better, Estimate(0, 0))["stop"]


def test_a_gate_that_measured_nothing_counts_for_nothing() -> None:
    assert judged("m", {"candidate": 0.9, "promote": True}) == {"version": "m", "accuracy": 0.9}
    assert judged("m", {"reasons": ["no-evaluation"]}) is None
    assert judged("m", {}) is None
