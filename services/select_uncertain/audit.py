"""The error rate of confident predictions, from labels of a random share of them, with an interval. Pure.

Whether a sample is audited is settled by a hash of its id, or by a draw among all that are confident: neither looks at
the prediction or its truth. So, whatever else is asked about, the audited are a simple random sample of the confident
predictions of their model, and the share of errors among them is unbiased. The interval is Clopper and Pearson's (1934)
and not Wilson's: it holds in at least 95 % of cases for every rate and size, where Wilson's falls short for the rare
errors of a good model; it is wider for that. Drawing without replacement only makes it more cautious.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from services.contracts.values import agree


@dataclass(frozen=True)
class Estimate:
    """`errors` among `labels`, and what that says of all: a rate and the ends of its 95 % interval."""

    errors: int
    labels: int

    @property
    def rate(self) -> float | None:
        return self.errors / self.labels if self.labels else None

    def told(self) -> dict[str, Any]:
        """As `/v1/stats` shows it; without labels everything is possible."""
        low, high = interval(self.errors, self.labels)
        return {
            "labels": self.labels,
            "errors": self.errors,
            "error_rate": self.rate,
            "low": low,
            "high": high,
            "interval": "Clopper-Pearson, 95 %",
        }


def estimate(pairs: Iterable[tuple[Any, Any]]) -> Estimate:
    """From (predicted, true) answers of audited samples; boxes need not be the same to agree (`values.agree`)."""
    wrong = [not agree(predicted, true) for predicted, true in pairs]
    return Estimate(sum(wrong), len(wrong))


def interval(errors: int, labels: int, confidence: float = 0.95) -> tuple[float, float]:
    """Both ends for the rate behind `errors` of `labels`: (0, 1) without labels. Raises ValueError for no counts."""
    if not 0 <= errors <= labels:
        raise ValueError(f"{errors} errors of {labels} labels")
    tail = (1.0 - confidence) / 2
    low = 0.0 if errors == 0 else _solve(lambda rate: _at_least(errors, labels, rate) < tail)
    high = 1.0 if errors == labels else _solve(lambda rate: 1.0 - _at_least(errors + 1, labels, rate) > tail)
    return low, high


def _solve(below: Any) -> float:
    """Where in 0..1 `below` stops to be true."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if below(middle):
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _at_least(count: int, labels: int, rate: float) -> float:
    """Chance of `count` or more errors; summed over the side with fewer terms."""
    if count <= 0:
        return 1.0
    if count > labels or rate <= 0.0:
        return 0.0
    if rate >= 1.0:
        return 1.0
    few = range(count) if count <= labels // 2 else range(count, labels + 1)
    total = math.fsum(math.exp(_log_chance(k, labels, rate)) for k in few)
    return min(1.0, max(0.0, 1.0 - total if count <= labels // 2 else total))


def _log_chance(k: int, n: int, rate: float) -> float:
    ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return ways + k * math.log(rate) + (n - k) * math.log1p(-rate)
