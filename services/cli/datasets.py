"""Labelled data to play the loop with: scikit-learn's digits, a folder of images by class, or a CSV file."""

import base64
import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from services.contracts.inputs import InputSpec, TabularColumn
from services.contracts.tasks import Task

IMAGE_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".bmp": "image/bmp"}
SIDE = 32  # pixels that images are scored at, smaller ones too: the extractor's grid then has its finest cells
MOST_CATEGORIES = 50
MOST_TEST = 1000
MOST_EVALUATION = 200


class DataProblem(Exception):
    """The data cannot be used; the message says what to change."""


@dataclass(frozen=True)
class Item:
    """One sample and its true label: content bytes, or a row."""

    content: bytes
    media_type: str
    label: str
    row: dict[str, Any] | None = None

    @property
    def body(self) -> dict[str, Any]:
        """The sample as ingest and infer take it in JSON."""
        if self.row is not None:
            return {"row": self.row}
        return {"data": base64.b64encode(self.content).decode(), "media_type": self.media_type}


@dataclass(frozen=True)
class Dataset:
    """Samples, each once, with what a project needs to know of them."""

    name: str
    task: Task
    labels: tuple[str, ...]
    input: InputSpec
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Split:
    """The pool that goes through the loop, the pinned evaluation set, and the test set that never enters it."""

    pool: tuple[Item, ...]
    evaluation: tuple[Item, ...]
    test: tuple[Item, ...]


def split(data: Dataset, seed: int) -> Split:
    """20 % test (1,000 at most) and 200 for evaluation (a seventh of the rest at most), drawn by `seed`."""
    order = np.random.default_rng(seed).permutation(len(data.items))
    test = min(MOST_TEST, math.ceil(len(order) * 0.2))
    evaluation = min(MOST_EVALUATION, (len(order) - test) // 7)
    parts = order[:test], order[test : test + evaluation], order[test + evaluation :]
    tests, evaluations, pool = (tuple(data.items[i] for i in part) for part in parts)
    return Split(pool, evaluations, tests)


def digits() -> Dataset:
    """1,797 handwritten digits, 8 x 8 grey values, as PNG files."""
    from sklearn.datasets import load_digits

    pixels, targets = load_digits(return_X_y=True)
    images = np.round(np.asarray(pixels).reshape(-1, 8, 8) * 255 / 16)
    items = [Item(_png(image), "image/png", str(label)) for image, label in zip(images, targets, strict=True)]
    labels = tuple(str(label) for label in range(10))
    return Dataset("digits", "image-classification", labels, InputSpec.image(SIDE, SIDE, 1), _distinct(items))


def load(path: Path, label_column: str | None) -> Dataset:
    """The user's data. Raises DataProblem with what is wrong."""
    if path.is_dir():
        return _folder(path)
    if path.suffix.lower() == ".csv" and path.is_file():
        return _table(path, label_column)
    raise DataProblem(f"{path} is neither a folder with a folder of images per class, nor a .csv file")


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8), "L").save(buffer, "PNG")
    return buffer.getvalue()


def _distinct(items: Iterable[Item]) -> tuple[Item, ...]:
    """Each content once: the loop knows equal content as one sample."""
    return tuple({sha256(item.content).digest(): item for item in items}.values())


def _folder(path: Path) -> Dataset:
    classes = sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    if len(classes) < 2:
        raise DataProblem(f"{path} needs a folder for each class, two at least; it has {len(classes)}")
    items = [
        Item(file.read_bytes(), IMAGE_TYPES[file.suffix.lower()], folder.name)
        for folder in classes
        for file in sorted(folder.iterdir())
        if file.suffix.lower() in IMAGE_TYPES
    ]
    _enough(items)
    with Image.open(io.BytesIO(items[0].content)) as first:
        channels = 1 if first.mode in ("1", "L", "I", "I;16") else 3
        spec = InputSpec.image(SIDE, SIDE, channels)
    labels = tuple(folder.name for folder in classes)
    return Dataset(path.name, "image-classification", labels, spec, _distinct(items))


def _table(path: Path, label_column: str | None) -> Dataset:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise DataProblem(f"{path} has no rows below its header")
    names = [name for name in rows[0] if name]
    target = label_column or names[-1]
    if target not in names:
        raise DataProblem(f"{path} has no column {target!r}; it has {', '.join(names)}")
    rows = [row for row in rows if row.get(target)]
    columns = [column for name in names if name != target if (column := _column(name, rows))]
    if not columns:
        raise DataProblem(f"{path} has no usable column besides {target!r}")
    items = [_row_item(row, columns, row[target]) for row in rows]
    kept = [item for item in items if item is not None]
    _enough(kept)
    labels = tuple(sorted({item.label for item in kept}))
    return Dataset(path.stem, "tabular-classification", labels, InputSpec.tabular(columns), _distinct(kept))


def _column(name: str, rows: Sequence[dict[str, str]]) -> TabularColumn | None:
    """Standardised if all its values are numbers, one-hot if they are few words, else left out."""
    values = [row[name] for row in rows if row.get(name)]
    numbers = [number for value in values if (number := _number(value)) is not None]
    if values and len(numbers) == len(values):
        scale = float(np.std(numbers))
        return TabularColumn(name=name, mean=float(np.mean(numbers)), scale=scale if scale > 0 else 1.0)
    words = tuple(sorted(set(values)))
    if 1 < len(words) <= MOST_CATEGORIES:
        return TabularColumn(name=name, kind="category", categories=words)
    return None


def _row_item(row: dict[str, str], columns: Sequence[TabularColumn], label: str) -> Item | None:
    values: dict[str, Any] = {}
    for column in columns:
        text = row.get(column.name)
        if not text:
            return None  # a row with a hole in it
        values[column.name] = _number(text) if column.kind == "number" else text
    content = json.dumps(values, sort_keys=True).encode()
    return Item(content, "application/json", label, values)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _enough(items: Sequence[Item]) -> None:
    counts = Counter(item.label for item in items)
    if len(items) < 60 or len(counts) < 2:
        raise DataProblem(f"{len(items)} samples of {len(counts)} classes are too few; 60 of two classes is the least")
