"""How fast a source may go, and how long it waits after a failure. Pure: times come in as seconds."""


class RateCap:
    """A bucket of tokens: `rate` a second on average, `burst` at once."""

    def __init__(self, rate: float, burst: float = 1.0) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at: float | None = None

    def take(self, now: float) -> bool:
        """Whether one may go now; if so, it has gone."""
        self._fill(now)
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def wait(self, count: int, now: float) -> float:
        """Seconds after which `count` more may go; they count as gone from now on."""
        self._fill(now)
        self._tokens -= count
        return max(0.0, -self._tokens / self._rate)

    def _fill(self, now: float) -> None:
        passed = 0.0 if self._at is None else max(0.0, now - self._at)
        # Rounding must not cost a token that is due.
        self._tokens = min(self._burst, self._tokens + passed * self._rate + 1e-9)
        self._at = now


class Backoff:
    """Waits that double from `first` to `longest`, each shortened at random by half at most, so that many sources that
    failed together do not come back together."""

    def __init__(self, first: float, longest: float) -> None:
        self._first = min(first, longest)
        self._longest = longest
        self._next = self._first

    def wait(self, chance: float) -> float:
        """Seconds to wait now; `chance` is a random number from 0 to 1."""
        wait, self._next = self._next, min(self._next * 2, self._longest)
        return wait * (1 - chance / 2)

    def reset(self) -> None:
        """It has worked: the next failure is a first one."""
        self._next = self._first
