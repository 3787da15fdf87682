"""What a query strategy takes and gives: a pool, what is labelled, k and a generator in; picks out."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import wraps

import numpy as np

from services.contracts import uncertainty
from services.select_uncertain.strategies.largest import largest, least_certain

BLOCK = 1 << 14
"""Rows that are looked at at once."""


@dataclass(frozen=True)
class Pool:
    """What may be asked: embeddings (N, D), and probabilities (N, C) unless there is no model yet.

    `uncertainty` (N,) in 0..1 takes the margin's place where a task has a score of its own: several labels, boxes,
    windows (`services/contracts/structured_uncertainty.py`).
    """

    embeddings: np.ndarray
    probabilities: np.ndarray | None = None
    uncertainty: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.embeddings)

    @property
    def is_scored(self) -> bool:
        """Whether a model has an opinion of these samples."""
        return self.probabilities is not None or self.uncertainty is not None

    def unsure(self) -> np.ndarray:
        """(N,) in 0..1, higher is less certain: the task's own score, else the margin. Raises ValueError."""
        if self.uncertainty is not None:
            return np.clip(np.asarray(self.uncertainty, np.float64), 0.0, 1.0)
        if self.probabilities is None:
            raise ValueError("without a model nothing is known of the uncertainty")
        return uncertainty.margin(self.probabilities)

    def least_certain(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Indices (k,) of the `count` least certain, least certain first, and their scores (k,); O(k) memory."""
        if self.uncertainty is None and self.probabilities is not None:
            return least_certain(self.probabilities, count)
        values = self.unsure()
        chosen = largest(values, min(count, len(values)))
        return chosen, values[chosen]

    def part(self, rows: np.ndarray) -> "Pool":
        """The samples at these places, in this order."""
        probabilities = None if self.probabilities is None else self.probabilities[rows]
        return Pool(self.embeddings[rows], probabilities, None if self.uncertainty is None else self.uncertainty[rows])

    def count(self, k: int) -> int:
        """How many can be picked: k, or all. Raises ValueError where k is negative or an array has another length."""
        if k < 0:
            raise ValueError(f"k is at least 0, not {k}")
        for column, what in zip(self._columns[1:], ("probabilities", "uncertainties"), strict=True):
            if column is not None and len(column) != len(self):
                raise ValueError(f"{len(column)} {what} for {len(self)} embeddings")
        return min(k, len(self))

    def check(self, k: int) -> int:
        """The same count; also raises ValueError where a number is not finite."""
        for column, what in zip(self._columns, ("an embedding", "a probability", "an uncertainty"), strict=True):
            if column is not None and not all(np.isfinite(part).all() for part in _blocks(column)):
                raise ValueError(f"{what} is not finite")
        return self.count(k)

    @property
    def _columns(self) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        return self.embeddings, self.probabilities, self.uncertainty


@dataclass(frozen=True)
class Pick:
    """One sample to ask: its index in the pool, a priority in 0..1, and why."""

    index: int
    score: float
    reason: str


Strategy = Callable[[Pool, np.ndarray, int, np.random.Generator], list[Pick]]
"""(pool, labelled embeddings (M, D), k, rng) -> at most k picks, best first, no sample twice."""


def _blocks(column: np.ndarray) -> Iterator[np.ndarray]:
    return (column[at : at + BLOCK] for at in range(0, len(column), BLOCK))


def any_order(strategy: Strategy) -> Strategy:
    """The strategy on a pool sorted by content, so that the order in which samples came changes no pick."""

    @wraps(strategy)
    def picked(pool: Pool, labelled: np.ndarray, k: int, rng: np.random.Generator) -> list[Pick]:
        if not pool.check(k):
            return []
        order = content_order(pool)
        picks = strategy(pool.part(order), labelled, k, rng)
        return [replace(pick, index=int(order[pick.index])) for pick in picks]

    return picked


def content_order(pool: Pool) -> np.ndarray:
    """Places (N,) of the samples sorted by a fixed mixture of their numbers; only equal samples tie."""
    key = np.zeros(len(pool))
    for salt, column in enumerate((pool.embeddings, pool.probabilities), start=1):
        if column is not None:
            key += column @ np.sin(salt * np.arange(1, column.shape[1] + 1) ** 2).astype(column.dtype)
    if pool.uncertainty is not None:
        key += pool.uncertainty
    return np.argsort(key, kind="stable")
