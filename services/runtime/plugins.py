"""What is built in and what packages bring along, by name: one lookup over the entry points of a group."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

Thing = TypeVar("Thing")


def installed(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group by name."""
    return {point.name: point for point in entry_points(group=group)}


class Plugins(Mapping[str, Thing]):
    """Everything by its name: the built-in, then the installed. A built-in name cannot be taken over.

    Packages are looked at when a name is not built in, so one installed later is found; a plug-in is imported when it
    is first asked for.
    """

    def __init__(self, group: str, built_in: Mapping[str, Thing]) -> None:
        self._group, self._built_in = group, dict(built_in)

    @abstractmethod
    def _plugged(self, point: EntryPoint) -> Thing:
        """What an entry point brings, held to what everything of the group promises."""

    def __getitem__(self, name: str) -> Thing:
        """Raises KeyError for a name that nobody has."""
        return self._built_in[name] if name in self._built_in else self._plugged(installed(self._group)[name])

    def __contains__(self, name: object) -> bool:
        return name in self._built_in or name in installed(self._group)

    def __iter__(self) -> Iterator[str]:
        yield from self._built_in
        yield from (name for name in installed(self._group) if name not in self._built_in)

    def __len__(self) -> int:
        return sum(1 for _ in self)
