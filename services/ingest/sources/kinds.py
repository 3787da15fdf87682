"""Which module reads which kind. It is imported when such a source is configured: some need heavy libraries."""

import importlib
from collections.abc import Awaitable, Callable
from typing import Any

from services.ingest.sources.door import Door


class MissingLibrary(Exception):
    """A library that this kind of source needs is not installed."""


def runner(kind: str) -> Callable[[Any, Door], Awaitable[None]]:
    """The kind's `run(source, door)`: connects and reads until there is nothing more (then it returns) or the
    connection is lost (then it raises Trouble). Raises MissingLibrary."""
    try:
        module = importlib.import_module(f"services.ingest.sources.{kind}")
    except ModuleNotFoundError as error:
        raise MissingLibrary(
            f"a source of kind {kind} needs the library {error.name}: pip install 'halfsure[sources]'"
        ) from None
    return module.run
