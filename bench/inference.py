"""What infer makes of a model: in batches, one by one, and onnxruntime itself on the same tensors."""

import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from services.contracts.ids import sha256
from services.contracts.inputs import InputSpec
from services.contracts.manifest import ModelManifest, OutputSpec
from services.infer.batching import Piece, gathered, predictions
from services.infer.model import OnnxModel
from services.infer.reading import Outputs

SIDE, CLASSES, BATCH = 8, 10, 64
CONV_SIDE, CONV_BATCH, CHANNELS = 96, 32, 32
SECONDS = 0.5  # for each measurement


def rates() -> dict[str, float]:
    """Samples/s of a logistic regression on 8x8 pictures, in batches of 64 and one by one."""
    bench = _Bench(*_model(), SIDE, BATCH)
    one_by_one = {
        "model, tensors one by one": bench.tensors_one_by_one,
        "service, pictures one by one": bench.pictures_one_by_one,
    }
    return bench.measured(one_by_one)


def conv_rates() -> dict[str, float]:
    """Samples/s of a small convolutional network on 96x96 pictures, in batches of 32."""
    return _Bench(*_conv(), CONV_SIDE, CONV_BATCH).measured()


class _Bench:
    """A model of grey pictures, a batch of them, and onnxruntime itself on the same thread."""

    def __init__(self, content: bytes, manifest: ModelManifest, side: int, batch: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self._model, self._manifest, self._batch = OnnxModel.load(content, manifest), manifest, batch
        pictures = np.random.default_rng(0).integers(0, 256, (batch, side, side), dtype=np.uint8)
        self._pieces = [Piece(_png(picture), "image/png") for picture in pictures]
        self._places = list(range(batch))
        self._tensors = (pictures[:, None] / np.float32(255)).astype(np.float32)

    def measured(self, more: dict[str, Callable[[], Any]] | None = None) -> dict[str, float]:
        """Samples/s by what is measured."""
        names, given = list(self._manifest.outputs.names), {self._manifest.input.name: self._tensors}
        works: dict[str, Callable[[], Any]] = {
            "onnxruntime, tensors in batches": lambda: self._session.run(names, given),
            "model, tensors in batches": lambda: self._model.predict(self._tensors),
            "scores, tensors in batches": lambda: gathered(self._manifest, [(self._places, self._predicted())], {}),
            "service, pictures in batches": lambda: predictions(self._model, self._manifest, self._pieces, self._batch),
            **(more or {}),
        }
        return {name: _rate(work, self._batch) for name, work in works.items()}

    def _predicted(self) -> Outputs:
        return self._model.predict(self._tensors)

    def tensors_one_by_one(self) -> None:
        for at in range(self._batch):
            self._model.predict(self._tensors[at : at + 1])

    def pictures_one_by_one(self) -> None:
        for piece in self._pieces:
            predictions(self._model, self._manifest, [piece], self._batch)


def _rate(work: Callable[[], Any], batch: int) -> float:
    """By this process's CPU clock, so that a busy machine does not matter much."""
    work()
    began, rounds = time.process_time(), 0
    while (used := time.process_time() - began) < SECONDS:
        work()
        rounds += 1
    return rounds * batch / used


def _png(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def _conv() -> tuple[bytes, ModelManifest]:
    spec, rng = InputSpec.image(CONV_SIDE, CONV_SIDE, 1), np.random.default_rng(2)
    shapes = {"first": (CHANNELS, 1, 3, 3), "second": (CHANNELS, CHANNELS, 3, 3), "weights": (CHANNELS, CLASSES)}
    constants = {name: (rng.normal(size=shape) / 10).astype(np.float32) for name, shape in shapes.items()}
    nodes = [
        helper.make_node("Conv", [spec.name, "first"], ["a"], kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "second"], ["c"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["embedding"]),
        helper.make_node("MatMul", ["embedding", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    return _packed(spec, nodes, constants, CHANNELS)


def _model() -> tuple[bytes, ModelManifest]:
    spec, size = InputSpec.image(SIDE, SIDE, 1), SIDE * SIDE
    weights = np.random.default_rng(1).normal(size=(size, CLASSES)).astype(np.float32)
    nodes = [
        helper.make_node("Flatten", [spec.name], ["embedding"]),
        helper.make_node("Gemm", ["embedding", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    return _packed(spec, nodes, {"weights": weights}, size)


def _packed(
    spec: InputSpec, nodes: list[Any], constants: dict[str, np.ndarray], size: int
) -> tuple[bytes, ModelManifest]:
    graph = helper.make_graph(
        nodes,
        "bench",
        [helper.make_tensor_value_info(spec.name, TensorProto.FLOAT, ["N", *spec.sample_shape])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", CLASSES]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", size]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(made, full_check=True)
    content = made.SerializeToString(deterministic=True)
    manifest = ModelManifest(
        task="image-classification",
        labels=tuple(str(label) for label in range(CLASSES)),
        input=spec,
        outputs=OutputSpec(probabilities="probabilities", embedding="embedding"),
        opset=17,
        sha256=sha256(content),
    )
    return content, manifest
