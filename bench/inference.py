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
from services.infer.batching import Piece, predictions
from services.infer.model import OnnxModel

SIDE, CLASSES, BATCH = 8, 10, 64
CONV_SIDE, CONV_BATCH, CHANNELS = 96, 32, 32
SECONDS = 0.5  # for each measurement


def rates() -> dict[str, float]:
    """Samples/s of a logistic regression on 8x8 pictures, in batches of 64."""
    content, manifest = _model()
    model = OnnxModel.load(content, manifest)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names, source = list(manifest.outputs.names), manifest.input.name
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (BATCH, SIDE, SIDE), dtype=np.uint8)
    pieces = [Piece(_png(picture), "image/png") for picture in pictures]
    tensors = (pictures[:, None] / np.float32(255)).astype(np.float32)
    measured: dict[str, Callable[[], Any]] = {
        "onnxruntime, tensors in batches": lambda: session.run(names, {source: tensors}),
        "model, tensors in batches": lambda: model.predict(tensors),
        "model, tensors one by one": lambda: [model.predict(tensors[at : at + 1]) for at in range(BATCH)],
        "service, pictures in batches": lambda: predictions(model, manifest, pieces, BATCH),
        "service, pictures one by one": lambda: [predictions(model, manifest, [piece], BATCH) for piece in pieces],
    }
    return {name: _rate(work) for name, work in measured.items()}


def conv_rates() -> dict[str, float]:
    """Samples/s of a small convolutional network on 96x96 pictures, in batches of 32."""
    content, manifest = _conv()
    model = OnnxModel.load(content, manifest)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names, source = list(manifest.outputs.names), manifest.input.name
    pictures = np.random.default_rng(0).integers(0, 256, (CONV_BATCH, CONV_SIDE, CONV_SIDE), dtype=np.uint8)
    pieces = [Piece(_png(picture), "image/png") for picture in pictures]
    tensors = (pictures[:, None] / np.float32(255)).astype(np.float32)
    measured: dict[str, Callable[[], Any]] = {
        "onnxruntime, tensors in batches": lambda: session.run(names, {source: tensors}),
        "model, tensors in batches": lambda: model.predict(tensors),
        "service, pictures in batches": lambda: predictions(model, manifest, pieces, CONV_BATCH),
    }
    return {name: _rate(work, CONV_BATCH) for name, work in measured.items()}


def _rate(work: Callable[[], Any], batch: int = BATCH) -> float:
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
