"""Labelled data to play the loop with, and scikit-learn's digits; `reading.py` has the user's own."""

import base64
import io
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
from PIL import Image

from services.contracts.inputs import InputSpec
from services.contracts.tasks import Task, answer_of
from services.contracts.values import classes_of

SIDE = 32  # pixels that images are scored at, smaller ones too: the extractor's grid then has its finest cells
MOST_TEST = 1000
MOST_EVALUATION = 200


class DataProblem(Exception):
    """The data cannot be used; the message says what to change."""


@dataclass(frozen=True)
class Item:
    """One sample and its true answer, a label or a list of them: content bytes, or a row."""

    content: bytes
    media_type: str
    label: Any
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

    @property
    def metric(self) -> str:
        """What the mean agreement of answers is called."""
        return "accuracy" if answer_of(self.task) == "classification" else "jaccard"


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
    return Dataset("digits", "image-classification", labels, InputSpec.image(SIDE, SIDE, 1), distinct(items))


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8), "L").save(buffer, "PNG")
    return buffer.getvalue()


def distinct(items: Iterable[Item]) -> tuple[Item, ...]:
    """Each content once: the loop knows equal content as one sample."""
    return tuple({sha256(item.content).digest(): item for item in items}.values())


def enough(items: Sequence[Item]) -> None:
    """Raises DataProblem where a loop could not be played."""
    counts = Counter(label for item in items for label in classes_of(item.label))
    if len(items) < 60 or len(counts) < 2:
        raise DataProblem(f"{len(items)} samples of {len(counts)} classes are too few; 60 of two classes is the least")


def agreement(said: Any, true: Any) -> float:
    """0..1: whether an answer is right; of several labels those in both through those in either."""
    one, other = set(classes_of(said)), set(classes_of(true))
    return len(one & other) / len(one | other) if one | other else 1.0
