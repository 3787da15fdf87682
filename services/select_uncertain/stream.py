"""Choosing from a stream: the k best in O(k) memory, and a threshold that keeps to a share whatever drifts. Pure."""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


class TopK:
    """The k largest of all pushed so far, in memory for 2 k of them at most, chunk by chunk.

    Of equal values the one with the lesser key stays, so the order in which they came does not matter.
    """

    def __init__(self, k: int) -> None:
        if k < 0:
            raise ValueError(f"k is at least 0, not {k}")
        self._k = k
        self._values = np.empty(0, np.float64)
        self._keys: np.ndarray = np.empty(0, np.int64)

    def push(self, values: np.ndarray, keys: np.ndarray) -> None:
        """Values (N,) and as many distinct keys (integers or strings). Raises ValueError for NaN."""
        values, keys = np.asarray(values, np.float64), np.asarray(keys)
        if values.shape != keys.shape or values.ndim != 1:
            raise ValueError(f"values are (N,) with as many keys, not {values.shape} and {keys.shape}")
        if np.isnan(values).any():
            raise ValueError("a value is not a number")
        step = max(self._k, 1024)
        for start in range(0, len(values), step):
            self._take(values[start : start + step], keys[start : start + step])

    def _take(self, values: np.ndarray, keys: np.ndarray) -> None:
        if self._k and len(self._values) == self._k:
            worth = values >= self._values[-1]
            values, keys = values[worth], keys[worth]
        if not len(values):
            return
        known = keys[:0] if not len(self._keys) else self._keys
        values, keys = np.concatenate([self._values, values]), np.concatenate([known, keys])
        order = np.lexsort((keys, -values))[: self._k]
        self._values, self._keys = values[order], keys[order]

    def best(self) -> list[tuple[Any, float]]:
        """(key, value), largest first."""
        return list(zip(self._keys.tolist(), self._values.tolist(), strict=True))


class AdaptiveThreshold:
    """Takes the highest `share` of a stream of scores, deciding each as it comes.

    The threshold is the quantile of the last `window` scores, moved by how far the number taken is off the share
    (after the balanced incremental quantile filter, Kottke, Krempl and Spiliopoulou, IDA 2015): the quantile follows
    the drift, and what it misses meanwhile is made up for.
    """

    def __init__(self, share: float, window: int = 500, state: dict[str, Any] | None = None) -> None:
        if not 0 < share < 1 or window < 2:
            raise ValueError(f"a share in (0, 1) and a window of at least 2, not {share} and {window}")
        state = state or {"recent": [], "seen": 0, "taken": 0}
        self.share = share
        self.seen: int = state["seen"]
        self.taken: int = state["taken"]
        self._recent: deque[float] = deque(state["recent"], maxlen=window)

    @property
    def state(self) -> dict[str, Any]:
        """All there is to remember, as JSON."""
        return {"recent": list(self._recent), "seen": self.seen, "taken": self.taken}

    def push(self, scores: Sequence[float] | Iterable[float]) -> list[bool]:
        """Which of these are taken, in the order in which they come. Raises ValueError for NaN."""
        return [self._one(float(score)) for score in scores]

    def _one(self, score: float) -> bool:
        if not np.isfinite(score):
            raise ValueError("a score is not a number")
        self._recent.append(score)
        self.seen += 1
        owed = self.share * self.seen - self.taken
        # One whole sample owed moves the quantile by as much as one in a tenth of the window.
        quantile = np.clip(1.0 - self.share - (owed - 0.5) * 10 / max(len(self._recent), 20), 0.0, 1.0)
        takes = owed >= 1.0 - self.share and score >= np.quantile(np.fromiter(self._recent, np.float64), quantile)
        self.taken += bool(takes)
        return bool(takes)
