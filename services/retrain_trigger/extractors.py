"""The bundled feature extractors, as ONNX graphs with fixed weights: the same bytes for the same arguments.

Images: the square root of oriented gradient energy, pooled on a grid with soft borders and normalised
(after HOG, Dalal and Triggs, CVPR 2005), beside coarse intensities. Tabular: the standardised row itself. Text: the
hashed counts themselves; projected at random to fewer values, as is usual, they teach a head much less. Series: of each
column its statistics, its shape and its spectrum.
"""

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from services.contracts.inputs import InputSpec, TabularColumn
from services.contracts.manifest import ModelManifest, OutputSpec
from services.contracts.tasks import Task, kind_of
from services.retrain_trigger import window_features

OPSET = 17
IR_VERSION = 9
ORIENTATIONS = 8
LUMA = (0.299, 0.587, 0.114)
EDGE_WEIGHT, SHADE_WEIGHT = 4.0, 2.0
"""Lengths of the two normalised parts of an embedding; they set how much a regularised head may use each."""
TEXT_SIZE = 4096
MOST_EXTREME = 1e4
"""Standardised values of a series are cut here, so that their squares stay far from the largest float32."""


def extractor(task: Task, spec: InputSpec) -> tuple[bytes, ModelManifest]:
    """The bundled extractor for a project's task and input. Raises ValueError where none fits."""
    if kind_of(task) != spec.kind:
        raise ValueError(f"the task {task} does not take a {spec.kind} input")
    if spec.kind != "image":
        content, manifest = {"tabular": _row, "text": _text, "series": _series}[spec.kind](spec, task)
        return content, manifest
    content, manifest = image_extractor(spec.height or 0, spec.width or 0, spec.channels or 1, task)
    if manifest.input != spec.model_copy(update={"name": manifest.input.name}):
        raise ValueError("the bundled image extractor takes NCHW pixels scaled by 1/255, without mean and std")
    return content, manifest


