"""Label Studio's JSON: tasks with their annotations and the model's prediction. Pure.

Format: https://labelstud.io/guide/task_format and https://labelstud.io/guide/export
"""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from services.contracts.label_studio import answer, prediction, result, task
from services.contracts.problem import Problem
from services.label_queue.interchange.label import Bundle, Dataset, Incoming, Label, Read, mapping, referred


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
            if (suggested := label.facts.get("predicted")) is not None:
                row["predictions"] = [prediction(suggested, label.confidence, label.facts["model_version"])]
            yield (b"," if self._some else b"") + orjson.dumps(row) + b"\n"
            self._some = True

    def end(self) -> Iterator[bytes]:
        yield b"]\n"


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
    values = [value for one in annotations if (value := answer(one, bundle.task)) is not None]
    if not values:
        wanted = " with exactly one choice" if bundle.answer == "classification" else ""
        raise Problem(422, "no-label", f"The task has no annotation{wanted}.")
    image = str(data.get("image", ""))
    if image.startswith("data:"):
        return _inline(image, values[-1])
    return referred(data, values[-1], image.split("?d=")[-1].lstrip("/"), bundle, data.get("split"))


def _inline(image: str, value: Any) -> Incoming:
    head, _, body = image.partition(",")
    try:
        raw = base64.b64decode(body, validate=True)
    except ValueError as error:
        raise Problem(422, "base64", f"The picture is not base64: {error}.") from error
    return Incoming(value, raw=raw, media_type=head.removeprefix("data:").split(";")[0])
