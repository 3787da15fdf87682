"""COCO JSON: images, categories, and an annotation for each label or box of an image; only a box has a `bbox`. Pure.

Boxes are in pixels of the upright picture, which is measured for them; without boxes no picture is opened.
Format: https://cocodataset.org/#format-data
"""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from services.contracts.problem import Problem
from services.contracts.tasks import answer_of
from services.label_queue.interchange.label import Bundle, Dataset, Label, Read, mapping, referred
from services.label_queue.interchange.pictures import fractions, pixels, size_of

PIECE = 10_000  # annotations written at a time


class Coco:
    """Images as they come; of each only the numbers of its annotations are kept, which come after them."""

    def __init__(self, dataset: Dataset) -> None:
        self._project = dataset.project
        self._names = list(dataset.labels)
        self._places = {name: at for at, name in enumerate(self._names)}
        self._answer = answer_of(dataset.kind)
        self._number = 0
        self._images, self._categories, self._boxes = array("L"), array("L"), array("d")

    def begin(self) -> Iterator[bytes]:
        info = {"description": f"halfsure project {self._project}", "version": "1"}
        yield b'{"info":' + orjson.dumps(info) + b',"licenses":[],"images":[\n'

    def add(self, labels: Sequence[Label]) -> Iterator[bytes]:
        for label in labels:
            self._number += 1
            image = {
                "id": self._number,
                "file_name": label.file_name,
                "sample_id": label.sample_id,
                "split": label.split,
                **label.content.model_dump(),
            }
            if self._answer == "detection":
                image |= self._drawn(label)
            else:
                for name in [label.value] if isinstance(label.value, str) else label.value:
                    self._annotate(name)
            yield (b"," if self._number > 1 else b"") + orjson.dumps(image) + b"\n"

    def end(self) -> Iterator[bytes]:
        categories = [{"id": at + 1, "name": name, "supercategory": ""} for at, name in enumerate(self._names)]
        yield b'],"categories":' + orjson.dumps(categories) + b',"annotations":[\n'
        for start in range(0, len(self._categories), PIECE):
            rows = map(self._annotation, range(start, min(start + PIECE, len(self._categories))))
            yield (b"," if start else b"") + b",".join(map(orjson.dumps, rows)) + b"\n"
        yield b"]}\n"

    def _drawn(self, label: Label) -> dict[str, Any]:
        """The image's sides; its boxes are noted."""
        size = size_of(label.raw or b"")
        for box in label.value["boxes"]:
            self._annotate(box["label"])
            self._boxes.extend(pixels(box, size))
        return {"width": size[0], "height": size[1]}

    def _annotate(self, name: str) -> None:
        """One more annotation of this image; a label that the schema has not any more is a category still."""
        place = self._places.setdefault(name, len(self._places))
        if place == len(self._names):
            self._names.append(name)
        self._images.append(self._number)
        self._categories.append(place)

    def _annotation(self, at: int) -> dict[str, Any]:
        row = {"id": at + 1, "image_id": self._images[at], "category_id": self._categories[at] + 1, "iscrowd": 0}
        if self._answer != "detection":
            return row
        box = self._boxes[4 * at : 4 * at + 4].tolist()
        return {**row, "bbox": box, "area": box[2] * box[3]}


def read_coco(bundle: Bundle) -> Read:
    """One label an image, several, or boxes, as the project wants; of one label an image has exactly one category."""
    try:
        document = mapping(orjson.loads(bundle.document), "The document")
        names = {row["id"]: row["name"] for row in document["categories"]}
        given: dict[Any, list[Mapping[str, Any]]] = {}
        for row in document["annotations"]:
            given.setdefault(row["image_id"], []).append({**row, "label": names[row["category_id"]]})
        images = list(document["images"])
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise Problem(422, "malformed", f"This is no COCO document: {error!r}.") from error
    for image in images:
        try:
            row = mapping(image, "An image")
            value = _value(row, given.get(row.get("id"), []), bundle)
            yield referred(row, value, str(row.get("file_name", "")), bundle, row.get("split"))
        except Problem as problem:
            yield problem


def _value(image: Mapping[str, Any], annotations: Sequence[Mapping[str, Any]], bundle: Bundle) -> Any:
    found = list(dict.fromkeys(row["label"] for row in annotations))
    if bundle.answer == "multi-label":
        return found
    if bundle.answer == "detection":
        size = _size(image, bundle) if annotations else (1.0, 1.0)
        return {"boxes": [fractions(row["label"], row.get("bbox", ()), size) for row in annotations]}
    if len(found) != 1:
        detail = f"{image.get('file_name')!r:.100} has {len(found)} categories; one that the document names is wanted."
        raise Problem(422, "no-label", detail)
    return found[0]


def _size(image: Mapping[str, Any], bundle: Bundle) -> tuple[float, float]:
    """As the document says, else as the picture is."""
    width, height = image.get("width"), image.get("height")
    if isinstance(width, int | float) and isinstance(height, int | float):
        return width, height
    return size_of(bundle.find(str(image.get("file_name", ""))) or b"")
