"""A strategy of somebody's own, installed beside halfsure, is one more strategy."""

import sys
from pathlib import Path

import numpy as np
import pytest

from services.contracts.problem import Problem
from services.contracts.projects import SelectionPolicy
from services.select_uncertain.policies import check
from services.select_uncertain.strategies import STRATEGIES, BadStrategy, Pool

CODE = '''"""The smallest embeddings first; and one that keeps no promise."""

import numpy as np

from services.select_uncertain.strategies import Pick


def smallest(pool, labelled, k, rng):
    """The k nearest to the origin."""
    size = np.linalg.norm(pool.embeddings, axis=1)
    return [Pick(int(i), float(1 / (1 + size[i])), f"size {size[i]:.2f}") for i in np.argsort(size)[:k]]


def careless(pool, labelled, k, rng):
    return [Pick(0, 0.5, "always the first")] * k
'''


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package as pip leaves it: its modules, and a dist-info that names its entry points."""
    (tmp_path / "tiny_strategies.py").write_text(CODE)
    info = tmp_path / "tiny_strategies-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-strategies\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[halfsure.strategies]\nsmallest = tiny_strategies:smallest\ncareless = tiny_strategies:careless\n"
        "margin = tiny_strategies:careless\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("tiny_strategies", None)


@pytest.mark.usefixtures("installed")
def test_an_installed_strategy_is_used_by_its_name() -> None:
    """Row 1.7, for strategies: no service is edited."""
    pool = Pool(np.array([[3.0], [1.0], [2.0]]))
    picks = STRATEGIES["smallest"](pool, np.zeros((0, 1)), 2, np.random.default_rng(0))
    assert [pick.index for pick in picks] == [1, 2]
    assert {"smallest", "careless", "margin"} <= set(STRATEGIES)
    check(SelectionPolicy(strategy="smallest"), "image-classification")
    assert len(CODE.splitlines()) < 20


@pytest.mark.usefixtures("installed")
def test_an_installed_strategy_that_picks_twice_is_stopped() -> None:
    with pytest.raises(BadStrategy, match="careless picked 2 for k = 2 of 3, 1 of them once"):
        STRATEGIES["careless"](Pool(np.ones((3, 1))), np.zeros((0, 1)), 2, np.random.default_rng(0))


@pytest.mark.usefixtures("installed")
def test_a_built_in_name_cannot_be_taken_over() -> None:
    pool = Pool(np.ones((2, 1)), np.array([[0.9, 0.1], [0.5, 0.5]]))
    assert STRATEGIES["margin"](pool, np.zeros((0, 1)), 1, np.random.default_rng(0))[0].index == 1


def test_without_the_package_the_name_is_unknown() -> None:
    assert "smallest" not in STRATEGIES
    with pytest.raises(Problem):
        check(SelectionPolicy(strategy="smallest"), "image-classification")
