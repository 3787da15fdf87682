"""The strategies of scikit-activeml, modAL and small-text, called as their documentation says.

Where all libraries pick the same (margin, entropy, least confidence), one of them stands for all. small-text's
strategies are for any classifier with `predict_proba` and `embed`; its numpy part needs no torch. An embedding is the
sample itself, as it is for ours.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from bench.selection.learners import Fitted


@dataclass(frozen=True)
class Turn:
    """What a strategy may know: the model, the pool (N, D) and its labels at `labelled`, who is asked of `rest`."""

    fitted: Fitted
    x: np.ndarray
    y: np.ndarray
    labelled: np.ndarray
    rest: np.ndarray
    size: int
    seed: int


def _skactiveml(name: str, turn: Turn, **options: Any) -> np.ndarray:
    from skactiveml import pool

    if name == "UncertaintySampling":
        options = {"method": "margin_sampling", **options}
    strategy = getattr(pool, name)(random_state=turn.seed, **options)
    known = np.full(len(turn.x), np.nan)
    known[turn.labelled] = turn.y[turn.labelled]
    given: dict[str, Any] = {"X": turn.x.astype(np.float64), "y": known, "candidates": turn.rest}
    if name not in ("CoreSet", "TypiClust", "ProbCover", "MaxHerding"):
        word = "estimator" if name == "Clue" else "clf"
        given |= {word: _classifier(turn), f"fit_{word}": False}
    chosen = strategy.query(**given, batch_size=turn.size)
    return np.searchsorted(turn.rest, chosen)


def _classifier(turn: Turn) -> Any:
    from skactiveml.base import SkactivemlClassifier

    class Given(SkactivemlClassifier):
        """The model that was fitted already."""

        def fit(self, X, y, sample_weight=None):
            self.classes_ = np.arange(turn.fitted.count)
            return self

        def predict_proba(self, X):
            return turn.fitted.probabilities(np.asarray(X, np.float32))

    made = Given(classes=np.arange(turn.fitted.count))
    made.fit(turn.x[turn.labelled], turn.y[turn.labelled])
    made.cost_matrix_ = 1 - np.eye(turn.fitted.count)
    made.classes_ = np.arange(turn.fitted.count)
    return made


def _modal(name: str, turn: Turn) -> np.ndarray:
    import modAL.uncertainty

    learner = SimpleNamespace(predict_proba=turn.fitted.probabilities)
    found = getattr(modAL.uncertainty, name)(learner, turn.x[turn.rest], turn.size)
    return found[0] if isinstance(found, tuple) else found


class _Rows:
    """A data set as small-text's strategies use it: rows by indices."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: Any) -> "_Rows":
        return _Rows(self.x[rows])


class _SmallTextClassifier:
    def __init__(self, fitted: Fitted) -> None:
        self._fitted = fitted

    def predict_proba(self, rows: _Rows) -> np.ndarray:
        return self._fitted.probabilities(rows.x)

    def embed(self, rows: _Rows, return_proba: bool = False, **_: Any) -> Any:
        return (rows.x, self.predict_proba(rows)) if return_proba else rows.x


def _small_text(name: str, turn: Turn) -> np.ndarray:
    import small_text.query_strategies as strategies

    np.random.seed(turn.seed % (1 << 32))  # small-text draws from numpy's global generator
    chosen = getattr(strategies, name)().query(
        _SmallTextClassifier(turn.fitted), _Rows(turn.x), turn.rest, turn.labelled, turn.y[turn.labelled], n=turn.size
    )
    return np.searchsorted(turn.rest, chosen)


PEERS: dict[str, Callable[[Turn], np.ndarray]] = {
    "modal/margin": partial(_modal, "margin_sampling"),
    "skactiveml/coreset": partial(_skactiveml, "CoreSet"),
    "skactiveml/badge": partial(_skactiveml, "Badge"),
    "skactiveml/falcun": partial(_skactiveml, "Falcun"),
    "skactiveml/clue": partial(_skactiveml, "Clue"),
    "skactiveml/maxherding": partial(_skactiveml, "MaxHerding"),
    "small-text/embedding_kmeans": partial(_small_text, "EmbeddingKMeans"),
    "small-text/contrastive": partial(_small_text, "ContrastiveActiveLearning"),
}
LIBRARIES = {"skactiveml": "scikit-activeml", "modal": "modAL", "small-text": "small-text"}
