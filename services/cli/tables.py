"""A CSV or JSONL file as labelled data: its rows, texts in them, or windows of the streams whose points they are."""

import csv
import json
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from services.cli.datasets import DataProblem, Dataset, Item, distinct, enough
from services.contracts.inputs import InputSpec, TabularColumn
from services.contracts.tasks import Task
from services.contracts.values import classes_of

MOST_CATEGORIES = 50
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are: all but the label are numbers or categories, unless said otherwise.

    `label` is the last one by default; with a `separator` its cells name any number of labels, as a list in JSONL does.
    `text` makes a text of each row, and `stream` makes windows of `window` points of the rows of each stream.
    """

    label: str | None = None
    text: str | None = None
    stream: str | None = None
    window: int = 32
    separator: str | None = None


def table(path: Path, columns: Columns) -> Dataset:
    """Raises DataProblem with what is wrong."""
    rows = READERS[path.suffix.lower()](path)
    if not rows:
        raise DataProblem(f"{path} has no rows")
    names = [name for name in rows[0] if name]
    target = columns.label or names[-1]
    for name in (target, columns.text, columns.stream):
        if name is not None and name not in names:
            raise DataProblem(f"{path} has no column {name!r}; it has {', '.join(names)}")
    rows, several = _answered(rows, target, columns.separator)
    others = [name for name in names if name not in (target, columns.text, columns.stream)]
    spec, items = _samples(rows, others, target, columns)
    enough(items)
    labels = tuple(sorted({label for item in items for label in classes_of(item.label)}))
    task = TypeAdapter[Task](Task).validate_python(f"{spec.kind}-{'multi-label' if several else 'classification'}")
    return Dataset(path.stem, task, labels, spec, distinct(items))


def _samples(rows: Sequence[Row], others: Sequence[str], target: str, columns: Columns) -> tuple[InputSpec, list[Item]]:
    if columns.text:
        texts = [(str(row[columns.text]), row[target]) for row in rows if row.get(columns.text)]
        return InputSpec.text(), [Item(text.encode(), "text/plain", answer) for text, answer in texts]
    used = [column for name in others if (column := column_of(name, rows))]
    if columns.stream:
        used = [column for column in used if column.kind == "number"]
    if not used:
        raise DataProblem(f"there is no usable column besides {target!r}")
    if columns.stream:
        return InputSpec.series(columns.window, used), _windows(rows, used, target, columns)
    found = [(_cells(row, used), row[target]) for row in rows]
    items = [Item(_json(cells), "application/json", answer, cells) for cells, answer in found if cells is not None]
    return InputSpec.tabular(used), items


def _windows(rows: Sequence[Row], used: Sequence[TabularColumn], target: str, columns: Columns) -> list[Item]:
    """Windows of each stream, one after the other; the answer is that of its last point. A hole starts a new one."""
    streams: dict[str, list[dict[str, Any]]] = defaultdict(list)
    items: list[Item] = []
    for row in rows:
        points = streams[str(row[columns.stream or ""])]
        if (cells := _cells(row, used)) is None:
            points.clear()
            continue
        points.append(cells)
        if len(points) == columns.window:
            items.append(Item(_json(points), "application/json", row[target]))
            points.clear()
    return items


def _answered(rows: Sequence[Row], target: str, separator: str | None) -> tuple[list[Row], bool]:
    """The rows that have an answer, with it in its one form; and whether that is a list."""
    several = separator is not None or any(isinstance(row.get(target), list) for row in rows)
    found: list[Row] = []
    for row in rows:
        value = row.get(target)
        if not several and value not in (None, ""):
            found.append({**row, target: str(value)})
        elif several and value is not None:
            parts = value if isinstance(value, list) else str(value).split(separator)
            found.append({**row, target: sorted({str(part).strip() for part in parts} - {""})})
    return found, several


def column_of(name: str, rows: Sequence[Row]) -> TabularColumn | None:
    """Standardised if all its values are numbers, one-hot if they are few words, else left out."""
    values = [row[name] for row in rows if row.get(name) not in (None, "")]
    numbers = [number for value in values if (number := _number(value)) is not None]
    if values and len(numbers) == len(values):
        scale = float(np.std(numbers))
        return TabularColumn(name=name, mean=float(np.mean(numbers)), scale=scale if scale > 0 else 1.0)
    words = tuple(sorted({str(value) for value in values}))
    if 1 < len(words) <= MOST_CATEGORIES:
        return TabularColumn(name=name, kind="category", categories=words)
    return None


def _cells(row: Row, columns: Sequence[TabularColumn]) -> dict[str, Any] | None:
    """The row's values; None of a row with a hole in it."""
    values: dict[str, Any] = {}
    for column in columns:
        value = row.get(column.name)
        if value in (None, ""):
            return None
        values[column.name] = _number(value) if column.kind == "number" else str(value)
    return values


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _csv(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def _jsonl(path: Path) -> list[Row]:
    rows: list[Row] = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        try:
            row = json.loads(line) if line.strip() else None
        except ValueError as error:
            raise DataProblem(f"{path}, line {number}: {error}") from error
        if row is not None and not isinstance(row, dict):
            raise DataProblem(f"{path}, line {number}: a row is a JSON object")
        rows += [row] if row else []
    return rows


READERS: dict[str, Callable[[Path], list[Row]]] = {".csv": _csv, ".jsonl": _jsonl, ".ndjson": _jsonl}
