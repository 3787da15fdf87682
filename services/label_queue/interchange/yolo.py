"""YOLO's layout for detection: data.yaml, images/SPLIT/FILE, and labels/SPLIT/FILE.txt with a line a box. Pure.

A line is a class's number, then the box's centre, width and height in fractions of the picture; a picture without boxes
has an empty file. Format: https://docs.ultralytics.com/datasets/detect
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml

from services.contracts.problem import Problem
from services.contracts.values import DIGITS
from services.label_queue.interchange.archive import ZipWriter
from services.label_queue.interchange.label import TYPES, Bundle, Dataset, Incoming, Label, Read, named

SPLITS = {"train": "train", "evaluation": "val"}
NAMED = {"train": "train"} | dict.fromkeys(("val", "valid", "validation", "test"), "evaluation")
DOCUMENT = "data.yaml"


class YoloBoxes:
    """Pictures and their boxes as they come; data.yaml is last, when all classes are known."""

    def __init__(self, dataset: Dataset) -> None:
        self._zip = ZipWriter()
        self._names = list(dataset.labels)

    def begin(self) -> Iterable[bytes]:
        return ()

    def add(self, labels: Sequence[Label]) -> Iterator[bytes]:
        for label in labels:
            if label.raw is None or label.split not in SPLITS:
                continue
            split = SPLITS[label.split]
            yield self._zip.put(f"images/{split}/{label.file_name}", label.raw)
            lines = "".join(map(self._line, label.value["boxes"]))
            yield self._zip.put(f"labels/{split}/{label.file_name.rsplit('.', 1)[0]}.txt", lines.encode())

    def end(self) -> Iterator[bytes]:
        about = {"path": ".", "train": "images/train", "val": "images/val", "names": dict(enumerate(self._names))}
        yield self._zip.put(DOCUMENT, yaml.safe_dump(about, allow_unicode=True, sort_keys=False).encode())
        yield self._zip.end()

    def _line(self, box: Mapping[str, Any]) -> str:
        if box["label"] not in self._names:  # one that the schema has not any more
            self._names.append(box["label"])
        width, height = box["width"], box["height"]
        # A digit more than a box has: half of a side is between two of them.
        middle = f"{box['x'] + width / 2:.{DIGITS + 1}f} {box['y'] + height / 2:.{DIGITS + 1}f}"
        return f"{self._names.index(box['label'])} {middle} {width:.{DIGITS}f} {height:.{DIGITS}f}\n"


def read_yolo_boxes(bundle: Bundle) -> Read:
    """Every picture below an `images` folder with its file below `labels`; without one it is not labelled."""
    last = {path.rsplit("/", 1)[-1]: raw for path, raw in bundle.files.items()}
    document = last.get(DOCUMENT, last.get("data.yml"))
    if document is None:
        raise Problem(422, "no-document", f"Send a .zip with images, labels and a {DOCUMENT} that names the classes.")
    names = _names(document)
    for path, raw in bundle.files.items():
        folders, _, file = path.rpartition("/")
        if "images" not in folders.split("/") or f".{file.rsplit('.', 1)[-1].lower()}" not in TYPES:
            continue
        try:
            yield _incoming(path, raw, names, bundle)
        except Problem as problem:
            yield problem


def _incoming(path: str, raw: bytes, names: Mapping[int, str], bundle: Bundle) -> Incoming:
    parts = path.split("/")
    at = len(parts) - 1 - parts[::-1].index("images")
    text = bundle.files.get("/".join([*parts[:at], "labels", *parts[at + 1 :]]).rsplit(".", 1)[0] + ".txt")
    if text is None:
        detail = f"{path!r:.200} has no file below labels; an empty one says that nothing is there."
        raise Problem(422, "no-label", detail)
    boxes = [_box(line.split(), names) for line in text.decode("utf-8", "replace").splitlines() if line.strip()]
    split = next((NAMED[part.lower()] for part in reversed(parts[:-1]) if part.lower() in NAMED), None)
    return Incoming({"boxes": boxes}, raw=raw, media_type=named(None, parts[-1]), split=split)


def _box(words: Sequence[str], names: Mapping[int, str]) -> dict[str, Any]:
    try:
        number, x, y, width, height = int(words[0]), *map(float, words[1:])
        label = names[number]
    except (ValueError, TypeError, KeyError) as error:
        detail = f"{' '.join(words)!r:.100} is not the number of a class, then x, y, width and height of a box."
        raise Problem(422, "no-boxes", detail) from error
    return {"label": label, "x": x - width / 2, "y": y - height / 2, "width": width, "height": height}


def _names(document: bytes) -> dict[int, str]:
    """The classes by number; a list or a mapping."""
    try:
        about = yaml.safe_load(document)
        names = about["names"]
        return {int(at): str(name) for at, name in (names.items() if isinstance(names, dict) else enumerate(names))}
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise Problem(422, "malformed", f"{DOCUMENT} does not say which class has which number: {error!r}.") from error
