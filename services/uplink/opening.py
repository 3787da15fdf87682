"""When content may go up, and how fast: weekly windows, and a bucket of bytes. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.contracts.rules import DAYS, Weekly, zone_of
from services.contracts.week import in_week

STEP = timedelta(minutes=1)
WEEK = timedelta(days=7)


def is_open(windows: Sequence[Weekly], at: datetime) -> bool:
    """Whether `at` lies in one of the windows; without any, the way is always open."""
    return not windows or any(_inside(window, at) for window in windows)


def opens(windows: Sequence[Weekly], at: datetime) -> datetime | None:
    """The first whole minute from `at` on that lies in a window; None if there is none within a week."""
    minute = at.replace(second=0, microsecond=0)
    minutes = (minute + STEP * n for n in range(int(WEEK / STEP) + 1))
    return next((one for one in minutes if one >= at and is_open(windows, one)), None)


def _inside(window: Weekly, at: datetime) -> bool:
    days = {DAYS.index(day) for day in window.days}
    return in_week(at, zone_of(window.zone), days, window.start, window.end)


@dataclass
class Bucket:
    """A token bucket of bytes. It may be overdrawn by one content, so that none is too large for it."""

    rate: float  # bytes a second
    most: float  # bytes that may have been saved up
    level: float
    at: datetime

    def take(self, size: int, now: datetime) -> bool:
        """Whether `size` bytes may go now; if so, they are counted."""
        elapsed = max(0.0, (now - self.at).total_seconds())
        self.level, self.at = min(self.most, self.level + elapsed * self.rate), max(now, self.at)
        if self.level <= 0:
            return False
        self.level -= size
        return True
