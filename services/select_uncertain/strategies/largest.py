"""Exact top-k in O(N) time: of scores, and of margins without ever holding all of them."""

import numpy as np

from services.contracts.uncertainty import checked

BLOCK_BYTES = 5 << 17
"""Probabilities that are looked at at once: what fits into a core's second cache."""


def largest(values: np.ndarray, count: int) -> np.ndarray:
    """Indices of the `count` largest of values (N,), largest first, the lower index first where they tie."""
    if count < len(values):
        least = np.partition(values, len(values) - count)[len(values) - count] if count else np.inf
        above = np.flatnonzero(values > least)
        level = np.flatnonzero(values == least)[: count - len(above)]
        chosen = np.sort(np.concatenate([above, level]))
    else:
        chosen = np.arange(len(values))
    return chosen[np.argsort(-values[chosen], kind="stable")]


def least_certain(probabilities: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices (k,) of the rows of (N, C) whose two largest are closest, closest first, and their margin scores (k,).

    k = min(count, N). Streams over blocks: O(k) memory beside them. Fortran order (class-major) is fastest. Raises
    ValueError where an entry is NaN or a picked row is no distribution.
    """
    size, classes = probabilities.shape
    count = min(count, size)
    if classes < 2:
        raise ValueError(f"probabilities are (N, C) with at least two classes, not {probabilities.shape}")
    if not count:
        return np.zeros(0, np.int64), np.zeros(0)
    rows = max(64, BLOCK_BYTES // (classes * probabilities.itemsize))
    gap = _Gaps(probabilities, rows)
    found, gaps, bound = np.zeros(0, np.int64), np.zeros(0, probabilities.dtype), np.inf
    for start in range(0, size, rows):
        block = gap.of(start, min(start + rows, size))
        if not np.isfinite(block.sum()):
            raise ValueError("a probability is not finite")
        close = np.flatnonzero(block < bound)
        if len(close):
            found, gaps = np.concatenate([found, close + start]), np.concatenate([gaps, block[close]])
        if len(found) > 2 * count:
            kept = np.sort(largest(-gaps, count))
            found, gaps = found[kept], gaps[kept]
            bound = gaps.max()
    kept = largest(-gaps, count)
    checked(probabilities[found[kept]])
    return found[kept], np.clip(1.0 - gaps[kept].astype(np.float64), 0.0, 1.0)


class _Gaps:
    """p1 - p2 of blocks of rows, by running maxima and second maxima over the classes, in buffers used again.

    Rows of an even number of classes are turned two classes at a time: half as many strided reads. Their two lanes are
    merged at every place and not only at every second one, which is thrown away: contiguous reads are that much faster.
    """

    def __init__(self, probabilities: np.ndarray, rows: int) -> None:
        self._major = probabilities.flags.f_contiguous
        self._paired = not self._major and probabilities.flags.c_contiguous and probabilities.shape[1] % 2 == 0
        wide = {4: np.complex64, 8: np.complex128}.get(probabilities.itemsize)
        self._paired = self._paired and wide is not None
        self._source = probabilities.view(wide) if self._paired and wide else probabilities
        lanes = 2 if self._paired else 1
        self._turned = np.empty((self._source.shape[1], 0 if self._major else rows), self._source.dtype)
        self._work = np.empty((3, rows * lanes), probabilities.dtype)
        self._lanes = lanes

    def of(self, start: int, stop: int) -> np.ndarray:
        """(stop - start,) gaps, valid until the next call."""
        columns = self._source[start:stop].T
        if not self._major:
            turned = self._turned[:, : stop - start]
            np.copyto(turned, columns)
            columns = turned
        lines = [column.view(self._work.dtype) for column in columns]
        first, second, spare = self._work[:, : (stop - start) * self._lanes]
        if len(lines) == 1:  # two classes, turned together
            return np.abs(np.subtract(lines[0][::2], lines[0][1::2]))
        np.maximum(lines[0], lines[1], out=first)
        np.minimum(lines[0], lines[1], out=second)
        for line in lines[2:]:
            np.minimum(first, line, out=spare)
            np.maximum(second, spare, out=second)
            np.maximum(first, line, out=first)
        if self._lanes == 1:
            return np.subtract(first, second, out=first)
        other = np.minimum(first[:-1], first[1:], out=spare[:-1])
        np.maximum(other, second[:-1], out=other)
        np.maximum(other, second[1:], out=other)
        best = np.maximum(first[:-1], first[1:], out=second[:-1])
        return np.subtract(best, other, out=other)[::2]
