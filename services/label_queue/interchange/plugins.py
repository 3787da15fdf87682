"""A user's own formats: the entry points of group `halfsure.label_formats`, each a `Format` like those here."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points

import structlog

from services.contracts.problem import Problem
from services.label_queue.interchange.label import Bundle, Format, Incoming, Read

log = structlog.get_logger()

GROUP = "halfsure.label_formats"


class BadFormat(Exception):
    """An entry point that is no format of its name, or cannot be imported; the message says why."""


class Formats(Mapping[str, Format]):
    """Every format by its name: the built-in ones, then the installed. A built-in name cannot be taken over.

    Packages are looked at when a name is not built in, so one installed later is found; a plug-in is imported when it
    is first asked for.
    """

    def __init__(self, built_in: Mapping[str, Format]) -> None:
        self._built_in = dict(built_in)

    def __getitem__(self, name: str) -> Format:
        """Raises KeyError for a name that nobody has, BadFormat for a plug-in that keeps no promise."""
        return self._built_in[name] if name in self._built_in else _loaded(self._installed()[name])

    def __iter__(self) -> Iterator[str]:
        yield from self._built_in
        yield from (name for name in self._installed() if name not in self._built_in)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def fit(self, task: str) -> list[str]:
        """The names of those that can carry a task; a plug-in that cannot be loaded is left away, and logged."""
        return [name for name in self if self._carries(name, task)]

    def _carries(self, name: str, task: str) -> bool:
        try:
            return task in self[name].kinds
        except BadFormat as error:
            log.warning("a label format cannot be used", reason=str(error))
            return False

    def _installed(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=GROUP)}


def _loaded(point: EntryPoint) -> Format:
    try:
        form = point.load()
    except Exception as error:
        raise BadFormat(f"{point.value} of {GROUP} cannot be imported: {error}") from error
    if not isinstance(form, Format) or form.name != point.name:
        raise BadFormat(f"{point.value} of {GROUP} is no Format of the name {point.name!r}")
    return replace(form, read=_careful(form))


def _careful(form: Format) -> Callable[[Bundle], Read]:
    """Its reader; whatever fails in it is said to whoever sent the file, as a 422 problem."""

    def read(bundle: Bundle) -> Read:
        try:
            for row in form.read(bundle):
                if not isinstance(row, Incoming | Problem):
                    raise TypeError(f"a label came as {type(row).__name__}, not as Incoming")
                yield row
        except Problem:
            raise
        except Exception as error:
            log.error("a label format has failed", format=form.name, exc_info=error)
            raise Problem(422, "unreadable", f"{form.name} cannot read this file: {error}.") from error

    return read
