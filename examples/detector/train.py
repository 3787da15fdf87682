"""A small detector, for the backend `command`: learnt templates that slide over a picture in several sizes.

    HALFSURE_RETRAIN_TRIGGER_COMMAND="python /path/to/train.py"     it is called with the job's folder

Reads FOLDER/job.json of a project for `image-detection` and leaves model.onnx and manifest.json in FOLDER. The features
are oriented gradients in cells of 4 pixels (after HOG, Dalal and Triggs, CVPR 2005), and frozen; learnt are a logistic
regression (nothing, or one of the labels) and a ridge regression of the box, on every window of 6 x 6 cells of three
sizes of the picture. As convolutions they and the features are one ONNX graph. numpy, scikit-learn, onnx and
onnxruntime are all that it needs.
"""

import io
import json
import math
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from sklearn.linear_model import LogisticRegression, Ridge
from threadpoolctl import threadpool_limits

CELL, WINDOW, ORIENTATIONS = 4, 6, 8
PARTS = (0.25, 0.375, 0.5)  # of the picture's side that a window covers, one for each size
SIDES = tuple(round(CELL * WINDOW / part) for part in PARTS)
SAME, OTHER = 0.5, 0.3  # overlap from which a window shows a thing, and up to which it shows nothing
NEGATIVES, ROUNDS = 30, 3  # windows of nothing for each picture at first; then the worst mistakes, round after round
C, ALPHA = 0.1, 1.0


def pictures(folder: Path, samples: list[dict], spec: dict) -> np.ndarray:
    """(N, C, H, W) pixels scaled as halfsure scales them when it serves the model."""
    mode = {1: "L", 3: "RGB"}[spec["channels"]]
    rows = []
    for sample in samples:
        picture = Image.open(io.BytesIO((folder / sample["path"]).read_bytes())).convert(mode)
        pixels = np.asarray(picture.resize((spec["width"], spec["height"])), np.float32) * spec["scale"]
        rows.append(pixels.reshape(spec["height"], spec["width"], -1).transpose(2, 0, 1))
    return np.stack(rows)


