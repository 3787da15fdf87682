"""What a window of a series looks like, column by column, as ONNX nodes: statistics, shape and spectrum. Pure.

Of each column: mean, slope over the window, last value, means of up to SEGMENTS equal stretches, standard deviation,
least, most, root of the mean squared step, and the amplitude in up to BANDS octave-like bands of frequency.
"""

from itertools import pairwise

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SEGMENTS = 8
BANDS = 8


def linear(length: int) -> np.ndarray:
    """(L, 3 + segments): the weights of mean, slope, last value, and the stretches' means."""
    at = np.linspace(-1.0, 1.0, length) if length > 1 else np.zeros(1)
    slope = at / max(float(at @ at), 1e-12)
    last = np.zeros(length)
    last[-1] = 1.0
    stretches = [
        np.isin(np.arange(length), part) / len(part) for part in np.array_split(np.arange(length), _segments(length))
    ]
    return np.stack([np.full(length, 1.0 / length), slope, last, *stretches], axis=1)


def bands(length: int) -> np.ndarray:
    """(1 + L // 2, bands): which squared values of the one-sided Fourier transform make a band's mean energy.

    The bands widen upwards; a wave of a whole frequency has an energy of its amplitude squared.
    """
    count = length // 2
    edges = np.unique(np.round(np.geomspace(1, count + 1, BANDS + 1)).astype(int)) if count else np.array([1])
    frequencies = np.arange(1 + count)
    chosen = [(a <= frequencies) & (frequencies < b) for a, b in pairwise(edges.tolist())]
    return np.stack(chosen, axis=1) * (2.0 / length) ** 2


def graph(source: str, length: int, most: float) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto], int]:
    """Nodes and weights from windows (N, L, F), cut at +-`most`, to `features` (N, F, S); and S."""
    parts = ["lines", "deviation", "least", "most"]
    weights = [_constant("lowest", np.array(-most)), _constant("highest", np.array(most))]
    weights += [_constant("line_weights", linear(length))]
    nodes = [
        helper.make_node("Clip", [source, "lowest", "highest"], ["clipped"]),
        helper.make_node("Transpose", ["clipped"], ["columns"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["columns", "line_weights"], ["lines"]),
        helper.make_node("ReduceMean", ["columns"], ["level"], axes=[2], keepdims=1),
        helper.make_node("Sub", ["columns", "level"], ["swing"]),
        *_root_mean_square("swing", "deviation"),
        helper.make_node("ReduceMin", ["columns"], ["least"], axes=[2], keepdims=1),
        helper.make_node("ReduceMax", ["columns"], ["most"], axes=[2], keepdims=1),
    ]
    size = 3 + _segments(length) + 3
    if length > 1:
        numbers = {"first": [0], "second": [1], "before": [-1], "end": [length], "time": [2], "parts": [3]}
        weights += [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in numbers.items()]
        weights += [_constant("band_weights", bands(length))]
        nodes += [*_steps(), *_root_mean_square("steps", "step"), *_spectrum()]
        parts += ["step", "spectrum"]
        size += 1 + bands(length).shape[1]
    nodes.append(helper.make_node("Concat", parts, ["features"], axis=2))
    return nodes, weights, size


def _segments(length: int) -> int:
    return min(SEGMENTS, length)


def _steps() -> list[onnx.NodeProto]:
    """The difference of each point to the one before it."""
    return [
        helper.make_node("Slice", ["columns", "second", "end", "time"], ["later"]),
        helper.make_node("Slice", ["columns", "first", "before", "time"], ["earlier"]),
        helper.make_node("Sub", ["later", "earlier"], ["steps"]),
    ]


def _spectrum() -> list[onnx.NodeProto]:
    return [
        helper.make_node("Unsqueeze", ["swing", "parts"], ["signal"]),
        helper.make_node("DFT", ["signal"], ["waves"], axis=2, onesided=1),
        helper.make_node("ReduceSumSquare", ["waves"], ["power"], axes=[3], keepdims=0),
        helper.make_node("MatMul", ["power", "band_weights"], ["energy"]),
        helper.make_node("Sqrt", ["energy"], ["spectrum"]),
    ]


def _root_mean_square(source: str, target: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Mul", [source, source], [f"{target}_square"]),
        helper.make_node("ReduceMean", [f"{target}_square"], [f"{target}_mean"], axes=[2], keepdims=1),
        helper.make_node("Sqrt", [f"{target}_mean"], [target]),
    ]


def _constant(name: str, value: np.ndarray) -> TensorProto:
    return numpy_helper.from_array(np.asarray(value, np.float32), name)
