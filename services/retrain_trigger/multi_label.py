"""The head for any number of labels: a logistic regression of each label against the rest, on the same embeddings.

A label that all samples agree on has nothing to learn from and gets a constant probability, by Laplace's rule of
succession. One temperature calibrates them all, from samples drawn at random where there are enough, else from folds,
as in `heads.py`.
"""

from dataclasses import dataclass, field

import numpy as np

from services.retrain_trigger.calibration import calibration_error, of_each, temperature
from services.retrain_trigger.heads import FEWEST, FEWEST_DRAWN, HeadParams, NotTrainable, logistic

KIND = "one-vs-rest"


@dataclass(frozen=True)
class LabelledSets:
    """Embeddings (M, D), which labels each has (M, C) as booleans, and weights (M,) > 0.

    `drawn` are embeddings (H, D) and labels (H, C) of samples drawn at random, for the temperature alone.
    """

    embeddings: np.ndarray
    answers: np.ndarray
    weights: np.ndarray
    drawn: tuple[np.ndarray, np.ndarray] | None = None


@dataclass(frozen=True)
class MultiLabelHead:
    """Logits are embeddings @ weights (D, C) + intercepts (C,); `temperature` and `checked` as in `heads.Head`."""

    weights: np.ndarray
    intercepts: np.ndarray
    temperature: float = 1.0
    checked: dict[str, dict[str, float]] = field(default_factory=dict)
    kind: str = KIND

    @property
    def learnt(self) -> int:
        """How many labels it has not just a constant for."""
        return int(self.weights.any(axis=0).sum())

    def logits(self, embeddings: np.ndarray) -> np.ndarray:
        """(N, C)"""
        return embeddings.astype(np.float64) @ self.weights + self.intercepts

    def probabilities(self, embeddings: np.ndarray, count: int) -> np.ndarray:
        """(N, count), each label's for itself; `count` is C."""
        assert count == len(self.intercepts)
        return 1.0 / (1.0 + np.exp(-self.logits(embeddings)))


def fit_sets(examples: LabelledSets, params: HeadParams) -> MultiLabelHead:
    """The same head for the same arguments. Raises NotTrainable."""
    from threadpoolctl import threadpool_limits

    learnt = divided(examples.answers)
    if not learnt.any():
        raise NotTrainable(
            "training needs a label that some samples have and others have not; "
            f"of {len(examples.answers)} samples all have the same labels"
        )
    with threadpool_limits(1):  # a parallel sum may round differently from run to run
        head = _fitted(examples, params)
        if not params.calibrate:
            return head
        judges = _drawn(head, examples, learnt) or _unseen(examples, params)
    if judges is None:
        return head
    logits, truth, weights = judges
    rows = np.stack([np.zeros(logits.size), logits.ravel()], axis=1)
    classes = truth.ravel().astype(np.int64)
    scale = temperature(rows, classes, np.repeat(weights, logits.shape[1]))
    error = calibration_error(of_each(1.0 / (1.0 + np.exp(-logits))), classes)
    divisor = np.where(learnt, scale, 1.0)
    checked = {KIND: {"n": float(len(truth)), "calibration_error": error}}
    return MultiLabelHead(head.weights / divisor, head.intercepts / divisor, scale, checked)


def divided(answers: np.ndarray) -> np.ndarray:
    """(C,) which labels some samples have and others have not."""
    return np.asarray(answers.any(axis=0) & ~answers.all(axis=0))


def _fitted(examples: LabelledSets, params: HeadParams) -> MultiLabelHead:
    count, labels = examples.answers.shape
    weights = np.zeros((examples.embeddings.shape[1], labels))
    shares = (examples.answers.sum(axis=0) + 1.0) / (count + 2.0)
    intercepts = np.log(shares / (1.0 - shares))
    points = examples.embeddings.astype(np.float64)
    for label in np.flatnonzero(divided(examples.answers)):
        model = logistic(points, examples.answers[:, label].astype(np.int64), examples.weights, params)
        weights[:, label], intercepts[label] = model.coef_[0], np.ravel(model.intercept_)[0]
    return MultiLabelHead(weights, intercepts)


Judges = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Logits (n, c), truth (n, c) and weights (n,) of samples that a head was not fitted on."""


def _drawn(head: MultiLabelHead, examples: LabelledSets, learnt: np.ndarray) -> Judges | None:
    if examples.drawn is None or len(examples.drawn[0]) < FEWEST_DRAWN:
        return None
    embeddings, truth = examples.drawn
    return head.logits(embeddings)[:, learnt], truth[:, learnt], np.ones(len(truth))


def _unseen(examples: LabelledSets, params: HeadParams) -> Judges | None:
    """Every sample judged by a head that was fitted without it; None where that leaves too little to learn from."""
    count = len(examples.answers)
    if count < FEWEST:
        return None
    folds = np.random.default_rng(params.seed).permutation(count) % params.folds
    logits = np.empty(examples.answers.shape)
    learnt = divided(examples.answers)
    for fold in range(params.folds):
        held, rest = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        learnt &= divided(examples.answers[rest])
        part = LabelledSets(examples.embeddings[rest], examples.answers[rest], examples.weights[rest])
        logits[held] = _fitted(part, params).logits(examples.embeddings[held])
    return (logits[:, learnt], examples.answers[:, learnt], examples.weights) if learnt.any() else None
