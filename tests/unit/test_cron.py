"""Schedules that a project may name."""

import pytest
from pydantic import ValidationError

from services.contracts.cron import checked, with_seconds
from services.contracts.projects import TriggerRule


@pytest.mark.parametrize(
    "good", ["0 2 * * *", "*/15 8-18 * * 1-5", "0,30 0 1 1 0", "@daily", "@every 6h", "0/5 * * * *"]
)
def test_what_is_a_schedule_is_kept(good: str) -> None:
    assert TriggerRule(schedule=good).schedule == checked(good) == good
    assert with_seconds(good) == (good if good.startswith("@") else f"0 {good}")


@pytest.mark.parametrize(
    "bad",
    ["", "daily", "* * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 7", "5-1 * * * *",
     "*/0 * * * *", "@every 0s", "@every", "@reboot", "0 0 2 * * *", "a * * * *", "1;2 * * * *", "² * * * *"],
)  # fmt: skip
def test_what_is_none_is_refused(bad: str) -> None:
    if bad:
        with pytest.raises(ValidationError):
            TriggerRule(schedule=bad)
    with pytest.raises(ValueError, match=r"schedule|within|is no|step|above"):
        checked(bad)
