"""Models that somebody else's server runs: what their artefact says, what is posted, and what has to come back. Pure.

A request is `{"model": {"version", "task", "labels", "parameters"}, "inputs": [...]}`, each input as `POST /v1/predict`
of infer takes it; the answer is `{"predictions": [...]}`, a `Prediction` for each input, in their order.
"""

import base64
from collections.abc import Sequence
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field

from services.contracts.inputs import Name
from services.contracts.manifest import ModelManifest
from services.contracts.values import MAX_BOXES

Fraction = Annotated[float, Field(ge=0, le=1)]
Side = Annotated[float, Field(ge=-4, le=4)]  # of the picture; a box may be cut off at its edge
LARGEST_PARAMETERS = 16_384


class Endpoint(BaseModel):
    """The artefact of an `http` model: a server by the name that each site's infer knows it by, never an address.

    `parameters` go with every request, such as the model's name over there. `embedding` is the width of the embeddings
    that it gives, if it gives any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    server: Name
    parameters: dict[str, Any] = Field(default_factory=dict)
    embedding: Annotated[int, Field(ge=1, le=65_536)] | None = None


class Box(BaseModel):
    """A box that was found, in fractions of the picture from its upper left corner."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    label: str
    confidence: Fraction
    x: Side
    y: Side
    width: Side
    height: Side


class Prediction(BaseModel):
    """What a server says of one input: how probable each label is, or the boxes in it; or why it says nothing."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    probabilities: dict[str, Fraction] | None = None
    boxes: Annotated[list[Box], Field(max_length=10 * MAX_BOXES)] | None = None
    embedding: list[float] | None = None
    ood: Fraction | None = None
    error: Annotated[str, Field(min_length=1)] | None = None


class Answer(BaseModel):
    """A whole answer; its predictions are judged one by one, so that no one fails another."""

    model_config = ConfigDict(extra="ignore")

    predictions: list[Any]


def read(artefact: bytes, manifest: ModelManifest) -> Endpoint:
    """What the artefact says. Raises ValueError where it is no endpoint, or not the one that the manifest is of."""
    endpoint = Endpoint.model_validate_json(artefact)
    if (endpoint.embedding is None) != (manifest.outputs.embedding is None):
        raise ValueError("an embedding is in both the endpoint (its width) and the manifest's outputs, or in neither")
    if len(orjson.dumps(endpoint.parameters)) > LARGEST_PARAMETERS:
        raise ValueError(f"the endpoint's parameters have more than {LARGEST_PARAMETERS} bytes")
    return endpoint


def posted(manifest: ModelManifest, endpoint: Endpoint, contents: Sequence[tuple[bytes, str]]) -> bytes:
    """The request's body for contents and their media types, which have been found readable."""
    model = {
        "version": manifest.version,
        "task": manifest.task,
        "labels": manifest.labels,
        "parameters": endpoint.parameters,
    }
    return orjson.dumps({"model": model, "inputs": [_input(manifest, *content) for content in contents]})


def mismatch(said: Prediction, manifest: ModelManifest, endpoint: Endpoint) -> str | None:
    """How a prediction differs from what the manifest promises."""
    labels = set(manifest.labels)
    if manifest.answer == "detection":
        if said.boxes is None:
            return "it has no boxes"
        if strange := {box.label for box in said.boxes} - labels:
            return f"it has boxes of {', '.join(sorted(strange))}, which the manifest does not list"
    elif said.probabilities is None:
        return "it has no probabilities"
    elif said.probabilities.keys() != labels:
        return f"its probabilities are of {sorted(said.probabilities)}, the manifest's labels are {sorted(labels)}"
    if endpoint.embedding is not None and len(said.embedding or ()) != endpoint.embedding:
        return f"its embedding has {len(said.embedding or ())} values, not {endpoint.embedding}"
    if manifest.outputs.ood is not None and said.ood is None:
        return "it has no ood"
    return None


def _input(manifest: ModelManifest, content: bytes, media_type: str) -> dict[str, Any]:
    match manifest.input.kind:
        case "image":
            return {"data": base64.b64encode(content).decode(), "media_type": media_type}
        case "text":
            return {"text": content.decode()}
        case "tabular":
            return {"row": orjson.loads(content)}
        case "series":
            return {"points": orjson.loads(content)}
