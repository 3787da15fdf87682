"""Who is right when annotators differ: each one's confusion matrix and each task's true class, by EM. Pure.

Dawid and Skene, "Maximum likelihood estimation of observer error-rates using the EM algorithm" (1979).
"""

from dataclasses import dataclass

import numpy as np

ITERATIONS = 100
ENOUGH = 1e-6  # change of the log-likelihood of an answer at which the estimate is taken for good


@dataclass(frozen=True)
class Estimate:
    """`posterior` (T, K) of each task's class, `confusion` (A, K, K) with the truth in rows, `prior` (K,)."""

    posterior: np.ndarray
    confusion: np.ndarray
    prior: np.ndarray

    @property
    def reliability(self) -> np.ndarray:
        """How often each annotator would be right over all classes as frequent as they are, (A,)."""
        return np.einsum("k,akk->a", self.prior, self.confusion)


def estimate(
    tasks: np.ndarray,
    annotators: np.ndarray,
    classes: np.ndarray,
    shape: tuple[int, int, int],
    known: tuple[np.ndarray, np.ndarray] | None = None,
    smoothing: float = 0.01,
) -> Estimate:
    """From N answers, each as indices of its task, annotator and class; `shape` is (T, A, K).

    `known` are tasks with their true classes (gold samples): they stay as they are, and decide where EM starts, for it
    ends at the nearest maximum. `smoothing` pseudo-answers in each cell keep somebody with few answers from being taken
    for certain. Raises ValueError if there is no answer.
    """
    if not len(tasks):
        raise ValueError("there is nothing to estimate from")
    total, people, labels = shape
    fixed = np.zeros((total, labels))
    if known is not None:
        fixed[known[0]] = np.eye(labels)[known[1]]
    is_fixed = fixed.any(axis=1)
    prior = np.full(labels, 1 / labels)
    # Everybody is taken to have been right once in each class, beside what they said of the known.
    confusion = _confusion(fixed, tasks, annotators, classes, people, smoothing, start=np.eye(labels))
    posterior, before = fixed, -np.inf
    for _ in range(ITERATIONS):
        posterior, now = _posterior(prior, confusion, tasks, annotators, classes, total)
        posterior[is_fixed] = fixed[is_fixed]
        if abs(now - before) < ENOUGH:
            break
        before = now
        prior = posterior.mean(axis=0) + 1e-9
        prior /= prior.sum()
        confusion = _confusion(posterior, tasks, annotators, classes, people, smoothing)
    return Estimate(posterior, confusion, prior)


def _confusion(
    posterior: np.ndarray,
    tasks: np.ndarray,
    annotators: np.ndarray,
    classes: np.ndarray,
    people: int,
    smoothing: float,
    start: np.ndarray | float = 0.0,
) -> np.ndarray:
    """What each annotator answers, given the truth, (A, K, K)."""
    labels = posterior.shape[1]
    found = np.full((people, labels, labels), smoothing) + start
    for truth in range(labels):
        np.add.at(found[:, truth, :], (annotators, classes), posterior[tasks, truth])
    return found / found.sum(axis=2, keepdims=True)


def _posterior(
    prior: np.ndarray, confusion: np.ndarray, tasks: np.ndarray, annotators: np.ndarray, classes: np.ndarray, total: int
) -> tuple[np.ndarray, float]:
    """Each task's class, (T, K), and the mean log-likelihood of an answer."""
    logs = np.tile(np.log(prior), (total, 1))
    np.add.at(logs, tasks, np.log(confusion)[annotators, :, classes])
    most = logs.max(axis=1, keepdims=True)
    likelihood = np.exp(logs - most)
    sums = likelihood.sum(axis=1, keepdims=True)
    return likelihood / sums, float((most + np.log(sums)).sum()) / len(tasks)
