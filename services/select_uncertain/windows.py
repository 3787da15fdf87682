"""Time in policies: weekly windows by the wall clock of a zone, and duty cycles. Pure."""

from collections.abc import Collection
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
MIDNIGHT = time()
GOLDEN = 0.6180339887498949
"""(sqrt 5 - 1) / 2, the rotation whose multiples fill 0..1 most evenly (Weyl 1916; three-gap theorem)."""


def in_week(at: datetime, zone: ZoneInfo, days: Collection[int], start: time | None, end: time | None) -> bool:
    """Whether the wall clock of `zone` shows a time from `start` (inside) to `end` (not), on a day (0 is Monday).

    The day is that on which the window starts; an `end` that is not after `start` is on the next one. What the wall
    clock shows settles clock changes: it never shows a time in a gap, so what starts there starts with the first
    instant after it, and shows a repeated hour twice, so a window in it holds twice.
    """
    local = at.astimezone(zone)
    wall, begins = local.time(), start or MIDNIGHT
    if end is not None and MIDNIGHT < end <= begins:
        return (wall >= begins and local.weekday() in days) or (wall < end and (local.weekday() - 1) % 7 in days)
    return local.weekday() in days and wall >= begins and (end is None or end == MIDNIGHT or wall < end)


def on_duty(at: datetime, share: float, period_seconds: float) -> bool:
    """Whether a duty cycle is on: for exactly `share` of each period, counted from 1970, whoever asks and when.

    Where the switched-on part begins moves on by the golden ratio from period to period, so that samples which come at
    a multiple of the period meet it as often as all others do.
    """
    period = max(1, round(period_seconds * 1e6))
    turn, phase = divmod((at - EPOCH) // MICROSECOND, period)
    return (phase / period + turn * GOLDEN) % 1.0 < share