def anchors() -> list[np.ndarray]:
    """For each size (P, 4): x, y, width and height of its windows, in fractions of the picture, row by row."""
    found = []
    for part, side in zip(PARTS, SIDES, strict=True):
        steps = np.arange(side // CELL - WINDOW + 1) * CELL / side
        y, x = np.meshgrid(steps, steps, indexing="ij")
        found.append(np.stack([x.ravel(), y.ravel(), np.full(x.size, part), np.full(x.size, part)], axis=1))
    return found


class Graph:
    """The frozen features of a picture in each size, `cells_0` and so on; the heads are added when they are learnt."""

    def __init__(self, spec: dict) -> None:
        self.spec, self.nodes, self.constants = spec, [], {}
        across = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
        angles = [2 * math.pi * step / ORIENTATIONS for step in range(ORIENTATIONS)]
        self.constant("kernels", np.stack([across * math.cos(a) + across.T * math.sin(a) for a in angles])[:, None])
        self.constant("mix", np.full((1, spec["channels"], 1, 1), 1 / spec["channels"]))
        self.constant("tiny", np.array(1e-2))
        self.constant("frame", np.array([0, 0, 1, 1, 0, 0, 1, 1]), np.int64)
        self.node("Conv", [spec["name"], "mix"], "grey")
        for at, side in enumerate(SIDES):
            self.constant(f"size_{at}", np.array([1, 1, side, side]), np.int64)
            self.features(at)

    def features(self, at: int) -> None:
        """Gradient energy by direction in each cell, through that of the cells around it."""
        batch = f"batch_{at}"
        self.node("Shape", ["grey"], batch, start=0, end=1)
        self.constant(f"one_by_{at}", np.array([1, SIDES[at], SIDES[at]]), np.int64)
        self.node("Concat", [batch, f"one_by_{at}"], f"target_{at}", axis=0)
        self.node("Resize", ["grey", "", "", f"target_{at}"], f"sized_{at}", mode="linear")
        self.node("Pad", [f"sized_{at}", "frame"], f"framed_{at}", mode="edge")
        self.node("Conv", [f"framed_{at}", "kernels"], f"gradient_{at}")
        self.node("Relu", [f"gradient_{at}"], f"energy_{at}")
        self.node("AveragePool", [f"energy_{at}"], f"pooled_{at}", kernel_shape=[CELL] * 2, strides=[CELL] * 2)
        self.node("ReduceMean", [f"pooled_{at}"], f"sum_{at}", axes=[1], keepdims=1)
        self.node("AveragePool", [f"sum_{at}"], f"around_{at}", kernel_shape=[5, 5], pads=[2] * 4)
        self.node("Add", [f"around_{at}", "tiny"], f"safe_{at}")
        self.node("Div", [f"pooled_{at}", f"safe_{at}"], f"cells_{at}")

    def node(self, kind: str, inputs: list[str], output: str, **how: object) -> None:
        self.nodes.append(helper.make_node(kind, inputs, [output], **how))

    def constant(self, name: str, value: np.ndarray, dtype: type = np.float32) -> None:
        self.constants[name] = numpy_helper.from_array(np.asarray(value, dtype), name)

    def model(self, outputs: dict[str, list]) -> bytes:
        """ONNX with an open batch size."""
        shape = ["N", self.spec["channels"], self.spec["height"], self.spec["width"]]
        used = {name for node in self.nodes for name in node.input}
        graph = helper.make_graph(
            self.nodes,
            "detector",
            [helper.make_tensor_value_info(self.spec["name"], TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *rest]) for name, rest in outputs.items()],
            [value for name, value in self.constants.items() if name in used],
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.checker.check_model(made)
        return made.SerializeToString(deterministic=True)


def windows(graph: Graph, batch: np.ndarray) -> np.ndarray:
    """(N, P, F): the features in every window of every size, as a convolution sees them."""
    outputs = {f"cells_{at}": [ORIENTATIONS, side // CELL, side // CELL] for at, side in enumerate(SIDES)}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph.model(outputs), options, providers=["CPUExecutionProvider"])
    parts = []
    for cells in session.run(list(outputs), {graph.spec["name"]: batch}):
        seen = np.lib.stride_tricks.sliding_window_view(cells, (WINDOW, WINDOW), axis=(2, 3))
        parts.append(seen.transpose(0, 2, 3, 1, 4, 5).reshape(len(cells), -1, ORIENTATIONS * WINDOW * WINDOW))
    return np.concatenate(parts, axis=1)


def overlaps(windows: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(P, 4) and (B, 4) -> (P, B): intersection over union."""
    low = np.maximum(windows[:, None, :2], boxes[None, :, :2])
    high = np.minimum((windows[:, :2] + windows[:, 2:])[:, None], (boxes[:, :2] + boxes[:, 2:])[None])
    both = np.maximum(high - low, 0).prod(axis=2)
    return both / (windows[:, 2:].prod(axis=1)[:, None] + boxes[:, 2:].prod(axis=1)[None] - both)


def targets(samples: list[dict], labels: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Of every window (N, P): its class, 0 for nothing and -1 for neither; and (N, P, 4) how its box lies in it."""
    every = np.concatenate(anchors())
    classes = np.zeros((len(samples), len(every)), np.int64)
    shifts = np.zeros((len(samples), len(every), 4))
    for row, sample in enumerate(samples):
        boxes = sample["label"]["boxes"]
        if not boxes:
            continue
        sides = np.array([[box["x"], box["y"], box["width"], box["height"]] for box in boxes])
        shares = overlaps(every, sides)
        best, share = shares.argmax(axis=1), shares.max(axis=1)
        named = np.array([1 + labels.index(box["label"]) for box in boxes])
        classes[row] = np.where(share >= SAME, named[best], np.where(share <= OTHER, 0, -1))
        # A thing that no window fits well is shown by the one that fits best.
        classes[row, shares.argmax(axis=0)] = named
        chosen = sides[best]
        shifts[row, :, :2] = (chosen[:, :2] - every[:, :2]) / every[:, 2:]
        shifts[row, :, 2:] = np.log(chosen[:, 2:] / every[:, 2:])
    return classes, shifts


def learn(seen: np.ndarray, classes: np.ndarray, labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights (F, 1 + labels) and intercepts of what a window shows; mistakes about nothing are learnt from again."""
    rng = np.random.default_rng(0)
    shown = np.argwhere(classes > 0)
    empty = np.argwhere(classes == 0)
    if not len(shown):
        raise ValueError("no picture has a box: there is nothing to learn")
    chosen = empty[rng.permutation(len(empty))[: NEGATIVES * len(seen)]]
    for turn in range(ROUNDS):
        rows = np.concatenate([shown, chosen])
        x, y = seen[rows[:, 0], rows[:, 1]], classes[rows[:, 0], rows[:, 1]]
        model = LogisticRegression(C=C, max_iter=100).fit(x, y)
        weights, intercepts = np.zeros((seen.shape[2], 1 + labels)), np.full(1 + labels, -20.0)
        if len(model.classes_) == 2:  # one label: its logit is beside 0 for nothing
            weights[:, model.classes_[1]], intercepts[model.classes_] = model.coef_[0], [0.0, model.intercept_[0]]
        else:
            weights[:, model.classes_], intercepts[model.classes_] = model.coef_.T, model.intercept_
        logits = seen @ weights + intercepts
        wrong = np.where(classes == 0, logits[..., 1:].max(axis=2) - logits[..., 0], -np.inf)
        worst = np.argsort(-wrong, axis=None)[: NEGATIVES * len(seen) // 2]
        print(f"turn {turn}: {len(rows)} windows, {int((wrong > 0).sum())} of {len(empty)} empty ones taken for things")
        chosen = np.unique(np.concatenate([chosen, np.stack(np.unravel_index(worst, wrong.shape), axis=1)]), axis=0)
    return weights, intercepts


def add_heads(graph: Graph, heads: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """What is learnt, as convolutions over the cells: `logits` (N, P, 1 + labels) and `shifts` (N, P, 4)."""
    for name, (weights, intercepts) in heads.items():
        shape = (len(intercepts), ORIENTATIONS, WINDOW, WINDOW)
        graph.constant(f"{name}_weights", weights.T.reshape(shape))
        graph.constant(f"{name}_intercepts", intercepts)
        graph.constant(f"{name}_flat", np.array([0, len(intercepts), -1]), np.int64)
        for at in range(len(SIDES)):
            graph.node("Conv", [f"cells_{at}", f"{name}_weights", f"{name}_intercepts"], f"{name}_map_{at}")
            graph.node("Reshape", [f"{name}_map_{at}", f"{name}_flat"], f"{name}_row_{at}")
        graph.node("Concat", [f"{name}_row_{at}" for at in range(len(SIDES))], f"{name}_rows", axis=2)
        graph.node("Transpose", [f"{name}_rows"], name, perm=[0, 2, 1])


def export(graph: Graph, heads: dict[str, tuple[np.ndarray, np.ndarray]], labels: int) -> bytes:
    """Outputs: boxes (N, P, 4), probabilities (N, P, labels), embedding (N, D)."""
    add_heads(graph, heads)
    every = np.concatenate(anchors())
    for name, value in {"zero": [0], "one": [1], "two": [2], "four": [4], "end": [1 + labels]}.items():
        graph.constant(name, np.array(value), np.int64)
    graph.node("Softmax", ["logits"], "shares", axis=2)
    graph.node("Slice", ["shares", "one", "end", "two"], "probabilities")
    graph.constant("corners", every[:, :2])
    graph.constant("spans", every[:, 2:])
    graph.constant("least", np.array(-1.0))
    graph.constant("most", np.array(1.0))
    graph.node("Slice", ["shifts", "zero", "two", "two"], "moves")
    graph.node("Slice", ["shifts", "two", "four", "two"], "growths")
    graph.node("Mul", ["moves", "spans"], "moved")
    graph.node("Add", ["moved", "corners"], "places")
    graph.node("Clip", ["growths", "least", "most"], "bounded")
    graph.node("Exp", ["bounded"], "factors")
    graph.node("Mul", ["factors", "spans"], "extents")
    graph.node("Concat", ["places", "extents"], "boxes", axis=2)
    last = len(SIDES) - 1
    graph.node("AveragePool", [f"cells_{last}"], "coarse", kernel_shape=[3, 3], strides=[3, 3])
    graph.node("Flatten", ["coarse"], "embedding")
    size = ORIENTATIONS * (SIDES[last] // CELL // 3) ** 2
    return graph.model({"boxes": [len(every), 4], "probabilities": [len(every), labels], "embedding": [size]})


def main(folder: Path) -> None:
    job = json.loads((folder / "job.json").read_text())
    spec, labels, samples = job["extractor"]["manifest"]["input"], job["labels"], job["samples"]
    graph = Graph(spec)
    seen = windows(graph, pictures(folder, samples, spec))
    classes, shifts = targets(samples, labels)
    shown = classes > 0
    if not shown.any():
        error = {"code": "no-boxes", "message": f"none of the {len(samples)} pictures has a box"}
        (folder / "result.json").write_text(json.dumps({"error": error}))
        return
    things = learn(seen, classes, len(labels))
    ridge = Ridge(alpha=ALPHA).fit(seen[shown], shifts[shown])
    heads = {"logits": things, "shifts": (ridge.coef_.T, ridge.intercept_)}
    (folder / "model.onnx").write_bytes(export(graph, heads, len(labels)))
    outputs = {"probabilities": "probabilities", "boxes": "boxes", "embedding": "embedding"}
    (folder / "manifest.json").write_text(json.dumps({"outputs": outputs, "thresholds": {"overlap": 0.3}}))


if __name__ == "__main__":
    with threadpool_limits(1):  # the same sums, and so the same bytes, on every machine
        main(Path(sys.argv[1]))
