"""The heads that are trained on an extractor's embeddings: logistic regression, with or without the unlabelled pool.

`spread` first carries the labels along a nearest-neighbour graph of labelled and unlabelled samples (label spreading,
Zhou et al., NeurIPS 2003) and then fits the same logistic regression on both. A carried label counts as much as the
graph is sure of it, and not at all where a model fitted on the given labels alone contradicts it with confidence.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from scipy.sparse import csr_array
    from sklearn.linear_model import LogisticRegression

BLOCK = 1024
REFUTED = 0.1
"""A carried label is dropped where the first model gives it less than this share of its favourite."""


class NotTrainable(ValueError):
    """The labels cannot make a model; the message says what is missing."""


class HeadParams(BaseModel):
    """How a head is fitted.

    `c`: inverse regularisation. For `spread`: `neighbours` of the graph, `alpha` the share a sample takes from them,
    `most_unlabelled` samples of the pool at most (drawn by `seed`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    head: Literal["spread", "logistic"] = "spread"
    seed: Annotated[int, Field(ge=0)] = 0
    c: Annotated[float, Field(gt=0, le=1e6)] = 50.0
    max_iter: Annotated[int, Field(ge=1, le=10_000)] = 300
    neighbours: Annotated[int, Field(ge=1, le=100)] = 7
    alpha: Annotated[float, Field(ge=0, lt=1)] = 0.9
    most_unlabelled: Annotated[int, Field(ge=0, le=20_000)] = 4000


@dataclass(frozen=True)
class Examples:
    """Embeddings (M, D), class indices (M,), weights (M,) > 0, and the unlabelled embeddings (U, D), U may be 0."""

    embeddings: np.ndarray
    classes: np.ndarray
    weights: np.ndarray
    unlabelled: np.ndarray


def fit(examples: Examples, params: HeadParams) -> "LogisticRegression":
    """A fitted scikit-learn LogisticRegression on embeddings, the same for the same arguments. Raises NotTrainable."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # a parallel sum may round differently from run to run
        return _fitted(examples, params)


def _fitted(examples: Examples, params: HeadParams) -> "LogisticRegression":
    found = np.unique(examples.classes)
    if len(found) < 2:
        raise NotTrainable(f"training needs samples of at least two labels, there are {len(found)}")
    head = _logistic(examples.embeddings, examples.classes, examples.weights, params)
    if params.head == "logistic" or not len(examples.unlabelled):
        return head
    unlabelled = _sample(examples.unlabelled, params)
    carried, trust = spread(examples, unlabelled, params)
    guesses = head.predict_proba(unlabelled)
    places = np.searchsorted(head.classes_, carried)
    trust = trust * (guesses[np.arange(len(carried)), places] >= REFUTED * guesses.max(axis=1))
    kept = trust > 0
    return _logistic(
        np.concatenate([examples.embeddings, unlabelled[kept]]),
        np.concatenate([examples.classes, carried[kept]]),
        np.concatenate([examples.weights, trust[kept]]),
        params,
    )


def spread(examples: Examples, unlabelled: np.ndarray, params: HeadParams) -> tuple[np.ndarray, np.ndarray]:
    """Class (U,) carried to each unlabelled sample, and the trust in it (U,), 0..1: the margin of its shares.

    Every class starts with the same mass, or one that was asked about more often would flood the others.
    """
    found, given = np.unique(examples.classes, return_inverse=True)
    points = np.concatenate([examples.embeddings, unlabelled]).astype(np.float64)
    graph = _graph(points, min(params.neighbours, len(points) - 1))
    start = np.zeros((len(points), len(found)))
    start[np.arange(len(given)), given] = 1.0 / np.bincount(given)[given]
    shares = start
    for _ in range(50):
        shares = params.alpha * (graph @ shares) + (1.0 - params.alpha) * start
    reached = shares[len(given) :]
    total = reached.sum(axis=1, keepdims=True)
    reached = np.divide(reached, total, out=np.zeros_like(reached), where=total > 1e-9)
    top = np.sort(reached, axis=1)
    return found[reached.argmax(axis=1)], top[:, -1] - top[:, -2]


def _logistic(
    embeddings: np.ndarray, classes: np.ndarray, weights: np.ndarray, params: HeadParams
) -> "LogisticRegression":
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=params.c, max_iter=params.max_iter)
    return model.fit(np.asarray(embeddings, np.float64), classes, sample_weight=weights)


def _sample(unlabelled: np.ndarray, params: HeadParams) -> np.ndarray:
    if len(unlabelled) <= params.most_unlabelled:
        return unlabelled
    rng = np.random.default_rng(params.seed)
    return unlabelled[np.sort(rng.permutation(len(unlabelled))[: params.most_unlabelled])]


def _graph(points: np.ndarray, neighbours: int) -> "csr_array":
    """Symmetric normalised k-nearest-neighbour graph; distances scaled locally (Zelnik-Manor and Perona 2004)."""
    from scipy.sparse import csr_array, diags_array

    count = len(points)
    square = (points * points).sum(axis=1)
    ids = np.empty((count, neighbours), np.int64)
    gaps = np.empty((count, neighbours))
    for start in range(0, count, BLOCK):
        block = slice(start, min(start + BLOCK, count))
        distances = np.maximum(square[block, None] + square - 2.0 * (points[block] @ points.T), 0.0)
        distances[np.arange(len(distances)), np.arange(block.start, block.stop)] = np.inf
        near = np.argpartition(distances, neighbours - 1, axis=1)[:, :neighbours]
        ids[block], gaps[block] = near, np.take_along_axis(distances, near, axis=1)
    scale = np.sqrt(gaps.max(axis=1)) + 1e-12
    rows = np.repeat(np.arange(count), neighbours)
    weights = np.exp(-gaps.ravel() / (scale[rows] * scale[ids.ravel()]))
    graph = csr_array((weights, (rows, ids.ravel())), shape=(count, count))
    graph = graph.maximum(graph.T)
    degree = diags_array(1.0 / np.sqrt(np.maximum(graph.sum(axis=1), 1e-12)))
    return csr_array(degree @ graph @ degree)
