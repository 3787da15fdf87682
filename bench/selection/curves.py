"""One learning curve: a data set, a model, a strategy and a seed."""

import time
import zlib
from functools import cache
from typing import Any

import numpy as np

from bench.selection.datasets import Data, load
from bench.selection.learners import HEADS, Fitted, learn, score
from bench.selection.peers import PEERS, Turn
from services.retrain_trigger.calibration import calibration_error
from services.select_uncertain.strategies import STRATEGIES, Pool

COLD = "+cold"
"""Ends the name of a strategy that picks its first labels too, by coverage, instead of starting with random ones."""

LONGER = 2
"""Times the budget that random's curve is drawn for: it needs the most labels, and others are held to how many."""

HEAD_BUDGET = 200
"""Labels at most where the heads of the default trainer are compared: they need few."""


def play(dataset: str, learner: str, strategy: str, seed: int) -> dict[str, Any]:
    """{labels: [...], scores: [...], budget, full, seconds, calibration: [...]}: the test score after each batch.

    The split and the random first labels depend on the data set and the seed alone, so that runs are paired. `seconds`
    is the CPU time of selection; `calibration` are pairs of errors on the test set, before and after; areas are to be
    compared up to `budget`.
    """
    data, pool, test, first = _dealt(dataset, seed)
    x, y, count = data.embeddings[pool], data.classes[pool], int(data.classes.max()) + 1
    full = full_score(dataset, learner, seed)
    picking = np.random.default_rng([seed, zlib.crc32(strategy.encode())])
    name = strategy.removesuffix(COLD)
    labelled = first if name == strategy else _covered(x, y, data.first, picking)
    budget = min(data.budget, HEAD_BUDGET) if learner in HEADS else data.budget
    labels, scores, errors, seconds = [], [], [], 0.0
    while True:
        rest = np.setdiff1d(np.arange(len(pool)), labelled)
        fitted = learn(learner, x[labelled], y[labelled], x[rest], count, seed)
        labels.append(len(labelled))
        scores.append(_judged(fitted, data, test))
        errors.append(_errors(fitted, data, test))
        size = min(data.batch, budget * (LONGER if name == "random" else 1) - len(labelled), len(rest))
        if size <= 0:
            found = {"labels": labels, "scores": scores, "budget": budget, "full": full, "seconds": seconds}
            return found | ({"calibration": errors} if learner == "auto" else {})
        began = time.process_time()
        chosen = _chosen(name, fitted, x, y, labelled, rest, size, picking)
        seconds += time.process_time() - began
        if len(set(chosen.tolist())) != size:
            raise RuntimeError(f"{name} picked {len(set(chosen.tolist()))} of {size} on {dataset}")
        labelled = np.concatenate([labelled, rest[chosen]])


@cache
def full_score(dataset: str, learner: str, seed: int) -> float:
    """The test score with all labels of the pool."""
    data, pool, test, _ = _dealt(dataset, seed)
    x, y = data.embeddings[pool], data.classes[pool]
    return _judged(learn(learner, x, y, x[:0], int(data.classes.max()) + 1, seed), data, test)


def _dealt(dataset: str, seed: int) -> tuple[Data, np.ndarray, np.ndarray, np.ndarray]:
    """The data set, its pool and test set of this seed, and the first labels' places in the pool."""
    data = load(dataset)
    rng = np.random.default_rng([seed, zlib.crc32(dataset.encode())])
    pool, test = data.split(rng)
    return data, pool, test, _first(data.classes[pool], data.first, rng)


def _chosen(name: str, fitted: Fitted, x, y, labelled, rest, size: int, rng: np.random.Generator) -> np.ndarray:
    """Places in `rest`."""
    if name in PEERS:
        return np.asarray(PEERS[name](Turn(fitted, x, y, labelled, rest, size, int(rng.integers(1 << 31)))))
    pool = Pool(x[rest], fitted.probabilities(x[rest]).astype(np.float32))
    return np.array([pick.index for pick in STRATEGIES[name](pool, x[labelled], size, rng)])


def _judged(fitted: Fitted, data: Data, test: np.ndarray) -> float:
    answers = fitted.probabilities(data.embeddings[test]).argmax(axis=1)
    return score(data.metric, data.classes[test], answers)


def _errors(fitted: Fitted, data: Data, test: np.ndarray) -> tuple[float, float]:
    """Expected calibration error without and with the temperature that the head found."""
    p = fitted.probabilities(data.embeddings[test])
    raw = p**fitted.temperature
    raw /= raw.sum(axis=1, keepdims=True)
    return calibration_error(raw, data.classes[test]), calibration_error(p, data.classes[test])


def _first(y: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Random first labels; the last of them makes way for a second class where there is none (1:50)."""
    order = rng.permutation(len(y))
    chosen = order[:size]
    if len(np.unique(y[chosen])) < 2:
        chosen[-1] = order[size:][np.argmax(y[order[size:]] != y[chosen[0]])]
    return chosen


def _covered(x: np.ndarray, y: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """First labels by coverage; more of them by as many, until there are two classes."""
    chosen = np.zeros(0, np.int64)
    while len(chosen) < size or len(np.unique(y[chosen])) < 2:
        rest = np.setdiff1d(np.arange(len(x)), chosen)
        picks = STRATEGIES["coverage"](Pool(x[rest]), x[chosen], size, rng)
        chosen = np.concatenate([chosen, rest[[pick.index for pick in picks]]])
    return chosen
