"""An extractor and a fitted head -> one ONNX graph: probabilities (N, C), embedding (N, D), margin and ood (N,)."""

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from services.contracts.manifest import ModelManifest, OutputSpec
from services.retrain_trigger.domain import Known
from services.retrain_trigger.heads import Head
from services.retrain_trigger.multi_label import MultiLabelHead

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression


def merged(
    extractor: bytes,
    manifest: ModelManifest,
    head: Head | MultiLabelHead,
    labels: tuple[str, ...],
    known: Known | None = None,
) -> tuple[bytes, ModelManifest]:
    """The model's bytes and manifest; a classifier's `classes_` are indices into `labels`.

    A class without training samples gets probability 0. The margin is p1 - p2 of the two best classes, taken in the
    graph (TopK and Sub), so that serving needs no pass over the probabilities; so is how foreign a sample is to what
    is `known`.
    """
    base = onnx.load_from_string(extractor)
    embedding = manifest.outputs.embedding or ""
    base = compose.add_prefix(base, "x_", rename_inputs=False, rename_outputs=False)
    shapes: dict[str, list[str | int]] = {"probabilities": ["N", len(labels)], embedding: ["N", _size(base, embedding)]}
    if isinstance(head, MultiLabelHead):
        joined = base
        _add_sigmoids(joined.graph, embedding, head)
    else:
        joined = compose.merge_models(
            base, _head(head.model, base, manifest.opset), io_map=[(embedding, "features")], outputs=["h_probabilities"]
        )
        _finish(joined.graph, head.model.classes_, len(labels))
        shapes["margin"] = ["N"]
    if known is not None:
        _add_distance(joined.graph, embedding, known, manifest.opset)
        shapes["ood"] = ["N"]
    _name_outputs(joined.graph, shapes)
    joined.producer_name = "halfsure"
    joined.producer_version, joined.graph.name, joined.graph.doc_string, joined.doc_string = "", "halfsure", "", ""
    onnx.checker.check_model(joined, full_check=True)
    content = joined.SerializeToString(deterministic=True)
    outputs = OutputSpec(embedding=embedding, **{name: name for name in shapes if name != embedding})
    return content, manifest.model_copy(
        update={"labels": labels, "outputs": outputs, "sha256": hashlib.sha256(content).hexdigest(), "metrics": {}}
    )


def _add_sigmoids(graph: onnx.GraphProto, embedding: str, head: MultiLabelHead) -> None:
    """Each label's probability for itself."""
    constants = {"label_weights": head.weights, "label_intercepts": head.intercepts}
    graph.initializer.extend(
        numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()
    )
    graph.node.extend(
        [
            helper.make_node("Gemm", [embedding, "label_weights", "label_intercepts"], ["label_logits"]),
            helper.make_node("Sigmoid", ["label_logits"], ["probabilities"]),
        ]
    )


def _add_distance(graph: onnx.GraphProto, embedding: str, known: Known, opset: int) -> None:
    """`domain.foreignness`: |q - t|^2 as |t|^2 - 2 q t + |q|^2, of the nearest t."""
    squares = (known.embeddings.astype(np.float64) ** 2).sum(axis=1)
    constants = {
        "known": known.embeddings.T,
        "known_squares": squares,
        "known_centre": known.centre,
        "known_scale": np.array(known.scale),
    }
    graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name) for name, value in constants.items()
    )
    # From opset 18 on, the axes are an input.
    axes: dict[str, Any] = {"axes": [1]} if opset < 18 else {}
    more = [] if axes else ["known_axis"]
    if more:
        graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "known_axis"))
    graph.node.extend(
        [
            helper.make_node("Sub", [embedding, "known_centre"], ["from_centre"]),
            helper.make_node("Gemm", ["from_centre", "known", "known_squares"], ["to_known"], alpha=-2.0),
            helper.make_node("ReduceMin", ["to_known", *more], ["to_nearest"], keepdims=0, **axes),
            helper.make_node("ReduceSumSquare", ["from_centre", *more], ["own_square"], keepdims=0, **axes),
            helper.make_node("Add", ["to_nearest", "own_square"], ["square"]),
            helper.make_node("Relu", ["square"], ["no_less_than_none"]),
            helper.make_node("Sqrt", ["no_less_than_none"], ["apart"]),
            helper.make_node("Add", ["apart", "known_scale"], ["apart_and_scale"]),
            helper.make_node("Div", ["apart", "apart_and_scale"], ["ood"]),
        ]
    )


def _head(head: "LogisticRegression", base: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The scikit-learn head as ONNX: features (N, D) -> h_probabilities (N, k)."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    converted = convert_sklearn(
        head,
        initial_types=[("features", FloatTensorType([None, head.coef_.shape[1]]))],
        target_opset={"": opset, "ai.onnx.ml": 3},
        options={id(head): {"zipmap": False}},
    )
    if not isinstance(converted, onnx.ModelProto):
        raise TypeError(f"skl2onnx gave {type(converted).__name__}, not a model")
    converted.ir_version = base.ir_version
    return compose.add_prefix(converted, "h_", rename_inputs=False)


def _size(model: onnx.ModelProto, output: str) -> int:
    """Width D of a two-dimensional output."""
    found = next(value for value in model.graph.output if value.name == output)
    return found.type.tensor_type.shape.dim[1].dim_value


def _finish(graph: onnx.GraphProto, classes: np.ndarray, count: int) -> None:
    """Spread the head's classes over all labels, and take the margin."""
    place = np.zeros((len(classes), count), np.float32)
    place[np.arange(len(classes)), classes] = 1.0
    graph.initializer.extend(
        [
            numpy_helper.from_array(place, "class_places"),
            numpy_helper.from_array(np.array([2], np.int64), "two"),
            numpy_helper.from_array(np.array([0], np.int64), "first"),
            numpy_helper.from_array(np.array([1], np.int64), "second"),
            numpy_helper.from_array(np.array([1], np.int64), "class_axis"),
        ]
    )
    graph.node.extend(
        [
            helper.make_node("MatMul", ["h_probabilities", "class_places"], ["probabilities"]),
            helper.make_node("TopK", ["probabilities", "two"], ["top_two", "top_places"], axis=1),
            helper.make_node("Slice", ["top_two", "first", "second", "class_axis"], ["best"]),
            helper.make_node("Slice", ["top_two", "second", "two", "class_axis"], ["next_best"]),
            helper.make_node("Sub", ["best", "next_best"], ["margin_column"]),
            helper.make_node("Squeeze", ["margin_column", "class_axis"], ["margin"]),
        ]
    )


def _name_outputs(graph: onnx.GraphProto, shapes: dict[str, list[str | int]]) -> None:
    del graph.output[:]
    graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items())
    for value in graph.input:
        value.type.tensor_type.shape.dim[0].dim_param = "N"
