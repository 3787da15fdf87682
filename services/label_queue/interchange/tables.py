"""JSON lines and CSV: a row a label. What JSON lines say, they say in full. Pure."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import orjson

from services.contracts.problem import Problem
from services.label_queue.interchange.label import Bundle, Dataset, Incoming, Label, Read, cell, referred

# A cell that starts so is a formula to a spreadsheet, and may call out or start programs (OWASP, "CSV injection").
FORMULA = re.compile(r"'*[=+\-@\t\r]")
COLUMNS = (
    "sample_id",
    "task_id",
    "value",
    "label_revision",
    "split",
    "origin",
    "agreement",
    "annotators",
    "schema_version",
    "is_audit",
    "trigger",
    "weight",
    "model_version",
    "predicted",
    "uri",
    "sha256",
    "bytes",
    "media_type",
    "accepted_at",
)
VALUES = ("value", "predicted")
"""Columns whose cells are answers (`label.cell`)."""


class JsonLines:
    """A line of JSON for each label."""

    def __init__(self, dataset: Dataset) -> None: ...

    def begin(self) -> Iterable[bytes]:
        return ()

    def add(self, labels: Sequence[Label]) -> Iterator[bytes]:
        yield b"".join(orjson.dumps(dict(label.facts)) + b"\n" for label in labels)

    def end(self) -> Iterable[bytes]:
        return ()


class Csv:
    """A table with a heading; no cell can be taken for a formula."""

    def __init__(self, dataset: Dataset) -> None: ...

    def begin(self) -> Iterator[bytes]:
        yield _rows([COLUMNS])

    def add(self, labels: Sequence[Label]) -> Iterator[bytes]:
        yield _rows([[guarded(_cell(name, label.facts[name])) for name in COLUMNS] for label in labels])

    def end(self) -> Iterable[bytes]:
        return ()


def _cell(name: str, value: Any) -> Any:
    return cell(value) if name in VALUES else value


def guarded(value: Any) -> Any:
    """Text that would be a formula, with an apostrophe in front."""
    return f"'{value}" if isinstance(value, str) and FORMULA.match(value) else value


def bare(text: str) -> str:
    """What `guarded` was given."""
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text


def read_csv(bundle: Bundle) -> Read:
    """Rows with a `value`, and with `sample_id` and content as in our own tables, or a `file_name` in the archive."""
    try:
        text = bundle.document.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Problem(422, "encoding", f"The table is not UTF-8: {error}.") from error
    table = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in table:
            yield _incoming({name: bare(cell) for name, cell in row.items() if name and isinstance(cell, str)}, bundle)
    except csv.Error as error:
        yield Problem(422, "malformed", f"Line {table.line_num}: {error}.")


def _incoming(row: dict[str, str], bundle: Bundle) -> Incoming | Problem:
    if "value" not in row and "label" not in row:
        return Problem(422, "no-label", "The table has no column `value`, nor `label`, or the row is too short.")
    try:
        value = row["value"] if "value" in row else row["label"]
        return referred(row, value, row.get("file_name", ""), bundle, row.get("split") or None)
    except Problem as problem:
        return problem


def _rows(rows: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows(rows)  # RFC 4180; and so a lone \r is quoted too
    return text.getvalue().encode()
