"""Layouts that other tools document, where the tool itself is too large to be installed: FiftyOne and Ultralytics.

FiftyOne needs MongoDB and Ultralytics PyTorch, so what is held here is what their documentation says they read:
`ImageClassificationDirectoryTree` (a folder a class) and `YOLOv5Dataset` (data.yaml, images/SPLIT, labels/SPLIT).
"""

import io
import runpy
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from unit.test_interchange import label, photo, written

from services.cli.settings import default_root
from services.contracts.values import checked
from services.label_queue.interchange import FORMATS

PICTURES = (".png", ".jpg")
BOX = {"label": "b", "x": 0.25, "y": 0.5, "width": 0.5, "height": 0.25}


def unpacked(content: bytes, folder: Path) -> list[Path]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        archive.extractall(folder)
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def test_classes_are_a_tree_of_folders_a_class(tmp_path: Path) -> None:
    labels = [label(number, ("cat", "dog")[number % 2], ("train", "evaluation")[number // 4]) for number in range(8)]
    unpacked(written(FORMATS["yolo"], labels, ["cat", "dog"]), tmp_path)
    for split in ("train", "val"):
        folders = sorted((tmp_path / split).iterdir())
        assert [folder.name for folder in folders] == ["cat", "dog"], "nothing but a folder for each class"
        assert all(path.suffix in PICTURES for folder in folders for path in folder.iterdir())
        assert sum(1 for folder in folders for _ in folder.iterdir()) == 4


def test_boxes_are_a_yolo_dataset(tmp_path: Path) -> None:
    value = checked({"boxes": [BOX]}, "image-detection", ["a", "b"])
    labels = [label(at, value, ("train", "evaluation")[at % 2], raw=photo(at, 40, 40)) for at in range(4)]
    unpacked(written(FORMATS["yolo"], labels, ["a", "b"], "image-detection"), tmp_path)
    check_yolo(tmp_path, yaml.safe_load((tmp_path / "data.yaml").read_text()), ["a", "b"])


def test_ultralytics_gets_the_job_in_its_layout(tmp_path: Path) -> None:
    """The layout of examples/ultralytics; its training is unverified."""
    example = runpy.run_path(str(default_root() / "examples" / "ultralytics" / "train.py"))
    samples: list[dict[str, Any]] = []
    for at in range(10):
        (tmp_path / f"{at}.bin").write_bytes(b"x")
        samples.append(
            {"sample_id": f"s{at}", "path": f"{at}.bin", "media_type": "image/png", "label": {"boxes": [BOX]}}
        )
    job = {"task": "image-detection", "labels": ["a", "b"], "samples": samples}
    file = example["lay_out"](tmp_path, job, tmp_path / "boxes")
    check_yolo(tmp_path / "boxes", yaml.safe_load(file.read_text()), ["a", "b"])
    classes = [{**one, "label": ("a", "b")[at % 2]} for at, one in enumerate(samples)]
    tree = example["lay_out"](tmp_path, {**job, "task": "image-classification", "samples": classes}, tmp_path / "tree")
    assert {path.parent.relative_to(tree).as_posix() for path in tree.rglob("*.png")} <= {
        f"{split}/{name}" for split in ("train", "val") for name in "ab"
    }
    assert len(list(tree.rglob("*.png"))) == 10


def check_yolo(folder: Path, data: dict[str, Any], names: list[str]) -> None:
    """data.yaml names both splits and every class; each picture has its text, a line a box, all within the picture."""
    told = data["names"]
    assert (list(told.values()) if isinstance(told, dict) else told) == names
    for split in ("train", "val"):
        pictures = [path for path in (folder / data[split]).iterdir() if path.suffix in PICTURES]
        assert pictures
        for picture in pictures:
            text = folder / "labels" / picture.parent.name / f"{picture.stem}.txt"
            (line,) = text.read_text().splitlines()
            number, *sides = line.split()
            assert names[int(number)] == "b"
            assert [float(side) for side in sides] == pytest.approx([0.5, 0.625, 0.5, 0.25], abs=1e-6)
