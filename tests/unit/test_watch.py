"""The watch over a version: it sends back what is worse, and seldom what is not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contracts.projects import RolloutRule
from services.retrain_trigger.trigger import Audits
from services.retrain_trigger.watch import rise, worse

RULE = RolloutRule()
SEED = 20261125


def looked_at_again_and_again(rng: np.random.Generator, before: float, after: float, audits: int = 200) -> bool:
    """Whether the new version is sent back at any of the looks, one after each audit."""
    old = Audits(int(rng.binomial(200, before)), 200)
    errors = np.cumsum(rng.random(audits) < after)
    return any(worse(Audits(int(wrong), at), old, RULE) for at, wrong in enumerate(errors, 1))


def test_a_version_that_is_no_worse_is_seldom_sent_back() -> None:
    print("seed", SEED)
    rng = np.random.default_rng(SEED)
    back = sum(looked_at_again_and_again(rng, rate, rate) for rate in (0.02, 0.1, 0.3) for _ in range(200))
    print("sent back for nothing:", back / 600)
    assert back / 600 <= 0.05


def test_a_version_that_is_much_worse_is_sent_back() -> None:
    rng = np.random.default_rng(SEED)
    back = sum(looked_at_again_and_again(rng, 0.05, 0.25) for _ in range(200))
    assert back >= 190


@pytest.mark.parametrize(("new", "old"), [(Audits(9, 9), Audits(0, 99)), (Audits(99, 99), Audits(0, 9))])
def test_without_enough_audits_of_both_nothing_is_said(new: Audits, old: Audits) -> None:
    assert worse(new, old, RULE) is None


def test_the_reason_has_every_number() -> None:
    said = worse(Audits(20, 40), Audits(2, 100), RULE)
    assert said
    assert all(part in said for part in ("20 of 40", "2 of 100", "+0.480", "+0.050", "lower 99.8 % bound"))


def test_newcombes_interval_is_that_of_his_paper() -> None:
    """Table II of Statistics in Medicine 17 (1998), method 10, 95 % two-sided: 56/70 against 48/80."""
    difference, lower = rise(Audits(56, 70), Audits(48, 80), z=1.959964)
    assert difference == pytest.approx(0.2)
    assert lower == pytest.approx(0.0524, abs=5e-5)


@given(st.data())
def test_the_bound_is_below_the_difference(data: st.DataObject) -> None:
    sizes = data.draw(st.tuples(st.integers(1, 300), st.integers(1, 300)))
    new, old = (Audits(data.draw(st.integers(0, n)), n) for n in sizes)
    difference, lower = rise(new, old)
    assert -1 <= lower <= difference <= 1
