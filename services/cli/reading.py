"""The user's own labelled data: a folder with a folder for each class, or a table of rows, texts or streams."""

import io
from pathlib import Path

from PIL import Image

from services.cli import tables
from services.cli.datasets import SIDE, DataProblem, Dataset, Item, distinct, enough
from services.cli.tables import Columns
from services.contracts.inputs import InputSpec

IMAGE_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".bmp": "image/bmp"}
TYPES = {**IMAGE_TYPES, ".txt": "text/plain"}


def load(path: Path, columns: Columns) -> Dataset:
    """What is at the path. Raises DataProblem with what is wrong."""
    if path.is_dir():
        return _folder(path)
    if path.suffix.lower() in tables.READERS and path.is_file():
        return tables.table(path, columns)
    raise DataProblem(
        f"{path} is neither a folder with a folder of images or texts per class, nor a .csv or .jsonl file"
    )


def _folder(path: Path) -> Dataset:
    classes = sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    if len(classes) < 2:
        raise DataProblem(f"{path} needs a folder for each class, two at least; it has {len(classes)}")
    items = [
        Item(file.read_bytes(), TYPES[file.suffix.lower()], folder.name)
        for folder in classes
        for file in sorted(folder.iterdir())
        if file.suffix.lower() in TYPES
    ]
    enough(items)
    labels = tuple(folder.name for folder in classes)
    texts = sum(item.media_type == "text/plain" for item in items)
    if texts == len(items):
        return Dataset(path.name, "text-classification", labels, InputSpec.text(), distinct(items))
    if texts:
        raise DataProblem(f"{path} has {texts} texts and {len(items) - texts} images; a project takes one kind")
    with Image.open(io.BytesIO(items[0].content)) as first:
        channels = 1 if first.mode in ("1", "L", "I", "I;16") else 3
    return Dataset(path.name, "image-classification", labels, InputSpec.image(SIDE, SIDE, channels), distinct(items))
