"""What must not be in a log: credentials in addresses, headers and errors are masked, whoever wrote them there."""

import logging
import re
from collections.abc import MutableMapping
from typing import Any

MASK = "***"
_NAME = r"authorization|dapr-api-token|sharedaccesskey|accountkey|sig|pwd|password|secret|(?:\w+_)?token"
_NAME += r"|api[_-]?(?:key|token)"
_PATTERNS = (
    re.compile(r"(?i)\b(bearer\s+)[^\s\"'&;,]+"),
    # name=value and "name": "value", quoted with or without a backslash (JSON within JSON)
    re.compile(rf"(?i)(\b(?:{_NAME})\b[\\\"']*\s*[=:,]\s*b?[\\\"']*)(?!bearer\b)[^\s\\\"'&;,(){{}}\[\]]+"),
    re.compile(r"(://[^/\s:@]*:)[^@\s/]+(?=@)"),
    re.compile(r"()\beyJ[\w-]{8,}\.[\w-]+\.[\w-]+"),
)


def scrub(text: str) -> str:
    """The text with every credential in it masked."""
    for pattern in _PATTERNS:
        text = pattern.sub(rf"\1{MASK}", text)
    return text


def scrubbed(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor of structlog: every text of a line, its traceback too."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = scrub(value)
    return event


class Scrubbing(logging.Formatter):
    """The same for what libraries log."""

    def format(self, record: logging.LogRecord) -> str:
        return scrub(super().format(record))
