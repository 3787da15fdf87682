"""A trainer of one's own, for the backend `command`.

    HALFSURE_RETRAIN_TRIGGER_COMMAND="python /path/to/train.py"     it is called with the job's folder

Reads FOLDER/job.json, trains, and leaves model.onnx and manifest.json in FOLDER. It is written the way a PyTorch script
is (a network, batches, epochs, a step, an export), with numpy in torch's place so that nothing has to be installed:
`Net` would be an nn.Module, `step` loss.backward() and optimizer.step(), and `export` torch.onnx.export with
dynamic_axes={"input": {0: "N"}, "probabilities": {0: "N"}}.
"""

import io
import json
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

EPOCHS, BATCH, RATE, HIDDEN = 60, 16, 0.05, 32


def load(folder: Path, samples: list[dict], spec: dict, labels: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """(N, C * H * W) pixels scaled as halfsure scales them when it serves the model, and (N,) classes."""
    mode = {1: "L", 3: "RGB"}[spec["channels"]]
    rows = []
    for sample in samples:
        picture = Image.open(io.BytesIO((folder / sample["path"]).read_bytes())).convert(mode)
        pixels = np.asarray(picture.resize((spec["width"], spec["height"])), np.float32) * spec["scale"]
        rows.append(pixels.reshape(spec["height"], spec["width"], -1).transpose(2, 0, 1).ravel())
    return np.stack(rows), np.array([labels.index(sample["label"]) for sample in samples])


class Net:
    """Two layers."""

    def __init__(self, inputs: int, classes: int, rng: np.random.Generator) -> None:
        self.w1 = rng.normal(0, np.sqrt(2 / inputs), (inputs, HIDDEN)).astype(np.float32)
        self.b1 = np.zeros(HIDDEN, np.float32)
        self.w2 = rng.normal(0, np.sqrt(2 / HIDDEN), (HIDDEN, classes)).astype(np.float32)
        self.b2 = np.zeros(classes, np.float32)

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        hidden = np.maximum(x @ self.w1 + self.b1, 0)
        logits = hidden @ self.w2 + self.b2
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return hidden, odds / odds.sum(axis=1, keepdims=True)

    def step(self, x: np.ndarray, y: np.ndarray) -> float:
        """One step of gradient descent on the cross entropy; the loss before it."""
        hidden, probabilities = self.forward(x)
        loss = -float(np.log(probabilities[np.arange(len(y)), y] + 1e-9).mean())
        gradient = probabilities.copy()
        gradient[np.arange(len(y)), y] -= 1
        gradient /= len(y)
        back = (gradient @ self.w2.T) * (hidden > 0)
        self.w2 -= RATE * hidden.T @ gradient
        self.b2 -= RATE * gradient.sum(axis=0)
        self.w1 -= RATE * x.T @ back
        self.b1 -= RATE * back.sum(axis=0)
        return loss


def export(net: Net, spec: dict, path: Path) -> None:
    """The network as ONNX, with an open batch size; the hidden layer is its embedding."""
    constants = {"w1": net.w1, "b1": net.b1, "w2": net.w2, "b2": net.b2}
    nodes = [
        helper.make_node("Flatten", [spec["name"]], ["flat"]),
        helper.make_node("Gemm", ["flat", "w1", "b1"], ["first"]),
        helper.make_node("Relu", ["first"], ["embedding"]),
        helper.make_node("Gemm", ["embedding", "w2", "b2"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    shape = ["N", spec["channels"], spec["height"], spec["width"]]
    outputs = {"probabilities": len(net.b2), "embedding": HIDDEN}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(spec["name"], TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size]) for name, size in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def main(folder: Path) -> None:
    job = json.loads((folder / "job.json").read_text())
    spec, labels = job["extractor"]["manifest"]["input"], job["labels"]
    x, y = load(folder, job["samples"], spec, labels)
    rng = np.random.default_rng(0)
    net = Net(x.shape[1], len(labels), rng)
    for epoch in range(EPOCHS):
        order = rng.permutation(len(y))
        losses = [net.step(x[part], y[part]) for part in np.array_split(order, max(1, len(y) // BATCH))]
        if epoch % 10 == 0:
            print(f"epoch {epoch}: loss {np.mean(losses):.4f}", flush=True)
    export(net, spec, folder / "model.onnx")
    manifest = {"outputs": {"probabilities": "probabilities", "embedding": "embedding"}}
    (folder / "manifest.json").write_text(json.dumps(manifest))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
