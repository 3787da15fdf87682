"""Batching: few runs, no row fails another, outputs that are none are found. The models are plain Python."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import classifier, png

from services.contracts.events import Content
from services.contracts.ids import sha256
from services.infer.batching import Failure, Piece, predictions
from services.infer.model import Scored

MANIFEST = classifier()[1]


@dataclass
class Brightness:
    """Probability of bright is the mean shade; breaks on what it is told to."""

    breaks_at: float = 2.0
    spoils_at: float = 2.0
    runs: list[int] = field(default_factory=list)

    def predict(self, batch: np.ndarray) -> Any:
        self.runs.append(len(batch))
        shade = batch.reshape(len(batch), -1)[:, 1]
        if (np.abs(shade - self.breaks_at) < 1e-3).any():
            raise RuntimeError("a shape that I do not like")
        p = np.stack([1 - shade, shade], axis=1)
        p[np.abs(shade - self.spoils_at) < 1e-3] = np.nan
        return Scored(p, batch.reshape(len(batch), -1))


def piece(shade: int) -> Piece:
    return Piece(png(shade), "image/png")


@given(st.integers(0, 40), st.integers(1, 16))
def test_n_samples_are_at_most_ceil_n_by_size_runs(n: int, size: int) -> None:
    model = Brightness()
    result = predictions(model, MANIFEST, [piece(shade) for shade in range(n)], size)
    assert len(model.runs) == -(-n // size)
    assert result.rows == list(range(n))
    assert not result.failures
    if n:
        assert result.probabilities is not None
        assert result.probabilities[:, 1] == pytest.approx(np.arange(n) / 255, abs=1e-6)


@given(st.lists(st.sampled_from(["good", "corrupt", "missing", "hash"]), max_size=20), st.integers(1, 7))
def test_no_row_fails_another(kinds: list[str], size: int) -> None:
    wrong = Content(uri="x", sha256=sha256(b"other"), bytes=1, media_type="image/png")
    pieces = {
        "good": piece(100),
        "corrupt": Piece(png(1)[:40], "image/png"),
        "missing": Piece(missing=Failure("content-missing", "gone")),
        "hash": Piece(png(1), "image/png", wrong),
    }
    result = predictions(Brightness(), MANIFEST, [pieces[kind] for kind in kinds], size)
    assert [at for at, kind in enumerate(kinds) if kind == "good"] == result.rows
    errors = {"corrupt": "unreadable", "missing": "content-missing", "hash": "content-hash"}
    assert {at: failure.error for at, failure in result.failures.items()} == {
        at: errors[kind] for at, kind in enumerate(kinds) if kind != "good"
    }


def test_the_row_that_breaks_the_model_is_found() -> None:
    model = Brightness(breaks_at=51 / 255, spoils_at=102 / 255)
    result = predictions(model, MANIFEST, [piece(shade) for shade in (10, 51, 102, 200)], 64)
    assert {at: failure.error for at, failure in result.failures.items()} == {1: "model-failed", 2: "model-output"}
    assert result.rows == [0, 3]
    assert result.probabilities is not None
    assert result.embeddings is not None
    assert len(result.probabilities) == len(result.embeddings) == 2
    assert all(len(values) == 2 for values in result.scores.values())


def test_nothing_readable_is_no_run() -> None:
    model = Brightness()
    result = predictions(model, MANIFEST, [Piece(b"", "image/png")], 64)
    assert (model.runs, result.rows, result.probabilities, result.embeddings) == ([], [], None, None)
