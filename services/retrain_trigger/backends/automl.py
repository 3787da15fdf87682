"""What Azure's AutoML is told, and how what it makes becomes a model like every other. Nothing of Azure is imported.

It is told by MLTables of JSON lines (learn.microsoft.com: reference-automl-images-schema, how-to-mltable). It leaves an
ONNX file in its best child run (how-to-inference-onnx-automl-image-models): pictures go in as (N, 3, H, W), divided by
255 and normalised like those of ImageNet, and scores come out; tables go in by columns, and probabilities come out.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import orjson
from onnx import TensorProto, helper, numpy_helper

from services.contracts.ids import sha256
from services.contracts.inputs import InputSpec, TabularColumn
from services.contracts.manifest import ModelManifest, OutputSpec
from services.retrain_trigger.backends import BadOutcome, Work

LABEL = "label"
BEST_CHILD = "automl_best_child_run_id"  # a tag of the parent
IMAGE_MODEL, IMAGE_LABELS = "train_artifacts/model.onnx", "train_artifacts/labels.json"
TABLE_MODEL = "outputs/model.onnx"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ROWS, PROBABILITIES = "input", "probabilities"
LINES = """paths:
  - file: ./train.jsonl
transformations:
  - read_json_lines:
      encoding: utf8
      invalid_lines: error
      include_path_column: false
"""
PICTURES = """  - convert_column_types:
      - columns: image_url
        column_type: stream_info
"""


def is_image(work: Work) -> bool:
    return work.task.startswith("image-")


def table(work: Work, datastore: str, contents: Mapping[str, bytes]) -> dict[str, bytes]:
    """file name -> bytes of the MLTable of a run's training samples; `contents` by sample id, of rows only."""
    lines = []
    for row in work.snapshot.train:
        if is_image(work):
            place = row.content.uri.partition(":")[2]
            told: dict[str, Any] = {"image_url": f"azureml://datastores/{datastore}/paths/{place}"}
        else:
            told = orjson.loads(contents[row.sample_id])
        lines.append(orjson.dumps({**told, LABEL: row.label}))
    described = LINES + (PICTURES if is_image(work) else "")
    return {"train.jsonl": b"\n".join(lines) + b"\n", "MLTable": described.encode()}


def adopted(work: Work, content: bytes, listed: bytes | None) -> tuple[bytes, bytes]:
    """The ONNX bytes and the manifest of what a best child left. Raises BadOutcome for what is no such model."""
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's errors share no base class
        raise BadOutcome(f"what AutoML left is no ONNX file: {error}") from error
    if is_image(work):
        labels, spec = orjson.loads(listed or b"[]"), _pictured(model)
    else:
        labels, spec = sorted(work.snapshot.labels), _tabled(model, work.extractor.manifest.input)
    if sorted(labels) != sorted(work.snapshot.labels):
        raise BadOutcome(f"AutoML's classes are {', '.join(map(str, labels))}; a class without a label is none to it")
    made = model.SerializeToString(deterministic=True)
    manifest = ModelManifest(
        task=work.task,  # type: ignore[arg-type]
        labels=tuple(labels),
        input=spec,
        outputs=OutputSpec(probabilities=PROBABILITIES),
        opset=next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), 0),
        sha256=sha256(made),
    )
    return made, manifest.model_dump_json().encode()


def _pictured(model: Any) -> InputSpec:
    """The input of a picture model, whose scores are turned into probabilities in the graph."""
    graph = model.graph
    (given,), (scores, *_) = graph.input, graph.output
    sides = [one.dim_value for one in given.type.tensor_type.shape.dim]
    if len(sides) != 4 or sides[1] != 3 or not all(sides[2:]):
        raise BadOutcome(f"AutoML's model takes {sides}, not pictures (N, 3, H, W)")
    graph.node.append(helper.make_node("Softmax", [scores.name], [PROBABILITIES], axis=1))
    classes = scores.type.tensor_type.shape.dim[-1].dim_value or None
    _only_output(graph, classes)
    return InputSpec.image(sides[2], sides[3], 3, name=given.name, mean=MEAN, std=STD)


def _tabled(model: Any, spec: InputSpec) -> InputSpec:
    """One input of rows, as halfsure makes them, in the place of AutoML's one for each column."""
    graph = model.graph
    columns = {column.name: column for column in spec.columns}
    start, nodes = 0, []
    starts = {}
    for column in spec.columns:
        starts[column.name], start = start, start + column.width
    for given in graph.input:
        if (column := columns.get(given.name)) is None:
            raise BadOutcome(f"AutoML's model asks for a column {given.name!r} that the project does not have")
        kind = given.type.tensor_type.elem_type
        nodes += _column(graph, column, starts[given.name], kind)
    tables = [one for one in graph.output if len(one.type.tensor_type.shape.dim) == 2 and _is_float(one)]
    if len(tables) != 1:
        raise BadOutcome("AutoML's model has no output of one probability a class")
    nodes.append(helper.make_node("Cast", [tables[0].name], [PROBABILITIES], to=TensorProto.FLOAT))
    before, after = nodes[:-1], nodes[-1]
    kept = [*before, *graph.node, after]
    del graph.node[:], graph.input[:]
    graph.node.extend(kept)
    graph.input.append(helper.make_tensor_value_info(ROWS, TensorProto.FLOAT, ["N", *spec.sample_shape]))
    _only_output(graph, tables[0].type.tensor_type.shape.dim[1].dim_value or None)
    return spec.model_copy(update={"name": ROWS})


def _column(graph: Any, column: TabularColumn, start: int, kind: int) -> Sequence[Any]:
    """Nodes that take a column out of the rows and give it as AutoML's model wants it: its value, (N, 1)."""
    name = column.name

    def constant(suffix: str, values: Any, dtype: str) -> str:
        graph.initializer.append(numpy_helper.from_array(_array(values, dtype), f"halfsure/{name}/{suffix}"))
        return f"halfsure/{name}/{suffix}"

    cut = f"halfsure/{name}"
    places = constant("places", range(start, start + column.width), "int64")
    nodes = [helper.make_node("Gather", [ROWS, places], [cut], axis=1)]
    if column.kind == "category":
        if kind != TensorProto.STRING:
            raise BadOutcome(f"AutoML's model takes the category {name!r} as a number")
        nodes.append(helper.make_node("ArgMax", [cut], [f"{cut}/which"], axis=1, keepdims=1))
        words = constant("words", column.categories, "object")
        return [*nodes, helper.make_node("Gather", [words, f"{cut}/which"], [name], axis=0)]
    scale, mean = constant("scale", [column.scale], "float32"), constant("mean", [column.mean], "float32")
    nodes.append(helper.make_node("Mul", [cut, scale], [f"{cut}/scaled"]))
    nodes.append(helper.make_node("Add", [f"{cut}/scaled", mean], [f"{cut}/value"]))
    return [*nodes, helper.make_node("Cast", [f"{cut}/value"], [name], to=kind)]


def _array(values: Any, dtype: str) -> np.ndarray:
    return np.array([str(one) for one in values], dtype=object) if dtype == "object" else np.array(values, dtype=dtype)


def _only_output(graph: Any, classes: int | None) -> None:
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, ["N", classes or "C"]))


def _is_float(value: Any) -> bool:
    return value.type.tensor_type.elem_type in (TensorProto.FLOAT, TensorProto.DOUBLE)
