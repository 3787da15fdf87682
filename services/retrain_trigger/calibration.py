"""Probabilities that mean what they say: temperature scaling, and how far off they are. Pure numpy."""

import numpy as np

BINS = 15
WIDEST = 8.0
"""Temperatures lie within 1 / WIDEST .. WIDEST."""
STEPS = 40
"""Temperatures between none and the likeliest that are looked at."""


def temperature(logits: np.ndarray, classes: np.ndarray, weights: np.ndarray) -> float:
    """The T for softmax(logits / T), from samples that the model was not fitted on.

    `logits` (N, C), `classes` (N,) columns of them, `weights` (N,) > 0. Of the temperatures between 1 and the likeliest
    (Guo et al., ICML 2017) it is the nearest to 1 that is worse by no more than a standard error: a few samples that a
    model is sure and wrong of do not make it unsure of everything. 1.0 without samples.
    """
    if not len(classes):
        return 1.0
    share = weights / weights.sum()
    best = _likeliest(logits, classes, share)
    least = _losses(logits, classes, best)
    for step in range(STEPS):
        mild = best ** (step / STEPS)
        more = _losses(logits, classes, mild) - least
        mean = share @ more
        if mean <= np.sqrt(share**2 @ (more - mean) ** 2):
            return float(mild)
    return best


def _losses(logits: np.ndarray, classes: np.ndarray, t: float) -> np.ndarray:
    """Negative log-likelihood (N,) of the classes."""
    scaled = logits / t
    top = scaled.max(axis=1, keepdims=True)
    return np.log(np.exp(scaled - top).sum(axis=1)) + top[:, 0] - scaled[np.arange(len(classes)), classes]


def _likeliest(logits: np.ndarray, classes: np.ndarray, share: np.ndarray) -> float:
    """The loss is convex in 1 / T, so golden section over log T finds its least, to 1e-3."""

    def loss(log_t: float) -> float:
        return float(share @ _losses(logits, classes, np.exp(log_t)))

    low, high = -np.log(WIDEST), np.log(WIDEST)
    ratio = (np.sqrt(5.0) - 1.0) / 2.0
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = loss(left), loss(right)
    while high - low > 1e-3:
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = loss(right)
    return float(np.exp((low + high) / 2.0))


def cross_fitted(logits: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Probabilities (N, C), every second sample's by the temperature that the others give: for an honest error."""
    found = np.empty_like(logits, dtype=np.float64)
    for half in (0, 1):
        mine, others = slice(half, None, 2), slice(1 - half, None, 2)
        t = temperature(logits[others], classes[others], np.ones(len(classes[others])))
        found[mine] = softmax(logits[mine] / t)
    return found


def softmax(logits: np.ndarray) -> np.ndarray:
    """(N, C) -> probabilities (N, C)."""
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def of_each(probabilities: np.ndarray) -> np.ndarray:
    """(N, C) probabilities of labels, each for itself -> (N * C, 2): that it is not there, and that it is."""
    p = np.asarray(probabilities, np.float64).reshape(-1, 1)
    return np.concatenate([1.0 - p, p], axis=1)


def calibration_error(probabilities: np.ndarray, classes: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error: mean |accuracy - confidence| over `bins` equal bins of the top probability.

    `probabilities` (N, C), `classes` (N,) columns of them; 0.0 without samples. Naeini et al., AAAI 2015.
    """
    if not len(classes):
        return 0.0
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == classes
    place = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(place, right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(classes))
