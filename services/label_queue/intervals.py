"""95 % intervals of shares and of their difference. Pure."""

from math import sqrt
from typing import Any

Interval = tuple[float, float]
Z = 1.959964


def wilson(hits: int, total: int) -> Interval:
    """Of a share (Wilson 1927); all of [0, 1] without any trial."""
    if not total:
        return 0.0, 1.0
    share, z = hits / total, Z**2 / total
    middle, half = share + z / 2, Z * sqrt((share * (1 - share) + z / 4) / total)
    return max(0.0, (middle - half) / (1 + z)), min(1.0, (middle + half) / (1 + z))


def newcombe(one: tuple[int, int], other: tuple[int, int]) -> Interval:
    """Of the difference of two independent shares, each (hits, total) (Newcombe 1998, method 10)."""
    p, q = (hits / total if total else 0.5 for hits, total in (one, other))
    (low_p, high_p), (low_q, high_q) = wilson(*one), wilson(*other)
    low = p - q - sqrt((p - low_p) ** 2 + (high_q - q) ** 2)
    high = p - q + sqrt((high_p - p) ** 2 + (q - low_q) ** 2)
    return max(-1.0, low), min(1.0, high)


def share(hits: int, total: int) -> dict[str, Any]:
    """A share with its interval, as reports show it; null without any trial."""
    value = hits / total if total else None
    return {"n": total, "share": value, "interval": list(wilson(hits, total)) if total else None}
