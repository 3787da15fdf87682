"""The model manifest: what a model takes, what it gives, and the hash of the bytes that do it."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from services.contracts.inputs import InputSpec, Name
from services.contracts.tasks import Answer, Task, answer_of, kind_of

OLDEST_OPSET = 7
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class OutputSpec(_Frozen):
    """Names of the outputs: probabilities, embedding (N, D), margin (N,), boxes (N, M, 4), ood (N,); one of the first
    two at least.

    Classification and multi-label: probabilities (N, C), of one label and of each for itself. Detection: of M places
    in the picture, boxes as x, y, width and height in fractions of it, and probabilities (N, M, C) of the labels,
    the rest of 1 being that there is nothing. `ood`: how foreign a sample is to what the model was trained on, 0..1.
    """

    probabilities: Name | None = None
    embedding: Name | None = None
    margin: Name | None = None
    boxes: Name | None = None
    ood: Name | None = None

    @model_validator(mode="after")
    def _gives_something(self) -> Self:
        if self.probabilities is None and self.embedding is None:
            raise ValueError("a model gives probabilities, or an embedding, or both")
        if self.probabilities is None and (self.margin is not None or self.boxes is not None):
            raise ValueError("a margin, or boxes, go with probabilities, which this model does not give")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The outputs' names that are there, probabilities first."""
        every = (self.probabilities, self.embedding, self.margin, self.boxes, self.ood)
        return tuple(name for name in every if name is not None)


class Thresholds(_Frozen):
    """From which probability a label or a box is said, and how much boxes of a label may overlap (IoU)."""

    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.5
    overlap: Annotated[float, Field(gt=0, le=1)] = 0.5


class ModelManifest(_Frozen):
    """What goes with a model's bytes; an extractor has no labels and no probabilities.

    The bytes are an ONNX file, or with the backend `http` an `endpoints.Endpoint`: which server scores.
    """

    format_version: Literal[1] = 1
    backend: Literal["onnx", "http"] = "onnx"
    task: Task
    labels: tuple[Name, ...] = ()
    input: InputSpec
    outputs: OutputSpec
    thresholds: Thresholds = Thresholds()
    opset: Annotated[int, Field(ge=0, le=64)] = 0
    sha256: Sha256
    version: str | None = None
    metrics: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        if kind_of(self.task) != self.input.kind:
            raise ValueError(f"task {self.task} does not take a {self.input.kind} input")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("a label is listed twice")
        if self.outputs.probabilities is None and self.labels:
            raise ValueError("labels are listed, but no output gives their probabilities")
        if self.outputs.probabilities is not None and len(self.labels) < self.fewest_labels:
            raise ValueError(f"a model for {self.task} has at least {self.fewest_labels} label(s)")
        if not self.is_extractor and (self.answer == "detection") != (self.outputs.boxes is not None):
            raise ValueError("a detector, and no other model, gives boxes")
        if self.outputs.margin is not None and self.answer != "classification":
            raise ValueError("a margin is between two labels, of which only a classifier says one")
        return self

    @model_validator(mode="after")
    def _fits_its_backend(self) -> Self:
        if self.backend == "onnx":
            if self.opset < OLDEST_OPSET:
                raise ValueError(f"an ONNX model says its opset, {OLDEST_OPSET} or newer")
            return self
        named = {role: name for role, name in self.outputs.model_dump().items() if name is not None}
        if self.is_extractor or self.outputs.margin is not None:
            raise ValueError("a model that is scored over HTTP gives probabilities, and no margin")
        if wrong := sorted(name for role, name in named.items() if role != name):
            raise ValueError(f"over HTTP an output has the name of what it is, not {', '.join(wrong)}")
        return self

    @property
    def answer(self) -> Answer:
        """What it answers with."""
        return answer_of(self.task)

    @property
    def fewest_labels(self) -> int:
        """A classifier chooses between labels; the others say of each whether it is there."""
        return 2 if self.answer == "classification" else 1

    @property
    def is_extractor(self) -> bool:
        """Whether it gives embeddings only."""
        return self.outputs.probabilities is None
