"""When a number that goes up and down is worth a notice: once as it passes its limit, not as it stays there. Pure."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Self


@dataclass(frozen=True)
class Level:
    """Whether the limit is passed (and told), how often it was, and when it was told and looked at last."""

    over: bool = False
    times: int = 0
    told_at: str = ""
    seen_at: str = ""

    @classmethod
    def of_record(cls, record: Mapping[str, Any] | None) -> Self:
        return cls(**record) if record else cls()

    def record(self) -> dict[str, Any]:
        return asdict(self)


def judged(level: Level, value: int, limit: int, at: datetime, quiet: timedelta) -> tuple[Level, bool]:
    """The level after a look, and whether to tell; the very same level if nothing changes.

    It counts as under the limit again at half of it, so that a number that swings around it is told once. A look that
    comes late, from before the last change, says nothing.
    """
    if level.seen_at and at < datetime.fromisoformat(level.seen_at):
        return level, False
    if level.over:
        if value > (limit - 1) // 2:
            return level, False
        return Level(False, level.times, level.told_at, at.isoformat()), False
    early = level.told_at and at - datetime.fromisoformat(level.told_at) < quiet
    if value < limit or early:
        return level, False
    return Level(True, level.times + 1, at.isoformat(), at.isoformat()), True
