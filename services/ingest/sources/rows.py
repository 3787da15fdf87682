"""Changes of single tags -> rows of all of them. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Change:
    """A tag's new value, and when the device had it (microseconds since 1970)."""

    column: str
    value: Any
    moment: int


class Rows:
    """The last value of each column; a row for each moment at which some changed, once all have a value.

    A row's moment is its identity: the same moment, read again after a reconnect, is the same row. A change that comes
    late counts for the rows after it.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = tuple(columns)
        self._last: dict[str, Change] = {}

    def add(self, changes: Iterable[Change]) -> Iterator[tuple[int, dict[str, Any]]]:
        """(moment, row) in order of time."""
        moments: dict[int, list[Change]] = {}
        for change in changes:
            moments.setdefault(change.moment, []).append(change)
        for moment in sorted(moments):
            for change in moments[moment]:
                known = self._last.get(change.column)
                if known is None or known.moment <= moment:
                    self._last[change.column] = change
            if len(self._last) == len(self._columns):
                # Where the values at hand are of different moments, the row is of the last of them.
                latest = max(moment, *(change.moment for change in self._last.values()))
                yield latest, {column: self._last[column].value for column in self._columns}
