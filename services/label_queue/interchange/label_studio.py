"""Label Studio's JSON: tasks with their annotations and the model's prediction. Pure.

Format: https://labelstud.io/guide/task_format and https://labelstud.io/guide/export
"""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

import orjson

from services.contracts.problem import Problem
from services.label_queue.interchange.label import Bundle, Dataset, Incoming, Label, Read, mapping, referred

NAME, TARGET = "label", "sample"


def config(labels: Sequence[str]) -> str:
    """The labelling interface: one choice about one picture."""
    choices = "".join(f"<Choice value={quoteattr(label)}/>" for label in labels)
    picture = f'<Image name="{TARGET}" value="$image"/>'
    control = f'<Choices name="{NAME}" toName="{TARGET}" choice="single" required="true">{choices}</Choices>'
    return f"<View>{picture}{control}</View>"


def result(value: str) -> list[dict[str, Any]]:
    """One choice, as annotations and predictions say it."""
    return [{"from_name": NAME, "to_name": TARGET, "type": "choices", "value": {"choices": [value]}}]


def task(sample: str, content: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A task; its data name the sample, so that what comes back is known again."""
    return {"data": {"image": f"/v1/samples/{sample}/content", "sample_id": sample, **content}, **more}


def prediction(value: str, score: float | None, version: str) -> dict[str, Any]:
    return {"model_version": version, "score": score, "result": result(value)}


class LabelStudio:
    """An array of tasks."""

    def __init__(self, dataset: Dataset) -> None:
        self._some = False

    def begin(self) -> Iterator[bytes]:
        yield b"[\n"

    def add(self, labels: Sequence[Label]) -> Iterator[bytes]:
        for label in labels:
            row = task(label.sample_id, {"split": label.split, **label.content.model_dump()})
            given = {"result": result(label.value), "was_cancelled": False, "ground_truth": label.split == "gold"}
            row["annotations"] = [given]
            if suggested := label.facts.get("predicted"):
                row["predictions"] = [prediction(suggested, label.confidence, label.facts["model_version"])]
            yield (b"," if self._some else b"") + orjson.dumps(row) + b"\n"
            self._some = True

    def end(self) -> Iterator[bytes]:
        yield b"]\n"


def choice(annotation: Mapping[str, Any]) -> str | None:
    """The one choice of an annotation; None if it was skipped, or says anything else."""
    if annotation.get("was_cancelled"):
        return None
    found = [
        value
        for part in annotation.get("result") or ()
        if isinstance(part, dict) and part.get("type") == "choices"
        for value in (part.get("value") or {}).get("choices") or ()
    ]
    return found[0] if len(found) == 1 and isinstance(found[0], str) else None


def read_label_studio(bundle: Bundle) -> Read:
    """The newest annotation of each task that is not cancelled."""
    try:
        tasks = json.loads(bundle.document)
    except ValueError as error:
        raise Problem(422, "malformed", f"This is not JSON: {error}.") from error
    for row in tasks if isinstance(tasks, list) else [tasks]:
        try:
            yield _incoming(mapping(row, "A task"), bundle)
        except Problem as problem:
            yield problem


def _incoming(row: Mapping[str, Any], bundle: Bundle) -> Incoming:
    data = mapping(row.get("data"), "A task's data")
    annotations = [mapping(one, "An annotation") for one in row.get("annotations") or ()]
    values = [value for value in map(choice, annotations) if value is not None]
    if not values:
        raise Problem(422, "no-label", "The task has no annotation with exactly one choice.")
    image = str(data.get("image", ""))
    if image.startswith("data:"):
        return _inline(image, values[-1])
    return referred(data, values[-1], image.split("?d=")[-1].lstrip("/"), bundle, data.get("split"))


def _inline(image: str, value: str) -> Incoming:
    head, _, body = image.partition(",")
    try:
        raw = base64.b64decode(body, validate=True)
    except ValueError as error:
        raise Problem(422, "base64", f"The picture is not base64: {error}.") from error
    return Incoming(value, raw=raw, media_type=head.removeprefix("data:").split(";")[0])
