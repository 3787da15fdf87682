"""Weekly windows on both days of a clock change in several zones, and duty cycles. Rows 2.7, 2.8, 2.9, D18."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.contracts.week import in_week
from services.select_uncertain.windows import on_duty

EVERY_DAY = range(7)
MINUTE = timedelta(minutes=1)


def minutes_in(zone: str, day: datetime, start: time | None, end: time | None, days=EVERY_DAY) -> list[datetime]:
    """The minutes (UTC) of the 60 hours around a local day that the window holds."""
    first = day.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC) - timedelta(hours=18)
    tried = [first + n * MINUTE for n in range(60 * 60)]
    return [at for at in tried if in_week(at, ZoneInfo(zone), days, start, end)]


def on_day(zone: str, day: datetime, start: time | None, end: time | None) -> list[datetime]:
    """The same, of windows that start on that local day alone."""
    return minutes_in(zone, day, start, end, [day.weekday()])


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# zone, local day, window, first minute and the one after the last (UTC), minutes inside
CHANGES = [
    # Berlin: 02:00 -> 03:00 on 2026-03-29, 03:00 -> 02:00 on 2026-10-25
    ("Europe/Berlin", "2026-03-29", "02:30", "04:00", "2026-03-29 01:00", "2026-03-29 02:00", 60),
    ("Europe/Berlin", "2026-03-29", "01:00", "05:00", "2026-03-29 00:00", "2026-03-29 03:00", 180),
    ("Europe/Berlin", "2026-03-29", "02:15", "02:45", None, None, 0),
    ("Europe/Berlin", "2026-03-29", None, None, "2026-03-28 23:00", "2026-03-29 22:00", 23 * 60),
    ("Europe/Berlin", "2026-10-25", "02:15", "02:45", "2026-10-25 00:15", "2026-10-25 01:45", 60),
    ("Europe/Berlin", "2026-10-25", "01:00", "05:00", "2026-10-24 23:00", "2026-10-25 04:00", 300),
    ("Europe/Berlin", "2026-10-25", None, None, "2026-10-24 22:00", "2026-10-25 23:00", 25 * 60),
    ("Europe/Berlin", "2026-10-24", "23:00", "02:30", "2026-10-24 21:00", "2026-10-25 01:30", 240),
    ("Europe/Berlin", "2026-03-28", "23:00", "02:30", "2026-03-28 22:00", "2026-03-29 01:00", 180),
    # New York: 02:00 -> 03:00 on 2026-03-08, 02:00 -> 01:00 on 2026-11-01
    ("America/New_York", "2026-03-08", "02:00", "03:30", "2026-03-08 07:00", "2026-03-08 07:30", 30),
    ("America/New_York", "2026-11-01", "01:30", "01:40", "2026-11-01 05:30", "2026-11-01 06:40", 20),
    ("America/New_York", "2026-11-01", "08:00", "17:00", "2026-11-01 13:00", "2026-11-01 22:00", 540),
    # Lord Howe: by half an hour, 02:00 -> 02:30 on 2026-10-04, 02:00 -> 01:30 on 2026-04-05
    ("Australia/Lord_Howe", "2026-10-04", "02:10", "03:00", "2026-10-03 15:30", "2026-10-03 16:00", 30),
    ("Australia/Lord_Howe", "2026-10-04", None, None, "2026-10-03 13:30", "2026-10-04 13:00", 23 * 60 + 30),
    ("Australia/Lord_Howe", "2026-04-05", "01:40", "01:50", "2026-04-04 14:40", "2026-04-04 15:20", 20),
    ("Australia/Lord_Howe", "2026-04-05", None, None, "2026-04-04 13:00", "2026-04-05 13:30", 24 * 60 + 30),
    # Sao Paulo, 2018: midnight itself was in the gap on 11-04 (00:00 -> 01:00), and repeated on 02-17 (24:00 -> 23:00)
    ("America/Sao_Paulo", "2018-11-04", "00:00", "02:00", "2018-11-04 03:00", "2018-11-04 04:00", 60),
    ("America/Sao_Paulo", "2018-11-04", None, None, "2018-11-04 03:00", "2018-11-05 02:00", 23 * 60),
    ("America/Sao_Paulo", "2018-11-03", "23:00", "00:30", "2018-11-04 02:00", "2018-11-04 03:00", 60),
    ("America/Sao_Paulo", "2018-02-17", "23:30", "00:30", "2018-02-18 01:30", "2018-02-18 03:30", 90),
    ("America/Sao_Paulo", "2018-02-17", None, None, "2018-02-17 02:00", "2018-02-18 03:00", 25 * 60),
]


@pytest.mark.parametrize(("zone", "day", "start", "end", "first", "after", "length"), CHANGES)
def test_a_window_on_the_day_of_a_clock_change(zone, day, start, end, first, after, length) -> None:
    begins, ends = (None if at is None else time.fromisoformat(at) for at in (start, end))
    found = on_day(zone, datetime.fromisoformat(day), begins, ends)
    assert len(found) == length
    if first is None:
        assert not found
        return
    assert found[0] == utc(first)
    assert found[-1] + MINUTE == utc(after)


def test_a_day_that_never_was_starts_its_window_at_the_first_instant_after_it() -> None:
    """Apia had no 2011-12-30, a Friday: its night shift runs on Saturday alone, from midnight."""
    found = minutes_in("Pacific/Apia", datetime(2011, 12, 31), time(22), time(1), [4])
    assert (found[0], len(found)) == (utc("2011-12-30 10:00"), 60)


@given(
    st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"]),
    st.times(),
    st.times(),
    st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)),
    st.sets(st.integers(0, 6), min_size=1),
)
def test_a_window_and_its_complement_share_the_week(zone, start, end, at, days) -> None:
    """Of all days, [start, end) and [end, start) hold every instant once; and days only ever take away."""
    moment, of = at.replace(tzinfo=UTC), ZoneInfo(zone)
    if start != end:
        inside = in_week(moment, of, EVERY_DAY, start, end)
        other = in_week(moment, of, EVERY_DAY, end, start)
        assert inside != other
        assert not in_week(moment, of, days, start, end) or inside
    assert in_week(moment, of, EVERY_DAY, None, None)


@settings(max_examples=40)
@given(st.floats(0, 1), st.sampled_from([1.0, 60.0, 600.0, 3600.0]), st.integers(0, 2_000_000_000))
def test_a_duty_cycle_is_on_for_its_share_of_a_day(share: float, period: float, start: int) -> None:
    """Row 2.9: d within 1 %, for every d, from any second on, on a grid that does not fit the period."""
    first = datetime.fromtimestamp(start, UTC)
    step = timedelta(seconds=17.3)
    tried = [on_duty(first + n * step, share, period) for n in range(int(86_400 / 17.3))]
    assert abs(sum(tried) / len(tried) - share) <= 0.01


@pytest.mark.parametrize("every", [1, 10, 30, 60, 120])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.3, 1 / 3, 0.5, 0.77, 0.99, 1.0])
def test_samples_that_come_in_step_with_the_period_meet_their_share_too(share: float, every: int) -> None:
    """int(1 / 0.3) = 3 would collect 33 %; 1 / 0 would not collect at all; a fixed phase would collect all or none."""
    first = datetime(2026, 1, 1, tzinfo=UTC)
    tried = [on_duty(first + timedelta(seconds=n * every), share, 60.0) for n in range(86_400 // every)]
    assert abs(sum(tried) / len(tried) - share) <= 0.01
    assert share > 0 or not any(tried)
    assert share < 1 or all(tried)
