"""COCO JSON: images, categories, and one annotation an image that names its category and has no box. Pure.

The project has no detection, so there is no `bbox`, and pictures are not measured, so no `width` and `height`.
Format: https://cocodataset.org/#format-data
"""

from array import array
from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from services.contracts.problem import Problem
from services.label_queue.interchange.label import Bundle, Dataset, Label, Read, mapping, referred

PIECE = 10_000  # annotations written at a time


class Coco:
    """Images as they come; of each only its category is kept for the annotations after them."""

    def __init__(self, dataset: Dataset) -> None:
        self._project = dataset.project
        self._names = list(dataset.labels)
        self._places = {name: at for at, name in enumerate(self._names)}
        self._categories = array("L")

    def begin(self) -> Iterator[bytes]:
        info = {"description": f"halfsure project {self._project}", "version": "1"}
        yield b'{"info":' + orjson.dumps(info) + b',"licenses":[],"images":[\n'

    def add(self, labels: Sequence[Label]) -> Iterator[bytes]:
        for label in labels:
            number = len(self._categories) + 1
            image = {
                "id": number,
                "file_name": label.file_name,
                "sample_id": label.sample_id,
                "split": label.split,
                **label.content.model_dump(),
            }
            # A label that the schema has not any more is a category still.
            place = self._places.setdefault(label.value, len(self._places))
            if place == len(self._names):
                self._names.append(label.value)
            self._categories.append(place)
            yield (b"," if number > 1 else b"") + orjson.dumps(image) + b"\n"

    def end(self) -> Iterator[bytes]:
        categories = [{"id": at + 1, "name": name, "supercategory": ""} for at, name in enumerate(self._names)]
        yield b'],"categories":' + orjson.dumps(categories) + b',"annotations":[\n'
        for start in range(0, len(self._categories), PIECE):
            rows = (
                {"id": number + 1, "image_id": number + 1, "category_id": self._categories[number] + 1, "iscrowd": 0}
                for number in range(start, min(start + PIECE, len(self._categories)))
            )
            yield (b"," if start else b"") + b",".join(map(orjson.dumps, rows)) + b"\n"
        yield b"]}\n"


def read_coco(bundle: Bundle) -> Read:
    """One label an image; an image with annotations of several categories is refused."""
    try:
        document = mapping(orjson.loads(bundle.document), "The document")
        names = {row["id"]: row["name"] for row in document["categories"]}
        given: dict[Any, set[Any]] = {}
        for row in document["annotations"]:
            given.setdefault(row["image_id"], set()).add(row["category_id"])
        images = list(document["images"])
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise Problem(422, "malformed", f"This is no COCO document: {error!r}.") from error
    for image in images:
        try:
            row = mapping(image, "An image")
            found = given.get(row.get("id"), set())
            if len(found) != 1 or not found <= names.keys():
                detail = (
                    f"{row.get('file_name')!r:.100} has {len(found)} categories; one that the document names is wanted."
                )
                raise Problem(422, "no-label", detail)
            yield referred(row, names[next(iter(found))], str(row.get("file_name", "")), bundle, row.get("split"))
        except Problem as problem:
            yield problem