def image_extractor(
    height: int, width: int, channels: int, task: Task = "image-classification"
) -> tuple[bytes, ModelManifest]:
    """ONNX bytes and manifest: float32 (N, channels, height, width) in 0..1 -> embedding (N, D).

    D is 192 for grey images from 8 to 47 pixels a side. Sides below 8 are refused.
    """
    if min(height, width) < 8:
        raise ValueError(f"the bundled image extractor needs at least 8x8 pixels, not {height}x{width}")
    spec = InputSpec.image(height, width, channels)
    grid = 4 if min(height, width) < 48 else 8
    cells = (height // grid, width // grid)
    shades = (max(1, height // 8), max(1, width // 8))
    weights = [_constant("kernels", _oriented_kernels()), _constant("axes", np.array([1], np.int64))]
    weights += [_constant("tiny", np.array(1e-6, np.float32))]
    nodes, grey = [], spec.name
    if channels == 3:
        weights.append(_constant("luma", np.array(LUMA, np.float32).reshape(1, 3, 1, 1)))
        nodes.append(helper.make_node("Conv", [grey, "luma"], ["grey"]))
        grey = "grey"
    weights.append(_constant("frame", np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)))
    nodes += [
        helper.make_node("Pad", [grey, "frame"], ["framed"], mode="edge"),
        helper.make_node("Conv", ["framed", "kernels"], ["gradient"]),
        helper.make_node("Relu", ["gradient"], ["energy"]),
        _soft_pool("energy", "cells", cells),
        helper.make_node("Sqrt", ["cells"], ["cells_root"]),
        helper.make_node("AveragePool", [spec.name], ["shade"], kernel_shape=shades, strides=shades),
    ]
    for source, part, weight in (("cells_root", "edges", EDGE_WEIGHT), ("shade", "shades", SHADE_WEIGHT)):
        weights.append(_constant(f"{part}_weight", np.array(weight, np.float32)))
        nodes += _normalised(source, part)
    nodes.append(helper.make_node("Concat", ["edges", "shades"], ["embedding"], axis=1))
    size = ORIENTATIONS * (height // cells[0]) * (width // cells[1])
    size += channels * (height // shades[0]) * (width // shades[1])
    return _package(nodes, weights, spec, task, size)


def tabular_extractor(columns: Sequence[TabularColumn]) -> tuple[bytes, ModelManifest]:
    """ONNX bytes and manifest: the standardised, one-hot row (N, F) is its own embedding."""
    return _row(InputSpec.tabular(tuple(columns)), "tabular-classification")


def _row(spec: InputSpec, task: Task) -> tuple[bytes, ModelManifest]:
    nodes = [helper.make_node("Identity", [spec.name], ["embedding"])]
    return _package(nodes, [], spec, task, spec.sample_shape[0])


def _text(spec: InputSpec, task: Task) -> tuple[bytes, ModelManifest]:
    """Counts (N, F) -> embedding (N, min(F, TEXT_SIZE)): the counts, folded as if hashed into fewer places at once."""
    features = spec.sample_shape[0]
    if features <= TEXT_SIZE:
        return _row(spec, task)
    sizes = {"room": [0, 0, 0, -features % TEXT_SIZE], "folds": [0, -1, TEXT_SIZE], "fold_axis": [1]}
    weights = [_constant(name, np.array(value, np.int64)) for name, value in sizes.items()]
    nodes = [
        helper.make_node("Pad", [spec.name, "room"], ["filled"]),
        helper.make_node("Reshape", ["filled", "folds"], ["stacked"]),
        helper.make_node("ReduceSum", ["stacked", "fold_axis"], ["embedding"], keepdims=0),
    ]
    return _package(nodes, weights, spec, task, TEXT_SIZE)


def _series(spec: InputSpec, task: Task) -> tuple[bytes, ModelManifest]:
    """Windows (N, L, F) -> embedding (N, F * S): the S features of `window_features`, column by column."""
    length, columns = spec.sample_shape
    nodes, weights, size = window_features.graph(spec.name, length, MOST_EXTREME)
    nodes.append(helper.make_node("Flatten", ["features"], ["embedding"]))
    return _package(nodes, weights, spec, task, columns * size)


def _oriented_kernels() -> np.ndarray:
    """(8, 1, 3, 3) Sobel kernels at 45 degree steps; the rectifier behind them keeps the signs apart."""
    across = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], np.float64) / 8
    angles = [2 * math.pi * step / ORIENTATIONS for step in range(ORIENTATIONS)]
    return np.stack([across * math.cos(a) + across.T * math.sin(a) for a in angles])[:, None].astype(np.float32)


def _soft_pool(source: str, target: str, cells: tuple[int, int]) -> onnx.NodeProto:
    """Averages over windows of about twice the cell: a stroke on a border moves gently between cells."""
    half = [cell // 2 for cell in cells]
    kernel = [cell + 2 * rim for cell, rim in zip(cells, half, strict=True)]
    return helper.make_node(
        "AveragePool",
        [source],
        [target],
        kernel_shape=kernel,
        strides=cells,
        pads=half * 2,
        count_include_pad=1,
    )


def _normalised(source: str, part: str) -> list[onnx.NodeProto]:
    """part = weight * x / sqrt(sum x^2 + tiny), a blank image being zeros."""
    return [
        helper.make_node("Flatten", [source], [f"{part}_flat"]),
        helper.make_node("ReduceSumSquare", [f"{part}_flat"], [f"{part}_sum"], axes=[1], keepdims=1),
        helper.make_node("Add", [f"{part}_sum", "tiny"], [f"{part}_safe"]),
        helper.make_node("Sqrt", [f"{part}_safe"], [f"{part}_norm"]),
        helper.make_node("Div", [f"{part}_flat", f"{part}_norm"], [f"{part}_unit"]),
        helper.make_node("Mul", [f"{part}_unit", f"{part}_weight"], [part]),
    ]


def _constant(name: str, value: np.ndarray) -> TensorProto:
    return numpy_helper.from_array(value, name)


def _package(
    nodes: list[onnx.NodeProto], weights: list[TensorProto], spec: InputSpec, task: Task, size: int
) -> tuple[bytes, ModelManifest]:
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "halfsure-extractor",
        [helper.make_tensor_value_info(spec.name, TensorProto.FLOAT, ["N", *spec.sample_shape])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", size])],
        [weight for weight in weights if weight.name in used],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="halfsure"
    )
    onnx.checker.check_model(model, full_check=True)
    content = model.SerializeToString(deterministic=True)
    manifest = ModelManifest.model_validate(
        {
            "task": task,
            "input": spec,
            "outputs": OutputSpec(embedding="embedding"),
            "opset": OPSET,
            "sha256": hashlib.sha256(content).hexdigest(),
        }
    )
    return content, manifest
