"""How foreign a sample is: what the digits' extractor knows of digits, and of what is none."""

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from services.retrain_trigger.domain import MOST, VALUES, foreignness, known
from services.retrain_trigger.extractors import image_extractor
from services.retrain_trigger.onnx_models import Model

AUROC = {"noise": 0.98, "inverted": 0.98, "turned": 0.98, "stripes": 0.98, "upside down": 0.7}
"""What is asked for from 40 labels on. Upside down, a 0, 1 and 8 are digits still."""


@pytest.fixture(scope="module")
def embeddings() -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
    """Of 900 digits in an order by chance, and of 200 pictures of each foreign kind."""
    rng, model = np.random.default_rng(7), Model(*image_extractor(8, 8, 1))
    digits = (load_digits().images / 16)[rng.permutation(1797)[:1100]]
    waves = np.sin(np.arange(8) * rng.uniform(0.5, 3, (200, 1)) + rng.uniform(0, 6, (200, 1)))
    foreign = {
        "noise": rng.random((200, 8, 8)),
        "inverted": 1 - digits[900:],
        "turned": np.rot90(digits[900:], 1, (1, 2)),
        "stripes": np.tile((waves[:, None] + 1) / 2, (1, 8, 1)),
        "upside down": digits[900:, ::-1],
    }

    def embedded(pictures: np.ndarray) -> np.ndarray:
        return model.run(np.ascontiguousarray(pictures[:, None], np.float32))["embedding"]

    return embedded(digits[:900]), {name: embedded(pictures) for name, pictures in foreign.items()}


@pytest.mark.parametrize("labels", [40, 200, 600])
def test_what_is_no_digit_is_farther_than_digits(
    embeddings: tuple[np.ndarray, Mapping[str, np.ndarray]], labels: int
) -> None:
    digits, foreign = embeddings
    trained = known(digits[:labels])
    assert trained is not None
    own = foreignness(digits[600:], trained)
    found = {}
    for name, rows in foreign.items():
        said = foreignness(rows, trained)
        truth = np.repeat([0, 1], [len(own), len(said)])
        found[name] = round(float(roc_auc_score(truth, np.concatenate([own, said]))), 3)
    print(labels, "labels:", found)
    assert all(found[name] >= least for name, least in AUROC.items())
    assert 0.01 <= (own > 0.5).mean() <= 0.2  # about a twentieth of what is known


@given(st.integers(0, 600), st.integers(1, 8))
def test_it_is_within_0_and_1_and_small(count: int, width: int) -> None:
    rows = np.random.default_rng(count).normal(size=(count, width))
    trained = known(rows)
    assert (trained is None) == (count < 2)
    if trained is not None:
        assert len(trained.embeddings) <= MOST
        assert trained.embeddings.size <= max(VALUES, 2 * width)
        said = foreignness(np.concatenate([rows, 1e6 * rows]), trained)
        assert ((said >= 0) & (said <= 1)).all()
        assert (known(rows).embeddings == trained.embeddings).all()  # type: ignore[union-attr]


def test_where_all_are_the_same_nothing_is_said() -> None:
    assert known(np.ones((9, 4))) is None
