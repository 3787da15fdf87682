"""Duty cycles. Pure."""

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
GOLDEN = 0.6180339887498949
"""(sqrt 5 - 1) / 2, the rotation whose multiples fill 0..1 most evenly (Weyl 1916; three-gap theorem)."""


def on_duty(at: datetime, share: float, period_seconds: float) -> bool:
    """Whether a duty cycle is on: for exactly `share` of each period, counted from 1970, whoever asks and when.

    Where the switched-on part begins moves on by the golden ratio from period to period, so that samples which come at
    a multiple of the period meet it as often as all others do.
    """
    period = max(1, round(period_seconds * 1e6))
    turn, phase = divmod((at - EPOCH) // MICROSECOND, period)
    return (phase / period + turn * GOLDEN) % 1.0 < share
