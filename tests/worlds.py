"""Small projects, pictures and models that several service tests share."""

import io
from datetime import UTC, datetime
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from services.contracts.events import Content, ProjectUpdated
from services.contracts.ids import sha256
from services.contracts.inputs import InputSpec, TabularColumn
from services.contracts.manifest import ModelManifest, OutputSpec
from services.retrain_trigger.extractors import image_extractor, tabular_extractor
from services.runtime.ports import Blobs

SIDE = 8
LABELS = ["dark", "bright"]
SPECS = {
    "image": InputSpec.image(SIDE, SIDE, 1),
    "tabular": InputSpec.tabular([TabularColumn(name="a"), TabularColumn(name="b")]),
}
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def png(shade: int, corner: int = 0) -> bytes:
    """An 8x8 grey picture; two shades, or two corners, are two pictures."""
    pixels = np.full((SIDE, SIDE), shade, np.uint8)
    pixels[0, 0] = corner
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


async def stored(blobs: Blobs, name: str, content: bytes, media_type: str) -> Content:
    uri = await blobs.put(name, content)
    return Content(uri=uri, sha256=sha256(content), bytes=len(content), media_type=media_type)


async def packaged(blobs: Blobs, project: str, content: bytes, manifest: ModelManifest) -> dict[str, Content]:
    """Artefact and manifest of a model, in the store."""
    artefact = await stored(blobs, f"models/{project}/{manifest.sha256}.onnx", content, "application/octet-stream")
    raw = manifest.model_dump_json().encode()
    described = await stored(blobs, f"models/{project}/{sha256(raw)}.json", raw, "application/json")
    return {"artefact": artefact, "manifest": described}


async def project(blobs: Blobs, name: str = "default", kind: str = "image", revision: int = 1) -> ProjectUpdated:
    """The event that says that a project is there, its extractor being in the store."""
    made = image_extractor(SIDE, SIDE, 1) if kind == "image" else tabular_extractor(SPECS["tabular"].columns)
    document: dict[str, Any] = {
        "name": name,
        "task": f"{kind}-classification",
        "labels": LABELS,
        "input": SPECS[kind].model_dump(mode="json"),
        "revision": revision,
        "extractor": {k: v.model_dump() for k, v in (await packaged(blobs, name, *made)).items()},
    }
    return ProjectUpdated(project=name, revision=revision, document=document)


def classifier(sharpness: float = 8.0, kind: str = "image", megabytes: int = 0) -> tuple[bytes, ModelManifest]:
    """A model that says how bright the input is; each sharpness is another model, of other bytes.

    With `megabytes` it has as much of weights that it is run through and that change no answer.
    """
    spec = SPECS[kind]
    size = int(np.prod(spec.sample_shape))
    weights = np.stack([np.full(size, -sharpness / size), np.full(size, sharpness / size)], axis=1)
    constants = {
        "weights": weights.astype(np.float32),
        "bias": np.array([sharpness / 2, -sharpness / 2], np.float32),
    }
    nodes = [
        helper.make_node("Flatten", [spec.name], ["embedding"]),
        helper.make_node("Gemm", ["embedding", "weights", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    if megabytes:
        rng = np.random.default_rng(round(sharpness * 1000))
        constants["ballast"] = rng.standard_normal((size, megabytes * 2**18 // size)).astype(np.float32)
        constants["nothing"] = np.zeros((megabytes * 2**18 // size, 2), np.float32)
        nodes[1].output[0] = "alone"
        nodes[2:2] = [
            helper.make_node("MatMul", ["embedding", "ballast"], ["wide"]),
            helper.make_node("MatMul", ["wide", "nothing"], ["none"]),
            helper.make_node("Add", ["alone", "none"], ["logits"]),
        ]
    float_ = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info(spec.name, float_, ["N", *spec.sample_shape])],
        [
            helper.make_tensor_value_info("probabilities", float_, ["N", 2]),
            helper.make_tensor_value_info("embedding", float_, ["N", size]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    content = model.SerializeToString(deterministic=True)
    manifest = {
        "task": f"{kind}-classification",
        "labels": LABELS,
        "input": spec,
        "outputs": OutputSpec(probabilities="probabilities", embedding="embedding"),
        "opset": 17,
        "sha256": sha256(content),
    }
    return content, ModelManifest.model_validate(manifest)
