"""How often a caller may ask: a bucket of requests for each, filled at a rate."""

from collections import OrderedDict
from datetime import datetime

BURST = 2.0  # seconds of the rate that may come at once
MOST = 10_000  # callers that are remembered; who is forgotten has a full bucket again


class Limits:
    """One bucket a caller, in this process; the longest unused are forgotten first."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, tuple[float, datetime]] = OrderedDict()

    def take(self, who: str, rate: float, now: datetime) -> float:
        """Take one request at `rate` a second: 0, or the seconds after which there is one again."""
        full = max(1.0, rate * BURST)
        left, before = self._buckets.get(who, (full, now))
        left = min(full, left + rate * max(0.0, (now - before).total_seconds()))
        wait = 0.0 if left >= 1.0 else (1.0 - left) / rate
        self._buckets[who] = (left if wait else left - 1.0, now)
        self._buckets.move_to_end(who)
        if len(self._buckets) > MOST:
            self._buckets.popitem(last=False)
        return wait
