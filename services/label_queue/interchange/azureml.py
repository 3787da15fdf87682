"""Azure Machine Learning: labelled JSON lines of pictures, with the MLTable that reads them. Pure.

A line's `label` is one, a list of them, or boxes by their corners in fractions of the picture.

Format: https://learn.microsoft.com/azure/machine-learning/reference-automl-images-schema
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import orjson

from services.contracts.problem import Problem
from services.contracts.values import DIGITS
from services.label_queue.interchange.archive import ZipWriter
from services.label_queue.interchange.label import Bundle, Dataset, Label, Read, mapping, referred

STORE = "azureml://datastores/workspaceblobstore/paths/"
DOCUMENT = "labels.jsonl"
ML_TABLE = b"""\
paths:
  - file: ./labels.jsonl
transformations:
  - read_json_lines:
      encoding: utf8
      invalid_lines: error
      include_path_column: false
  - convert_column_types:
      - columns: image_url
        column_type: stream_info
"""


class AzureMl:
    """labels.jsonl and MLTable; pictures stay where they are, in the datastore that has the container."""

    def __init__(self, dataset: Dataset) -> None:
        self._zip = ZipWriter()
        self._lines: list[bytes] = []

    def begin(self) -> Iterable[bytes]:
        yield self._zip.put("MLTable", ML_TABLE)

    def add(self, labels: Sequence[Label]) -> Iterable[bytes]:
        for label in labels:
            row = {
                "image_url": STORE + label.content.uri.removeprefix("blob:"),
                "image_details": {"format": label.content.media_type.rsplit("/", 1)[-1]},
                "label": _told(label.value),
                "sample_id": label.sample_id,
                "split": label.split,
                **label.content.model_dump(),
            }
            self._lines.append(orjson.dumps(row) + b"\n")
        return ()

    def end(self) -> Iterator[bytes]:
        yield self._zip.put(DOCUMENT, b"".join(self._lines))
        yield self._zip.end()


def _told(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return [
        {
            "label": box["label"],
            "topX": box["x"],
            "topY": box["y"],
            "bottomX": round(box["x"] + box["width"], DIGITS),
            "bottomY": round(box["y"] + box["height"], DIGITS),
            "isCrowd": 0,
        }
        for box in value["boxes"]
    ]


def _value(label: Any, bundle: Bundle) -> Any:
    """What `_told` was given. Raises a 422 problem."""
    if bundle.answer == "classification":
        if not isinstance(label, str):
            raise Problem(422, "no-label", "A line has no text in `label`.")
        return label
    if not isinstance(label, list):
        raise Problem(422, "no-label", "A line has no list in `label`.")
    if bundle.answer == "multi-label":
        return label
    rows = [mapping(box, "A box") for box in label]
    try:
        return {
            "boxes": [
                {
                    "label": row["label"],
                    "x": row["topX"],
                    "y": row["topY"],
                    "width": row["bottomX"] - row["topX"],
                    "height": row["bottomY"] - row["topY"],
                }
                for row in rows
            ]
        }
    except (KeyError, TypeError) as error:
        raise Problem(422, "no-boxes", f"A box has label, topX, topY, bottomX and bottomY: {error!r}.") from error


def read_azureml(bundle: Bundle) -> Read:
    """Lines with a label; pictures of other people's are looked for in the archive."""
    for line in bundle.document.splitlines():
        try:
            row = mapping(orjson.loads(line), "A line")
            value = _value(row.get("label"), bundle)
            name = str(row.get("image_url", "")).removeprefix(STORE)
            yield referred(row, value, name, bundle, row.get("split"))
        except Problem as problem:
            yield problem
        except orjson.JSONDecodeError as error:
            yield Problem(422, "malformed", f"A line is not JSON: {error}.")
