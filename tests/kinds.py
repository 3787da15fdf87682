"""A project and a model of every kind of task: small graphs whose answers are easy to foresee."""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from worlds import LABELS, SIDE, packaged

from services.contracts.events import ProjectUpdated
from services.contracts.ids import sha256
from services.contracts.inputs import InputSpec, TabularColumn
from services.contracts.manifest import ModelManifest, OutputSpec
from services.contracts.tasks import answer_of, kind_of
from services.runtime.ports import Blobs

AB = [TabularColumn(name="a"), TabularColumn(name="b")]
SPECS = {
    "image": InputSpec.image(SIDE, SIDE, 1),
    "tabular": InputSpec.tabular(AB),
    "text": InputSpec.text(64),
    "series": InputSpec.series(3, AB),
}
STEEP = 20.0
QUARTERS = np.array([[0, 0, 0.5, 0.5], [0.5, 0, 0.5, 0.5], [0, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]], np.float32)


async def project(blobs: Blobs, task: str, name: str = "default", revision: int = 1, **more: Any) -> ProjectUpdated:
    """The event that says that a project of this task is there; its extractor gives the input itself."""
    document: dict[str, Any] = {
        "name": name,
        "task": task,
        "labels": LABELS,
        "input": SPECS[kind_of(task)].model_dump(mode="json"),
        "revision": revision,
        "extractor": {k: v.model_dump() for k, v in (await packaged(blobs, name, *extractor(task))).items()},
        **more,
    }
    return ProjectUpdated(project=name, revision=revision, document=document)


def extractor(task: str) -> tuple[bytes, ModelManifest]:
    """The input, flat."""
    spec = SPECS[kind_of(task)]
    nodes = [helper.make_node("Flatten", [spec.name], ["embedding"])]
    return _made(task, nodes, {}, {"embedding": ["N", int(np.prod(spec.sample_shape))]}, labels=())


def model(task: str, **more: Any) -> tuple[bytes, ModelManifest]:
    """Classification: which half of the numbers is greater. Multi-label: whether any of the numbers is below 0.3
    ("dark"), above 0.7 ("bright"). Detection, of a picture: those of its quarters that are so on average."""
    return {"classification": _classifier, "multi-label": _labeller, "detection": _detector}[answer_of(task)](
        task, **more
    )


def _classifier(task: str, **more: Any) -> tuple[bytes, ModelManifest]:
    size = int(np.prod(SPECS[kind_of(task)].sample_shape))
    signs = np.where(np.arange(size) < size // 2, 1.0, -1.0) * STEEP / size
    nodes = [
        helper.make_node("Flatten", [SPECS[kind_of(task)].name], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    weights = {"weights": np.stack([signs, -signs], axis=1).astype(np.float32)}
    return _made(task, nodes, weights, {"probabilities": ["N", 2]}, **more)


def _labeller(task: str, **more: Any) -> tuple[bytes, ModelManifest]:
    nodes = [
        helper.make_node("Flatten", [SPECS[kind_of(task)].name], ["flat"]),
        helper.make_node("ReduceMin", ["flat"], ["least"], axes=[1], keepdims=1),
        helper.make_node("ReduceMax", ["flat"], ["most"], axes=[1], keepdims=1),
        helper.make_node("Concat", ["least", "most"], ["ends"], axis=1),
        *_steps("ends", more.pop("raw", False)),
    ]
    return _made(task, nodes, _steepness(), {"probabilities": ["N", 2]}, **more)


def _detector(task: str, pixels: bool = False, raw: bool = False, **more: Any) -> tuple[bytes, ModelManifest]:
    nodes = [
        helper.make_node("AveragePool", ["input"], ["means"], kernel_shape=[SIDE // 2] * 2, strides=[SIDE // 2] * 2),
        helper.make_node("Reshape", ["means", "places"], ["shades"]),
        helper.make_node("Concat", ["shades", "shades"], ["twice"], axis=2),
        *_steps("twice", raw),
        helper.make_node("Mul", ["shades", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "quarters"], ["boxes"]),
    ]
    constants = {
        **_steepness(),
        "places": np.array([-1, 4, 1], np.int64),
        "zero": np.zeros(1, np.float32),
        "quarters": QUARTERS[None] * (32 if pixels else 1),
    }
    return _made(task, nodes, constants, {"probabilities": ["N", 4, 2], "boxes": ["N", 4, 4]}, **more)


def _steps(shades: str, raw: bool) -> list[onnx.NodeProto]:
    """Of (..., 2): whether the first is dark and the second is bright, each for itself."""
    nodes = [helper.make_node("Sub", [shades, "edges"], ["beyond"])]
    if raw:
        return [*nodes, helper.make_node("Mul", ["beyond", "steepness"], ["probabilities"])]
    nodes.append(helper.make_node("Mul", ["beyond", "steepness"], ["logits"]))
    return [*nodes, helper.make_node("Sigmoid", ["logits"], ["probabilities"])]


def _steepness() -> dict[str, np.ndarray]:
    return {"edges": np.array([0.3, 0.7], np.float32), "steepness": np.array([-STEEP, STEEP], np.float32)}


def _made(
    task: str, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], shapes: dict[str, list[Any]], **more: Any
) -> tuple[bytes, ModelManifest]:
    spec, float_ = SPECS[kind_of(task)], TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(spec.name, float_, ["N", *spec.sample_shape])],
        [helper.make_tensor_value_info(name, float_, shape) for name, shape in shapes.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(made, full_check=True)
    content = made.SerializeToString(deterministic=True)
    manifest: dict[str, Any] = {
        "task": task,
        "labels": LABELS,
        "input": spec,
        "outputs": OutputSpec(**{name: name for name in shapes}),
        "opset": 17,
        "sha256": sha256(content),
    }
    return content, ModelManifest.model_validate({**manifest, **more})
