"""Carries labels along a nearest-neighbour graph of labelled and unlabelled samples (label spreading).

Zhou et al., NeurIPS 2003. The graph depends on the samples alone, so it is made once for all that is tried on it.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array

BLOCK = 1024
STEPS = 50


def carry(graph: "csr_array", given: np.ndarray, classes: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Class (P,) that reaches each of the graph's P points, and the trust in it (P,), 0..1: the margin of its shares.

    `given` (M,) are the places of the labelled points and `classes` (M,) their labels; `alpha` is the share a point
    takes from its neighbours. Every class starts with the same mass, or one that was asked about more often would
    flood the others.
    """
    found, label = np.unique(classes, return_inverse=True)
    start = np.zeros((graph.indptr.size - 1, len(found)))
    start[given, label] = 1.0 / np.bincount(label)[label]
    shares = start
    for _ in range(STEPS):
        shares = alpha * (graph @ shares) + (1.0 - alpha) * start
    total = shares.sum(axis=1, keepdims=True)
    shares = np.divide(shares, total, out=np.zeros_like(shares), where=total > 1e-9)
    top = np.sort(shares, axis=1)
    return found[shares.argmax(axis=1)], top[:, -1] - top[:, -2]


def neighbour_graph(points: np.ndarray, neighbours: int) -> "csr_array":
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
