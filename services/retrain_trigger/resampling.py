"""How sure a difference of two models is that is no share of right answers: a paired bootstrap over samples. Pure.

To the n samples come two imagined ones, of which one model is wholly right about the first and the other about the
second: as in Bonett and Price's interval for a paired difference of proportions (Journal of Educational and Behavioral
Statistics 37, 2012), two models that never differed are then not taken for surely equal.
"""

from collections.abc import Callable, Iterator

import numpy as np

IMAGINED = 2
DRAWS = 500
AT_ONCE = 50
SEED = 0


def deviations(difference: Callable[[np.ndarray], np.ndarray], n: int) -> np.ndarray:
    """Standard deviations (K,) of K differences; NaN of one that is undefined in every draw.

    `difference` takes (B, n + 2) counts, how often a draw has each sample, the imagined ones last, and gives (B, K).
    """
    found = np.concatenate([difference(counts) for counts in _draws(n + IMAGINED)])
    known = np.isfinite(found)
    sums = np.where(known, found, 0.0).sum(axis=0)
    times = known.sum(axis=0)
    mean = np.divide(sums, times, out=np.full(len(sums), np.nan), where=times > 0)
    squares = np.where(known, (found - mean) ** 2, 0.0).sum(axis=0)
    return np.sqrt(np.divide(squares, times - 1, out=np.full(len(sums), np.nan), where=times > 1))


def _draws(size: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(SEED)
    rows = size * np.arange(AT_ONCE)[:, None]
    for _ in range(0, DRAWS, AT_ONCE):
        chosen = (rng.integers(size, size=(AT_ONCE, size)) + rows).ravel()
        yield np.bincount(chosen, minlength=AT_ONCE * size).reshape(AT_ONCE, size).astype(np.float64)


def paired(n: int, differences: np.ndarray, deviation: np.ndarray, classes: dict[str, int]) -> dict[str, object]:
    """What a gate goes by: of the whole, and of each class with its count; a class that has no difference is left out.

    `differences` and `deviation` are (1 + C,), the whole first.
    """
    rows = zip(classes.items(), differences[1:].tolist(), deviation[1:].tolist(), strict=True)
    return {
        "n": n,
        "difference": float(differences[0]),
        "deviation": float(deviation[0]),
        "per_class": {
            label: {"n": count, "difference": difference, "deviation": spread}
            for (label, count), difference, spread in rows
            if np.isfinite(difference) and np.isfinite(spread)
        },
    }
