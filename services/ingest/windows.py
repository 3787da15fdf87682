"""Windows of a stream: its latest points, and which windows they complete. Pure.

A window is named by its last point. It is whole once all its points are there, in whatever order they came, and is made
once: a stream remembers two windows' length of points, and which windows of those it has made.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Point = Mapping[str, Any]  # {"row": column -> value, and what else is said of the point}


@dataclass(frozen=True)
class Stream:
    """The points by sequence number, and the windows that were made, by the number of their last point."""

    length: int
    points: Mapping[int, Point] = field(default_factory=dict)
    made: frozenset[int] = frozenset()

    @classmethod
    def read(cls, record: Mapping[str, Any] | None, length: int) -> "Stream":
        """From a state record. Windows of another length are other windows: what was made says nothing of them."""
        if record is None:
            return cls(length)
        points = {int(number): point for number, point in record["points"].items()}
        return cls(length, points, frozenset(record["made"]) if record["length"] == length else frozenset())

    def record(self) -> dict[str, Any]:
        points = {str(number): self.points[number] for number in sorted(self.points)}
        return {"length": self.length, "points": points, "made": sorted(self.made)}

    @property
    def closed(self) -> int:
        """Points up to this number are of the past: what they would complete is not kept any more."""
        return max(self.points, default=-1) - 2 * self.length if self.points else -1

    def added(self, points: Mapping[int, Point], made: Iterable[int] = ()) -> "Stream":
        """With these points and windows. A point that is there already stays as it was."""
        return Stream(self.length, {**points, **self.points}, self.made | frozenset(made))

    def trimmed(self) -> "Stream":
        """Without what is of the past; only when the windows that many new points complete are made."""
        first = self.closed + 1
        kept = {number: point for number, point in self.points.items() if number >= first}
        return Stream(self.length, kept, frozenset(number for number in self.made if number >= first))

    def completed(self, numbers: Iterable[int]) -> list[int]:
        """Windows, by their last points, that hold one of these points, are whole, and are not made yet."""
        ends = {end for number in numbers for end in range(number, number + self.length)}
        return [end for end in sorted(ends & set(self.points)) if end not in self.made and self._is_whole(end)]

    def rows(self, end: int) -> list[Any]:
        """The rows of a whole window, oldest first."""
        return [self.points[number]["row"] for number in range(end - self.length + 1, end + 1)]

    def gathered(self, end: int) -> int:
        """How many of a window's points are there."""
        return sum(number in self.points for number in range(end - self.length + 1, end + 1))

    def _is_whole(self, end: int) -> bool:
        return self.gathered(end) == self.length
