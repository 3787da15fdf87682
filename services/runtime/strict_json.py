"""JSON from outside: only what can be kept, passed on and said again."""

import json
from typing import Any

import orjson

MAX_DEPTH = 64
"""Levels of nesting; what writes JSON gives up at 254, Python's own recursion not much later."""


class Unsound(ValueError):
    """This is not JSON, or not such as can be kept; the message says why."""


class NotFinite(Unsound):
    """This would be JSON but for NaN or Infinity."""


def loads(raw: bytes) -> Any:
    """The value; integers of more than 64 bits come as floats. Raises Unsound and NotFinite."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        _look_for_constants(raw)
        raise Unsound(f"it is not JSON: {error}") from error
    # Nothing can be nested more deeply than it has brackets.
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and _deeper(value, MAX_DEPTH):
        raise Unsound(f"it is nested more than {MAX_DEPTH} levels deep")
    return value


def _look_for_constants(raw: bytes) -> None:
    """Raises NotFinite where that is all that is wrong."""

    def refuse(constant: str) -> None:
        raise NotFinite(f"it holds {constant}, which JSON does not know")

    try:
        json.loads(raw, parse_constant=refuse)
    except NotFinite:
        raise
    except (ValueError, RecursionError):
        return


def _deeper(value: Any, most: int) -> bool:
    level = [value]
    for _ in range(most + 1):
        level = [
            child
            for one in level
            if isinstance(one, dict | list)
            for child in (one.values() if isinstance(one, dict) else one)
        ]
    return bool(level)
