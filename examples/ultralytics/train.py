"""A trainer for the backend `command` by Ultralytics, for boxes and for classes.

    HALFSURE_RETRAIN_TRIGGER_COMMAND="python /path/to/train.py"     it is called with the job's folder

`lay_out` writes the job as Ultralytics reads it and runs in a test. `train` and `export` need its package, ultralytics,
which brings PyTorch: **they are unverified**, written to Ultralytics' documentation (8.3) and never run.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

EPOCHS = 30
SHARE = 5  # every fifth sample is what Ultralytics itself stops by; halfsure judges by the project's pinned set
SUFFIXES = {"image/png": ".png", "image/jpeg": ".jpg", "image/bmp": ".bmp", "image/webp": ".webp"}


def lay_out(folder: Path, job: dict[str, Any], target: Path) -> Path:
    """What Ultralytics trains on: a data.yaml for boxes, a folder of folders for classes."""
    boxes = job["task"] == "image-detection"
    for at, sample in enumerate(job["samples"]):
        split = "val" if at % SHARE == 0 else "train"
        name = sample["sample_id"] + SUFFIXES[sample["media_type"]]
        place = target / "images" / split if boxes else target / split / sample["label"]
        place.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / sample["path"], place / name)
        if boxes:
            text = target / "labels" / split / f"{sample['sample_id']}.txt"
            text.parent.mkdir(parents=True, exist_ok=True)
            text.write_text("".join(line(box, job["labels"]) for box in sample["label"]["boxes"]))
    if not boxes:
        return target
    names = "".join(f"  {at}: {json.dumps(label)}\n" for at, label in enumerate(job["labels"]))
    file = target / "data.yaml"
    file.write_text(f"path: {json.dumps(str(target))}\ntrain: images/train\nval: images/val\nnames:\n{names}")
    return file


def line(box: dict[str, Any], labels: list[str]) -> str:
    """YOLO's: class, then the centre and the size in fractions of the picture."""
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    return f"{labels.index(box['label'])} {x:.6f} {y:.6f} {box['width']:.6f} {box['height']:.6f}\n"


def train(data: Path, job: dict[str, Any], target: Path) -> Any:
    """Unverified. A small network, from its published weights."""
    from ultralytics import YOLO  # pyright: ignore[reportMissingImports]

    spec = job["extractor"]["manifest"]["input"]
    kind = "yolo11n.pt" if job["task"] == "image-detection" else "yolo11n-cls.pt"
    model = YOLO(kind)
    model.train(data=str(data), epochs=EPOCHS, imgsz=spec["width"], project=str(target / "runs"), seed=0)
    return model


def export(model: Any, job: dict[str, Any], folder: Path) -> None:
    """Unverified. For classes the network's one output is the probabilities; boxes have to be taken apart."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    graph = onnx.load(model.export(format="onnx", dynamic=True, opset=17))
    spec, found = job["extractor"]["manifest"]["input"], graph.graph
    name = found.input[0].name
    for node in found.node:
        node.input[:] = [spec["name"] if one == name else one for one in node.input]
    found.input[0].name = spec["name"]
    said = found.output[0].name
    if job["task"] != "image-detection":
        outputs = {"probabilities": said}
    else:
        # (N, 4 + C, M): centres and sizes in pixels, then a probability a class; halfsure takes corners in fractions.
        sides = np.array([spec["width"], spec["height"]] * 2, np.float32).reshape(1, 1, 4)
        corners = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [-0.5, 0, 1, 0], [0, -0.5, 0, 1]], np.float32)
        found.initializer.extend(
            [
                numpy_helper.from_array(np.array([4, len(job["labels"])], np.int64), "parts"),
                numpy_helper.from_array(1 / sides, "scale"),
                numpy_helper.from_array(corners, "corners"),
            ]
        )
        found.node.extend(
            [
                helper.make_node("Transpose", [said], ["rows"], perm=[0, 2, 1]),
                helper.make_node("Split", ["rows", "parts"], ["centred", "probabilities"], axis=2),
                helper.make_node("MatMul", ["centred", "corners"], ["pixels"]),
                helper.make_node("Mul", ["pixels", "scale"], ["boxes"]),
            ]
        )
        del found.output[:]
        kinds = {"boxes": 4, "probabilities": len(job["labels"])}
        found.output.extend(helper.make_tensor_value_info(one, 1, ["N", "M", size]) for one, size in kinds.items())
        outputs = {one: one for one in kinds}
    onnx.save(graph, folder / "model.onnx")
    (folder / "manifest.json").write_text(json.dumps({"outputs": outputs}))


def main(folder: Path) -> None:
    job = json.loads((folder / "job.json").read_text())
    target = folder / "ultralytics"
    export(train(lay_out(folder, job, target), job, target), job, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
