"""Values: what an answer to each kind of task looks like, in events, over REST and in training sets alike. Pure.

| answer         | value                                                                                       |
|----------------|---------------------------------------------------------------------------------------------|
| classification | `"cat"`                                                                                     |
| multi-label    | `["cat", "dog"]`: in the order of the project's labels, each once; none is an answer as well |
| detection      | `{"boxes": [{"label": "cat", "x": 0.1, "y": 0.2, "width": 0.3, "height": 0.4}]}`            |

A box is in fractions of the upright picture, from its upper left corner, so that it fits every size of it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.contracts.boxes import matched
from services.contracts.tasks import answer_of

MAX_BOXES = 1000
DIGITS = 6
"""Decimals of a side of a box: finer than a pixel of any picture that is read."""


class BadValue(ValueError):
    """A value is no answer to the project's question; `pointer` is below the value, as in RFC 6901."""

    def __init__(self, pointer: str, code: str, message: str) -> None:
        super().__init__(message)
        self.pointer, self.code = pointer, code


class Box(BaseModel):
    """A labelled rectangle, in fractions of the picture."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    label: str
    x: float
    y: float
    width: float
    height: float


class _Boxes(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    boxes: list[Box] = Field(max_length=MAX_BOXES)


def checked(value: Any, task: str, labels: Sequence[str]) -> Any:
    """The value in its one form: equal answers are equal JSON. Raises BadValue."""
    match answer_of(task):
        case "classification":
            return _known(value, labels, "")
        case "multi-label":
            return _several(value, labels)
        case "detection":
            return _boxes(value, labels)


def classes_of(value: Any) -> list[str]:
    """The labels that a value names, each once: what is counted by class."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return sorted({str(box["label"]) for box in value["boxes"]})
    return list(value)


def words(value: Any) -> str:
    """A value for people to read, short."""
    if isinstance(value, dict):
        counts = Counter(box["label"] for box in value["boxes"])
        return ", ".join(f"{count} {label}" for label, count in sorted(counts.items())) or "nothing"
    return value if isinstance(value, str) else ", ".join(value) or "nothing"


def agree(one: Any, other: Any) -> bool:
    """Whether two checked answers say the same: boxes one by one (`boxes.matched`), the same labels, the same label."""
    if isinstance(one, dict) and isinstance(other, dict):
        ours, theirs = one["boxes"], other["boxes"]
        return len(ours) == len(theirs) == len(matched(ours, theirs))
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return set(one) == set(other)
    return one == other


def in_order(boxes: Iterable[tuple[str, float, float, float, float]]) -> dict[str, Any]:
    """The answer that has these boxes, each a label, x, y, width and height, in its one form; none is checked."""
    rows = [(label, *(round(side, DIGITS) for side in sides)) for label, *sides in boxes]
    return _sorted([dict(zip(("label", "x", "y", "width", "height"), row, strict=True)) for row in rows])


def _known(label: Any, labels: Sequence[str], pointer: str) -> str:
    if isinstance(label, str) and label in labels:
        return label
    known = ", ".join(labels[:20]) + (", ..." if len(labels) > 20 else "")
    raise BadValue(pointer, "unknown-label", f"{label!r:.100} is none of the labels: {known}.")


def _several(value: Any, labels: Sequence[str]) -> list[str]:
    if not isinstance(value, (list, tuple)):
        raise BadValue("", "no-list", f"An answer is a list of labels, not {value!r:.100}.")
    chosen = [_known(label, labels, f"/{at}") for at, label in enumerate(value)]
    for at, label in enumerate(chosen):
        if label in chosen[:at]:
            raise BadValue(f"/{at}", "twice", f"{label!r:.100} is named twice.")
    return sorted(chosen, key=labels.index)


def _boxes(value: Any, labels: Sequence[str]) -> dict[str, Any]:
    try:
        boxes = _Boxes.model_validate(value).boxes
    except ValidationError as error:
        fault = error.errors()[0]
        pointer = "".join(f"/{part}" for part in fault["loc"])
        raise BadValue(pointer, "no-boxes", f'An answer is {{"boxes": [...]}}: {fault["msg"]}.') from error
    return _sorted([_box(box, labels, f"/boxes/{at}") for at, box in enumerate(boxes)])


def _sorted(boxes: list[dict[str, Any]]) -> dict[str, Any]:
    return {"boxes": sorted(boxes, key=lambda box: (box["y"], box["x"], box["width"], box["height"], box["label"]))}


def _box(box: Box, labels: Sequence[str], pointer: str) -> dict[str, Any]:
    """The box with its sides rounded to DIGITS; a hair's breadth beyond the edge is the edge."""
    label = _known(box.label, labels, f"{pointer}/label")
    edge = 10.0**-DIGITS
    for name, start, size in (("x", box.x, box.width), ("y", box.y, box.height)):
        if start < -edge or start + size > 1 + edge:
            raise BadValue(f"{pointer}/{name}", "outside", "The box reaches beyond the picture (0 to 1).")
    x, y = round(max(box.x, 0.0), DIGITS), round(max(box.y, 0.0), DIGITS)
    width, height = round(min(box.width, 1 - x), DIGITS), round(min(box.height, 1 - y), DIGITS)
    if width <= 0 or height <= 0:
        raise BadValue(pointer, "no-area", "The box has no area.")
    return {"label": label, "x": x, "y": y, "width": width, "height": height}
