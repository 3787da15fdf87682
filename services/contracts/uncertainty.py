"""What the uncertainty scores mean, for whoever makes or uses them: 0..1, higher is less certain, a tie is 1."""

import numpy as np

SMALLEST = float(np.finfo(np.float64).tiny)


def checked(probabilities: np.ndarray) -> np.ndarray:
    """float64 (N, C), C >= 2, of finite values in 0..1 whose rows sum to 1 (within 1e-3). Raises ValueError."""
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or p.shape[1] < 2:
        raise ValueError(f"probabilities are (N, C) with at least two classes, not {p.shape}")
    if not np.isfinite(p).all() or (p < -1e-6).any() or (p > 1 + 1e-3).any():
        raise ValueError("probabilities are finite and within 0..1")
    if p.shape[0] and np.abs(p.sum(axis=1) - 1).max() > 1e-3:
        raise ValueError("a row of probabilities sums to 1")
    return np.clip(p, 0.0, 1.0)


def least_confidence(probabilities: np.ndarray) -> np.ndarray:
    """(N, C) -> (N,): (1 - max p) * C / (C - 1)  (Settles 2009, section 3.1, normalised)."""
    return _least_confidence(checked(probabilities))


def margin(probabilities: np.ndarray) -> np.ndarray:
    """(N, C) -> (N,): 1 - (p1 - p2), p1 and p2 the two largest  (Scheffer et al. 2001)."""
    return _margin(checked(probabilities))


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """(N, C) -> (N,): -sum p log p / log C, with 0 log 0 = 0  (Shannon 1948, normalised)."""
    return _entropy(checked(probabilities))


SCORES = {"least_confidence": least_confidence, "margin": margin, "entropy": entropy}
"""Every score of a classification by its name: (N, C) probabilities -> (N,) in 0..1, higher is less certain."""


def of_sound(p: np.ndarray, difference: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """All scores of (N, C) probabilities that are known to be some; `difference` is p1 - p2 (N,), if it is known."""
    values = p.astype(np.float64)
    apart = _margin(values) if difference is None else _within(1.0 - difference.astype(np.float64))
    return {"least_confidence": _least_confidence(values), "margin": apart, "entropy": _entropy(values)}


def _least_confidence(p: np.ndarray) -> np.ndarray:
    classes = p.shape[1]
    return _within((1.0 - p.max(axis=1)) * (classes / (classes - 1)))


def _margin(p: np.ndarray) -> np.ndarray:
    top = np.partition(p, -2, axis=1)[:, -2:]
    return _within(1.0 - (top[:, 1] - top[:, 0]))


def _entropy(p: np.ndarray) -> np.ndarray:
    return _within(-np.einsum("nc,nc->n", p, np.log(np.maximum(p, SMALLEST))) / np.log(p.shape[1]))


def _within(scores: np.ndarray) -> np.ndarray:
    return np.minimum(np.maximum(scores, 0.0), 1.0)
