"""The gate: how surely it keeps a worse model out, and that it lets a better one in."""

import numpy as np
import pytest
from gates import LABELS, SEED, simulated

from services.retrain_trigger.evaluation import compared, scored
from services.retrain_trigger.gate import Z95, GateSettings, judge, lower_bound, sign_test


@pytest.mark.parametrize("n", [20, 50, 200])
@pytest.mark.parametrize("champion", [0.7, 0.95, 0.999])
def test_of_1000_candidates_that_are_worse_by_more_than_delta_at_most_5_percent_pass(n: int, champion: float) -> None:
    print("seed", SEED)
    rng, settings = np.random.default_rng(SEED), GateSettings()
    metrics = (simulated(rng, n, champion, 0.021 + rng.random() * 0.05) for _ in range(1000))
    assert sum(judge(m, settings).promote for m in metrics) <= 50


def test_most_clearly_better_candidates_pass() -> None:
    rng, settings = np.random.default_rng(SEED), GateSettings()
    passed = sum(judge(simulated(rng, 200, 0.80, -0.10), settings).promote for _ in range(200))
    assert passed >= 180


def test_an_equal_candidate_passes_and_a_margin_keeps_it_out() -> None:
    truth = list(LABELS) * 20
    same = compared(truth, truth, truth, LABELS)
    assert judge(same, GateSettings()).promote
    refused = judge(same, GateSettings(margin=0.01))
    assert not refused.promote
    assert refused.reasons[0].startswith("not-better")


def test_one_lost_sample_of_a_small_class_is_chance_and_a_lost_class_is_a_fall() -> None:
    truth = ["a"] * 150 + ["b"] * 150 + ["c"] * 8
    champion = ["b"] * 40 + ["a"] * 110 + ["b"] * 150 + ["c"] * 8
    one = ["a"] * 150 + ["b"] * 150 + ["a"] + ["c"] * 7
    all_lost = ["a"] * 150 + ["b"] * 150 + ["a"] * 8
    assert judge(compared(truth, one, champion, ("a", "b", "c")), GateSettings()).promote
    verdict = judge(compared(truth, all_lost, champion, ("a", "b", "c")), GateSettings())
    assert not verdict.promote
    assert verdict.numbers["fallen"] == {"c": 1.0}


def test_the_first_model_needs_the_floor_only() -> None:
    truth = ["a"] * 6 + ["b"] * 4
    metrics = {"candidate": scored(truth, ["a"] * 9 + ["b"], ("a", "b")), "champion": None, "paired": None}
    assert judge(metrics, GateSettings()).promote
    assert not judge(metrics, GateSettings(floor=0.75)).promote
    constant_b = {"candidate": scored(truth, ["b"] * 10, ("a", "b")), "champion": None, "paired": None}
    assert not judge(constant_b, GateSettings()).promote


def test_without_an_evaluation_set_nothing_is_promoted() -> None:
    assert judge(None, GateSettings()).reasons[0].startswith("no-evaluation")


@pytest.mark.parametrize("n", [1, 44, 200])
def test_the_bound_of_models_that_never_differ_is_z2_over_n_plus_z2(n: int) -> None:
    """The closed form of Tango's interval where no pair is discordant."""
    assert lower_bound(n, 0, 0) == pytest.approx(-(Z95**2) / (n + Z95**2), abs=1e-9)


def test_the_bound_is_covered_at_least_as_often_as_it_says() -> None:
    """Of 2,000 draws with a true difference of 0.05, the bound lies above it in about 5 % at most."""
    rng = np.random.default_rng(SEED)
    draws = rng.multinomial(200, [0.10, 0.05, 0.85], size=2000).tolist()
    assert sum(lower_bound(200, b, c) > 0.05 for b, c, _ in draws) <= 0.06 * 2000


def test_the_bound_is_monotone_and_below_the_difference() -> None:
    bounds = [lower_bound(200, wins, 5) for wins in range(0, 60, 5)]
    assert bounds == sorted(bounds)
    assert all(b < (w - 5) / 200 for b, w in zip(bounds, range(0, 60, 5), strict=True))
    with pytest.raises(ValueError, match="no paired counts"):
        lower_bound(3, 2, 2)


def test_the_sign_test_is_exact() -> None:
    assert sign_test(5, 0) == 1 / 32
    assert sign_test(0, 0) == 1.0
