"""Probabilities that mean what they say: temperature scaling, and how far off they are. Pure numpy."""

import numpy as np

BINS = 15
WIDEST = 8.0
"""Temperatures lie within 1 / WIDEST .. WIDEST."""
PRIOR = 4.0
"""Samples' worth of belief that nothing has to change, so that a handful of samples cannot turn a model upside down."""


def temperature(logits: np.ndarray, classes: np.ndarray, weights: np.ndarray) -> float:
    """The T that makes softmax(logits / T) likeliest for samples that the model was not fitted on.

    `logits` (N, C), `classes` (N,) columns of them, `weights` (N,) > 0. Guo et al., ICML 2017, with a weak normal prior
    on log T. The loss is convex in 1 / T; golden section over log T finds it to 1e-3. 1.0 without samples.
    """
    if not len(classes):
        return 1.0
    rows = np.arange(len(classes))

    def loss(log_t: float) -> float:
        scaled = logits / np.exp(log_t)
        top = scaled.max(axis=1, keepdims=True)
        nll = np.log(np.exp(scaled - top).sum(axis=1)) + top[:, 0] - scaled[rows, classes]
        return float(weights @ nll + 0.5 * PRIOR * log_t**2)

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
