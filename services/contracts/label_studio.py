"""Label Studio's shapes: tasks with annotations and predictions, for files and for its server. Pure.

Format: https://labelstud.io/guide/task_format and https://labelstud.io/guide/export
"""

from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

from services.contracts.boxes import SIDES
from services.contracts.problem import Problem
from services.contracts.tasks import Task, answer_of
from services.contracts.values import DIGITS

NAME, TARGET = "label", "sample"


def config(labels: Sequence[str], kind: Task = "image-classification") -> str:
    """The labelling interface of a picture: one choice, several, or labelled rectangles."""
    picture = f'<Image name="{TARGET}" value="$image"/>'
    tied = f'name="{NAME}" toName="{TARGET}"'
    if answer_of(kind) == "detection":
        names = "".join(f"<Label value={quoteattr(label)}/>" for label in labels)
        return f"<View>{picture}<RectangleLabels {tied}>{names}</RectangleLabels></View>"
    choices = "".join(f"<Choice value={quoteattr(label)}/>" for label in labels)
    how = 'choice="multiple"' if answer_of(kind) == "multi-label" else 'choice="single" required="true"'
    return f"<View>{picture}<Choices {tied} {how}>{choices}</Choices></View>"


def result(value: Any) -> list[dict[str, Any]]:
    """An answer as annotations and predictions say it: choices, or rectangles in percent; none is an answer too."""
    if isinstance(value, dict):
        rows = ({**_percent(box), "rectanglelabels": [box["label"]]} for box in value["boxes"])
        return [_part("rectanglelabels", row) for row in rows]
    chosen = [value] if isinstance(value, str) else list(value)
    return [_part("choices", {"choices": chosen})] if chosen else []


def _part(kind: str, value: Mapping[str, Any]) -> dict[str, Any]:
    return {"from_name": NAME, "to_name": TARGET, "type": kind, "value": value}


def _percent(box: Mapping[str, Any]) -> dict[str, Any]:
    return {"rotation": 0, **{side: round(100 * box[side], DIGITS) for side in SIDES}}


def task(sample: str, content: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A task; its data name the sample, so that what comes back is known again."""
    return {"data": {"image": f"/v1/samples/{sample}/content", "sample_id": sample, **content}, **more}


def prediction(value: Any, score: float | None, version: str) -> dict[str, Any]:
    return {"model_version": version, "score": score, "result": result(value)}


def answer(annotation: Mapping[str, Any], kind: Task = "image-classification") -> Any:
    """What an annotation says; None if it was skipped, or if one choice is wanted and it has not exactly one.

    Raises a 422 problem for a rectangle that is turned, because a box is not.
    """
    if annotation.get("was_cancelled"):
        return None
    parts = [part for part in annotation.get("result") or () if isinstance(part, dict)]
    values = [(part.get("type"), part.get("value") or {}) for part in parts]
    if answer_of(kind) == "detection":
        return {"boxes": [_box(value) for what, value in values if what == "rectanglelabels"]}
    found = [one for what, value in values if what == "choices" for one in value.get("choices") or ()]
    if answer_of(kind) == "multi-label":
        return found
    return found[0] if len(found) == 1 and isinstance(found[0], str) else None


def _box(value: Mapping[str, Any]) -> dict[str, Any]:
    names = value.get("rectanglelabels") or [None]
    if value.get("rotation"):
        raise Problem(422, "rotated", "A rectangle is turned; boxes here are upright.")
    if len(names) != 1 or not all(isinstance(value.get(side), int | float) for side in SIDES):
        raise Problem(422, "no-boxes", "A rectangle has x, y, width, height and one label.")
    return {"label": names[0], **{side: value[side] / 100 for side in SIDES}}
