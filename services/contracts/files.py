"""Which files hold samples: pictures and texts by their suffix, and tables row by row. Pure."""

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import PurePath
from typing import Any

PICTURES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
    ".gif": "image/gif",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
}
TEXTS = {".txt": "text/plain", ".md": "text/plain"}
CONTENTS = {**PICTURES, **TEXTS}
TABLES = (".csv", ".jsonl", ".ndjson", ".json")
UNFINISHED = (".part", ".tmp", ".temp", ".partial", ".crdownload", ".swp")


def suffixes(texts: bool = False) -> tuple[str, ...]:
    """Of pictures and tables, or of texts: beside pictures lie texts that are no samples, such as a list of names."""
    return tuple(TEXTS) if texts else (*PICTURES, *TABLES)


def holds_samples(path: PurePath, texts: bool = False) -> bool:
    """Whether a file of this name may hold samples; hidden ones and those that are being written do not."""
    hidden = path.name.startswith((".", "~")) or path.name.endswith("~")
    return not hidden and path.suffix.lower() in suffixes(texts)


def is_table(path: PurePath) -> bool:
    return path.suffix.lower() in TABLES


def rows(suffix: str, lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The rows of a table by its file's suffix; `lines` are its text. Raises ValueError with the line's number."""
    match suffix.lower():
        case ".csv":
            yield from csv.DictReader(lines)
        case ".json":
            row = _row("".join(lines), 1)
            yield row
        case _:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _row(line, number)


def _row(text: str, number: int) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except ValueError as error:
        raise ValueError(f"line {number} is not JSON: {error}") from None
    if not isinstance(row, dict):
        raise ValueError(f"line {number} is no row: a JSON object of column and value is wanted")
    return row
