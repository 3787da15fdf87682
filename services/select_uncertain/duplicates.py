"""Near-duplicates by the distance of embeddings: inside a batch, and to what was asked already. Pure."""

import numpy as np

BLOCK = 4096  # rows compared at a time


def fresh(vectors: np.ndarray, asked: np.ndarray, distance: float) -> np.ndarray:
    """Which rows (N,) of `vectors` (N, D), best first, are farther than `distance` from all of `asked` (M, D) and from
    every better row that stays. The distance is the cosine's, 0 (alike) to 2 (opposite); a zero vector is like none.
    """
    kept = np.ones(len(vectors), dtype=bool)
    points, others = _unit(vectors), _unit(asked)
    for start in range(0, len(others) if len(points) else 0, BLOCK):
        kept &= ~(points @ others[start : start + BLOCK].T >= 1.0 - distance - 1e-6).any(axis=1)
    chosen: list[int] = []
    for index in np.flatnonzero(kept):
        if chosen and (points[chosen] @ points[index]).max() >= 1.0 - distance - 1e-6:
            kept[index] = False
        else:
            chosen.append(int(index))
    return kept


def _unit(vectors: np.ndarray) -> np.ndarray:
    rows = np.asarray(vectors, np.float64)
    if not np.isfinite(rows).all():
        raise ValueError("an embedding is not finite")
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
