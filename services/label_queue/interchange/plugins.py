"""A user's own formats: the entry points of group `halfsure.label_formats`, each a `Format` like those here."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import EntryPoint

import structlog

from services.contracts.problem import Problem
from services.label_queue.interchange.label import Bundle, Format, Incoming, Read
from services.runtime.plugins import Plugins

log = structlog.get_logger()

GROUP = "halfsure.label_formats"


class BadFormat(Exception):
    """An entry point that is no format of its name, or cannot be imported; the message says why."""


class Formats(Plugins[Format]):
    """Every format by its name. Raises BadFormat where a plug-in is asked for that keeps no promise."""

    def __init__(self, built_in: Mapping[str, Format]) -> None:
        super().__init__(GROUP, built_in)

    def _plugged(self, point: EntryPoint) -> Format:
        return _loaded(point)

    def fit(self, task: str) -> list[str]:
        """The names of those that can carry a task; a plug-in that cannot be loaded is left away, and logged."""
        return [name for name in self if self._carries(name, task)]

    def _carries(self, name: str, task: str) -> bool:
        try:
            return task in self[name].kinds
        except BadFormat as error:
            log.warning("a label format cannot be used", reason=str(error))
            return False


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
