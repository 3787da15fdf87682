"""Uncertainty scores of a batch of predictions, as they go into SampleScored."""

import numpy as np

from services.contracts.uncertainty import entropy, least_confidence, margin

SCORES = {"least_confidence": least_confidence, "margin": margin, "entropy": entropy}
"""Every score by its name: (N, C) probabilities -> (N,) in 0..1, higher is less certain."""


def scores(probabilities: np.ndarray) -> dict[str, np.ndarray]:
    """All scores of (N, C) probabilities, each (N,). Raises ValueError where they are no probabilities."""
    return {name: score(probabilities) for name, score in SCORES.items()}
