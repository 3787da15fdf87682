"""The heads that are trained on an extractor's embeddings: logistic regression, with or without the unlabelled pool.

`spread` first carries the labels along a neighbour graph of the pool (`label_spreading.py`) and then fits the same
logistic regression on both. A carried label counts as much as the graph is sure of it, and not at all where a model
fitted on the given labels alone contradicts it with confidence. `auto` is `spread` unless the labels themselves speak
against it: each kind is also fitted without each fold of them in turn, and what it says of those it has not seen
decides. The temperature that calibrates the probabilities comes from labels of samples drawn at random and never
trained on, where there are enough, else from the same folds: what was asked because it is hard makes it too high.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from services.retrain_trigger.calibration import calibration_error, softmax, temperature
from services.retrain_trigger.label_spreading import carry, neighbour_graph

if TYPE_CHECKING:
    from scipy.sparse import csr_array
    from sklearn.linear_model import LogisticRegression

Kind = Literal["spread", "logistic"]
REFUTED = 0.1
"""A carried label is dropped where the first model gives it less than this share of its favourite."""
FEWEST = 20
"""Labels, of classes that have at least two, below which nothing is learnt from folds."""
FEWEST_DRAWN = 50
"""Samples drawn at random below which they say too little about a temperature."""


class NotTrainable(ValueError):
    """The labels cannot make a model; the message says what is missing."""


class HeadParams(BaseModel):
    """How a head is fitted.

    `c`: inverse regularisation. `calibrate` and `folds`: see the module. For `spread`: `neighbours` of the graph,
    `alpha` the share a sample takes from them, `most_unlabelled` samples of the pool at most (drawn by `seed`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    head: Literal["auto", "spread", "logistic"] = "auto"
    calibrate: bool = True
    folds: Annotated[int, Field(ge=2, le=20)] = 8
    seed: Annotated[int, Field(ge=0)] = 0
    c: Annotated[float, Field(gt=0, le=1e6)] = 50.0
    max_iter: Annotated[int, Field(ge=1, le=10_000)] = 300
    neighbours: Annotated[int, Field(ge=1, le=100)] = 7
    alpha: Annotated[float, Field(ge=0, lt=1)] = 0.9
    most_unlabelled: Annotated[int, Field(ge=0, le=20_000)] = 4000


@dataclass(frozen=True)
class Examples:
    """Embeddings (M, D), class indices (M,), weights (M,) > 0, and the unlabelled embeddings (U, D), U may be 0.

    `drawn` are embeddings (H, D) and class indices (H,) of samples drawn at random, for the temperature alone.
    """

    embeddings: np.ndarray
    classes: np.ndarray
    weights: np.ndarray
    unlabelled: np.ndarray
    drawn: tuple[np.ndarray, np.ndarray] | None = None


@dataclass(frozen=True)
class Head:
    """A fitted scikit-learn LogisticRegression, already calibrated, and how it came to be.

    `temperature` is what its logits were divided by; `checked` is what the folds showed of each kind before that:
    {kind: {n, accuracy, calibration_error}}, empty where there are too few labels for folds.
    """

    model: "LogisticRegression"
    kind: Kind
    temperature: float = 1.0
    checked: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def learnt(self) -> int:
        """How many labels it tells from the others."""
        return len(self.model.classes_)

    def probabilities(self, embeddings: np.ndarray, count: int) -> np.ndarray:
        """(N, count) of all labels, of which the model's classes are places; 0 of one that it has not seen."""
        found = np.zeros((len(embeddings), count))
        found[:, self.model.classes_] = self.model.predict_proba(embeddings.astype(np.float64))
        return found


def fit(examples: Examples, params: HeadParams) -> Head:
    """The same head for the same arguments. Raises NotTrainable."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # a parallel sum may round differently from run to run
        return _chosen(_Fitting(examples, params))


@dataclass(frozen=True)
class _Unseen:
    """What models said of labels that they were not fitted on: logits (n, C), the labels' classes and weights (n,)."""

    logits: np.ndarray
    classes: np.ndarray
    weights: np.ndarray

    @property
    def right(self) -> np.ndarray:
        return self.logits.argmax(axis=1) == self.classes

    def beats(self, other: "_Unseen") -> bool:
        """Whether this one is right where the other is wrong more often than the other way round, beyond chance."""
        wins, losses = int((self.right & ~other.right).sum()), int((other.right & ~self.right).sum())
        return wins - losses > np.sqrt(wins + losses)

    def summary(self) -> dict[str, float]:
        error = calibration_error(softmax(self.logits), self.classes)
        return {"n": len(self.classes), "accuracy": float(self.right.mean()), "calibration_error": error}


def _chosen(fitting: "_Fitting") -> Head:
    params, kinds = fitting.params, fitting.kinds()
    unseen = {kind: fitting.unseen(kind) for kind in kinds} if params.calibrate or len(kinds) > 1 else {}
    kind = kinds[0]
    if len(kinds) > 1 and unseen["logistic"].beats(unseen["spread"]):
        kind = "logistic"
    model = fitting.model(kind, np.arange(len(fitting.examples.classes)))
    scale = 1.0
    if params.calibrate:
        judges = fitting.drawn(model) or unseen[kind]
        scale = temperature(judges.logits, judges.classes, judges.weights)
        model.coef_ /= scale
        model.intercept_ /= scale
    return Head(model, kind, scale, {name: one.summary() for name, one in unseen.items() if len(one.classes)})


class _Fitting:
    """Fits on any part of the labels, over one graph."""

    def __init__(self, examples: Examples, params: HeadParams) -> None:
        found = np.unique(examples.classes)
        if len(found) < 2:
            raise NotTrainable(f"training needs samples of at least two labels, there are {len(found)}")
        self.examples, self.params, self._found = examples, params, found
        self._points = np.concatenate([examples.embeddings, _sample(examples.unlabelled, params)]).astype(np.float64)

    def kinds(self) -> list[Kind]:
        """What may be tried, the one to begin with first."""
        if self.params.head == "logistic" or len(self._points) == len(self.examples.classes):
            return ["logistic"]
        return ["spread"] if self.params.head == "spread" else ["spread", "logistic"]

    @cached_property
    def _graph(self) -> "csr_array":
        return neighbour_graph(self._points, min(self.params.neighbours, len(self._points) - 1))

    def model(self, kind: Kind, given: np.ndarray) -> "LogisticRegression":
        """Fitted on the labels at `given`; the others are as if they were not known."""
        points, classes, weights = self._points[given], self.examples.classes[given], self.examples.weights[given]
        head = logistic(points, classes, weights, self.params)
        if kind == "logistic":
            return head
        carried, trust = carry(self._graph, given, classes, self.params.alpha)
        guesses = head.predict_proba(self._points)
        places = np.searchsorted(head.classes_, carried)
        trust = trust * (guesses[np.arange(len(carried)), places] >= REFUTED * guesses.max(axis=1))
        trust[given] = 0.0
        kept = trust > 0
        return logistic(
            np.concatenate([points, self._points[kept]]),
            np.concatenate([classes, carried[kept]]),
            np.concatenate([weights, trust[kept]]),
            self.params,
        )

    def unseen(self, kind: Kind) -> _Unseen:
        """Every label judged by a model that was fitted without it; none where folds would be too small."""
        examples, folds = self.examples, self._folds()
        logits = np.full((len(folds), len(self._found)), -np.inf)
        for fold in range(self.params.folds):
            held, rest = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
            if len(held):
                model = self.model(kind, rest)
                columns = np.searchsorted(self._found, model.classes_)
                logits[np.ix_(held, columns)] = _logits(model, self._points[held])
        judged = np.flatnonzero(folds >= 0)
        classes = np.searchsorted(self._found, examples.classes[judged])
        return _Unseen(logits[judged], classes, examples.weights[judged])

    def drawn(self, model: "LogisticRegression") -> _Unseen | None:
        """What the model says of the samples drawn at random; None where there are too few of them."""
        if self.examples.drawn is None:
            return None
        embeddings, classes = self.examples.drawn
        known = np.isin(classes, self._found)
        if known.sum() < FEWEST_DRAWN:
            return None
        columns = np.searchsorted(self._found, classes[known])
        return _Unseen(_logits(model, embeddings[known].astype(np.float64)), columns, np.ones(len(columns)))

    def _folds(self) -> np.ndarray:
        """Fold (M,) of each label, stratified; -1 for one that is never held out: the only one of its class."""
        classes = self.examples.classes
        mixed = np.random.default_rng(self.params.seed).permutation(len(classes))
        order = mixed[np.argsort(classes[mixed], kind="stable")]
        ranks = np.arange(len(order)) - np.searchsorted(classes[order], classes[order])
        counts = np.bincount(classes)[classes]
        folds = np.full(len(classes), -1)
        folds[order] = ranks % self.params.folds
        folds[counts < 2] = -1
        enough = (folds >= 0).sum() >= FEWEST and len(np.unique(classes[folds >= 0])) >= 2
        return folds if enough else np.full(len(classes), -1)


def logistic(
    embeddings: np.ndarray, classes: np.ndarray, weights: np.ndarray, params: HeadParams
) -> "LogisticRegression":
    """A plain fit of float64 (M, D), classes (M,) and weights (M,)."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=params.c, max_iter=params.max_iter).fit(embeddings, classes, sample_weight=weights)


def _logits(model: "LogisticRegression", points: np.ndarray) -> np.ndarray:
    """(N, C), also of two classes."""
    said = model.decision_function(points)
    return np.stack([np.zeros_like(said), said], axis=1) if said.ndim == 1 else said


def _sample(unlabelled: np.ndarray, params: HeadParams) -> np.ndarray:
    if len(unlabelled) <= params.most_unlabelled:
        return unlabelled
    rng = np.random.default_rng(params.seed)
    return unlabelled[np.sort(rng.permutation(len(unlabelled))[: params.most_unlabelled])]
