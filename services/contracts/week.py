"""Weekly windows by the wall clock of a zone. Pure."""

from collections.abc import Collection
from datetime import datetime, time
from zoneinfo import ZoneInfo

MIDNIGHT = time()


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
