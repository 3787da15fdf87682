"""Folders of pictures in a zip: YOLO's layout for classification, and Hugging Face's imagefolder. Pure.

Hugging Face has several labels in `labels`, and boxes in `objects`, as its guides for object detection do.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

import orjson

from services.contracts.problem import Problem
from services.label_queue.interchange.archive import ZipWriter
from services.label_queue.interchange.label import Bundle, Dataset, Incoming, Label, Read, mapping, named, referred
from services.label_queue.interchange.pictures import fractions, pixels, size_of
from services.label_queue.interchange.yolo import read_yolo_boxes

UNSAFE = frozenset('/\\%:*?"<>|')
YOLO = {"train": "train", "evaluation": "val"}
HUGGING_FACE = {"train": "train", "evaluation": "test"}
SPLITS = {
    "train": "train",
    "val": "evaluation",
    "valid": "evaluation",
    "validation": "evaluation",
    "test": "evaluation",
}


def folder(label: str) -> str:
    """A name of a class that names a folder on every system; `label_of` gives the class back."""
    last = len(label) - 1
    return "".join(
        quote(char, safe="")
        if char in UNSAFE or not char.isprintable()
        else f"%{ord(char):02X}"
        if char in ". " and at in (0, last)
        else char
        for at, char in enumerate(label)
    )


def label_of(name: str) -> str:
    return unquote(name)


class Yolo:
    """`train/CLASS/FILE` and `val/CLASS/FILE`, as Ultralytics' classification reads it, and names.json for people."""

    def __init__(self, dataset: Dataset) -> None:
        self._zip = ZipWriter()
        self._labels = dataset.labels

    def begin(self) -> Iterator[bytes]:
        yield self._zip.put("names.json", orjson.dumps({folder(label): label for label in self._labels}))

    def add(self, labels: Sequence[Label]) -> Iterator[bytes]:
        for label in labels:
            if label.raw is not None and label.split in YOLO:
                yield self._zip.put(f"{YOLO[label.split]}/{folder(label.value)}/{label.file_name}", label.raw)

    def end(self) -> Iterator[bytes]:
        yield self._zip.end()


def read_yolo(bundle: Bundle) -> Read:
    """Every picture by the name of its folder, and the folder above it if that is a split's name; or boxes."""
    if bundle.answer == "detection":
        yield from read_yolo_boxes(bundle)
        return
    if not bundle.files:
        raise Problem(422, "no-archive", "Send a .zip with a folder for each class.")
    for path, raw in bundle.files.items():
        parts = path.split("/")
        if len(parts) < 2:
            continue  # names.json, data.yaml, read-me files
        try:
            split = SPLITS.get(parts[-3].lower()) if len(parts) > 2 else None
            yield Incoming(label_of(parts[-2]), raw=raw, media_type=named(None, parts[-1]), split=split)
        except Problem as problem:
            yield problem


class HuggingFace:
    """`train/FILE`, `test/FILE`, and a metadata.jsonl in each, as `load_dataset("imagefolder")` reads it."""

    def __init__(self, dataset: Dataset) -> None:
        self._zip = ZipWriter()
        self._lines: dict[str, list[bytes]] = {}

    def begin(self) -> Iterable[bytes]:
        return ()

    def add(self, labels: Sequence[Label]) -> Iterator[bytes]:
        for label in labels:
            if label.raw is None or label.split not in HUGGING_FACE:
                continue
            split = HUGGING_FACE[label.split]
            row = {"file_name": label.file_name, **_columns(label), "sample_id": label.sample_id}
            self._lines.setdefault(split, []).append(orjson.dumps(row) + b"\n")
            yield self._zip.put(f"{split}/{label.file_name}", label.raw)

    def end(self) -> Iterator[bytes]:
        for split, lines in self._lines.items():
            yield self._zip.put(f"{split}/metadata.jsonl", b"".join(lines))
        yield self._zip.end()


def _columns(label: Label) -> dict[str, Any]:
    if isinstance(label.value, str):
        return {"label": label.value}
    if not isinstance(label.value, dict):
        return {"labels": label.value}
    size = size_of(label.raw or b"")
    boxes = label.value["boxes"]
    return {
        "objects": {"bbox": [pixels(box, size) for box in boxes], "categories": [box["label"] for box in boxes]},
        "width": size[0],
        "height": size[1],
    }


def _value(row: Mapping[str, Any], path: str, bundle: Bundle) -> Any:
    """What `_columns` was given. Raises a 422 problem."""
    if bundle.answer == "classification":
        if not isinstance(row.get("label"), str):
            raise Problem(422, "no-label", "A line has no text in `label`.")
        return row["label"]
    if bundle.answer == "multi-label":
        if not isinstance(row.get("labels"), list):
            raise Problem(422, "no-label", "A line has no list in `labels`.")
        return row["labels"]
    objects = mapping(row.get("objects"), "A line's `objects`")
    boxes, names = objects.get("bbox"), objects.get("categories", objects.get("category"))
    if not isinstance(boxes, list) or not isinstance(names, list) or len(boxes) != len(names):
        raise Problem(422, "no-boxes", "`objects` has a list `bbox` and as many `categories`.")
    size = size_of(bundle.find(path) or b"") if boxes else (1.0, 1.0)
    return {"boxes": [fractions(name, box, size) for name, box in zip(names, boxes, strict=True)]}


def read_hugging_face(bundle: Bundle) -> Read:
    """The rows of every metadata.jsonl."""
    documents = {path: raw for path, raw in bundle.files.items() if path.rsplit("/", 1)[-1] == "metadata.jsonl"}
    if not documents:
        raise Problem(422, "no-document", "Send a .zip with pictures and a metadata.jsonl.")
    for path, document in documents.items():
        base = path.removesuffix("metadata.jsonl")
        split = SPLITS.get(base.strip("/").rsplit("/", 1)[-1].lower())
        for line in document.splitlines():
            try:
                row = mapping(orjson.loads(line), "A line")
                name = f"{base}{row.get('file_name', '')}"
                yield referred({}, _value(row, name, bundle), name, bundle, split)
            except Problem as problem:
                yield problem
            except orjson.JSONDecodeError as error:
                yield Problem(422, "malformed", f"A line of {path!r:.100} is not JSON: {error}.")
