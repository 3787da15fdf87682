"""When content may go up: windows by the wall clock, and a bucket of bytes."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.contracts.rules import Weekly
from services.uplink.opening import Bucket, is_open, opens

NIGHTS = [Weekly(rule="weekly", zone="Europe/Berlin", days=["mon", "tue"], start="22:00", end="05:00")]  # type: ignore[arg-type]
MONDAY = datetime(2026, 1, 5, tzinfo=UTC)


def test_windows_go_by_the_local_clock_and_over_midnight() -> None:
    assert not is_open(NIGHTS, MONDAY + timedelta(hours=20, minutes=59))
    assert is_open(NIGHTS, MONDAY + timedelta(hours=21))
    assert is_open(NIGHTS, MONDAY + timedelta(hours=27, minutes=59))
    assert not is_open(NIGHTS, MONDAY + timedelta(hours=28))
    assert is_open([], MONDAY)


def test_it_is_told_when_it_opens() -> None:
    assert opens(NIGHTS, MONDAY + timedelta(hours=12, seconds=5)) == MONDAY + timedelta(hours=21)
    assert opens(NIGHTS, MONDAY + timedelta(days=2, hours=6)) == MONDAY + timedelta(days=7, hours=21)
    now = MONDAY + timedelta(hours=22)
    assert opens(NIGHTS, now) == now


@given(
    st.floats(1, 1e6),
    st.floats(0.1, 100),
    st.lists(st.tuples(st.floats(0, 60), st.integers(0, 5_000_000)), max_size=80),
)
def test_no_more_goes_than_the_rate_and_one_content(rate: float, burst: float, asked: list[tuple]) -> None:
    bucket, now, went, largest = Bucket(rate, rate * burst, rate * burst, MONDAY), MONDAY, 0, 0
    for seconds, size in asked:
        now += timedelta(seconds=seconds)
        if bucket.take(size, now):
            went, largest = went + size, max(largest, size)
        assert went <= rate * ((now - MONDAY).total_seconds() + burst) * (1 + 1e-6) + largest + 1


def test_a_content_larger_than_the_bucket_goes_and_the_next_waits_for_it() -> None:
    bucket = Bucket(10, 100, 100, MONDAY)
    assert bucket.take(1000, MONDAY)
    assert not bucket.take(1, MONDAY + timedelta(seconds=89))
    assert bucket.take(1, MONDAY + timedelta(seconds=91))
