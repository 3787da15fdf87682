"""Schedules, as a project names them: five cron fields in UTC, `@daily` and the like, or `@every 6h`. Pure."""

import re

NAMED = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
EVERY = re.compile(r"@every (\d+)(s|m|h)")
SECONDS = {"s": 1, "m": 60, "h": 3600}
FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 6))
PART = re.compile(r"(?:\*|(\d+)(?:-(\d+))?)(?:/(\d+))?")


def checked(schedule: str) -> str:
    """The schedule, as it is. Raises ValueError with what is wrong."""
    if schedule in NAMED:
        return schedule
    if every := EVERY.fullmatch(schedule):
        if int(every[1]) * SECONDS[every[2]] < 1:
            raise ValueError("@every needs a time above 0")
        return schedule
    fields = schedule.split()
    if len(fields) != len(FIELDS):
        raise ValueError(f"a schedule is five fields (minute hour day month weekday), {', '.join(NAMED)} or @every 6h")
    for field, (name, low, high) in zip(fields, FIELDS, strict=True):
        for part in field.split(","):
            _check(part, name, low, high)
    return schedule


def with_seconds(schedule: str) -> str:
    """The same as Dapr's scheduler takes it, whose fields begin with the second."""
    return schedule if schedule.startswith("@") else f"0 {schedule}"


def _check(part: str, name: str, low: int, high: int) -> None:
    found = PART.fullmatch(part)
    if not found:
        raise ValueError(f"{name}: {part!r} is no number, range, step or *")
    numbers = [int(number) for number in found.group(1, 2) if number is not None]
    if any(not low <= number <= high for number in numbers) or numbers != sorted(numbers):
        raise ValueError(f"{name}: {part!r} is not within {low}-{high}")
    if found[3] is not None and int(found[3]) < 1:
        raise ValueError(f"{name}: {part!r} has a step of 0")
