"""The models that are retrained after every batch; the same for every strategy and every library."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from services.retrain_trigger.heads import Examples, HeadParams, fit

HEADS = ("logistic", "spread", "auto")
"""Heads of the default trainer; `auto`, its default, is calibrated here too."""


@dataclass(frozen=True)
class Fitted:
    """A model and the classes that it knows, out of `count`."""

    model: Any
    count: int
    temperature: float = 1.0

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """(N, count) float64; 0 for a class that it has not seen."""
        full = np.zeros((len(x), self.count))
        full[:, self.model.classes_] = self.model.predict_proba(x)
        return full


def learn(name: str, x: np.ndarray, y: np.ndarray, unlabelled: np.ndarray, count: int, seed: int) -> Fitted:
    """`lr`, `mlp`, or a head of the default trainer: `auto`, `spread`, `logistic`."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        if name == "lr":
            return Fitted(LogisticRegression(C=1.0, max_iter=300).fit(x, y), count)
        if name == "mlp":
            model = MLPClassifier((64,), max_iter=200, learning_rate_init=0.01, random_state=seed)
            return Fitted(model.fit(x, y), count)
        params = HeadParams.model_validate({"head": name, "seed": seed, "calibrate": name == "auto"})
        head = fit(Examples(x, y, np.ones(len(y)), unlabelled), params)
        return Fitted(head.model, count, head.temperature)


def score(metric: str, truth: np.ndarray, answers: np.ndarray) -> float:
    """Accuracy, or the mean of the classes' recalls."""
    if metric == "accuracy":
        return float(np.mean(truth == answers))
    return float(np.mean([np.mean(answers[truth == one] == one) for one in np.unique(truth)]))
