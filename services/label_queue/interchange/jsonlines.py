"""JSON lines coming in: our own export, or samples with their labels in full. Pure."""

import base64
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from services.contracts.events import Content
from services.contracts.problem import Fault, Problem, invalid
from services.label_queue.interchange.label import Bundle, Incoming, Read, stored
from services.runtime.http import read_json

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
SampleId = Annotated[str, Field(pattern=r"^smp_[a-z2-7]{26}$")]


class Stored(BaseModel):
    """Content that is in the blob store already."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str = Field(min_length=1, max_length=1024)
    sha256: Sha256
    bytes: int = Field(ge=0)
    media_type: str = Field(min_length=1, max_length=100)


class Line(BaseModel):
    """A sample, as base64 data, a row, a window's points, a text, or stored content of a known one, and its label."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    value: Any
    data: str | None = None
    media_type: str | None = Field(default=None, max_length=100)
    row: dict[str, Any] | None = None
    points: list[dict[str, Any]] | None = None
    text: str | None = None
    content: Stored | None = None
    sample_id: SampleId | None = None
    key: str | None = Field(default=None, min_length=1, max_length=500)
    split: Literal["train", "evaluation", "gold"] | None = None

    @model_validator(mode="after")
    def _one_content(self) -> Self:
        if sum(part is not None for part in (self.data, self.row, self.points, self.text, self.content)) != 1:
            raise ValueError("give exactly one of data, row, points, text and content")
        if (self.data is None) != (self.media_type is None):
            raise ValueError("media_type goes with data, and data with media_type")
        if (self.content is None) != (self.sample_id is None) or (self.content and self.key):
            raise ValueError("sample_id goes with content, and content with sample_id and no key")
        return self


def read_json_lines(bundle: Bundle) -> Read:
    """A line that is not like that costs itself alone."""
    for raw in bundle.document.split(b"\n"):
        if raw.strip():
            try:
                yield _incoming(read_json(raw))
            except Problem as problem:
                yield problem


def _incoming(row: Any) -> Incoming:
    if isinstance(row, dict) and "task_id" in row and (content := stored(row)):
        return Incoming(row.get("value"), content=content, sample_id=str(row.get("sample_id")), split=row.get("split"))
    line = _line(row)
    content = Content(**line.content.model_dump()) if line.content else None
    try:
        raw = None if line.data is None else base64.b64decode(line.data, validate=True)
    except ValueError as error:
        raise invalid("/data", "base64", f"data is not base64: {error}.") from error
    media_type, rows = line.media_type, line.row if line.points is None else line.points
    if line.text is not None:
        raw, media_type = line.text.encode(), "text/plain"
    return Incoming(line.value, content, line.sample_id, raw, media_type, rows, line.key, line.split)


def _line(row: Any) -> Line:
    try:
        return Line.model_validate(row)
    except ValidationError as error:
        faults = [
            Fault(pointer="/" + "/".join(map(str, e["loc"])), code=e["type"], message=e["msg"]) for e in error.errors()
        ]
        detail = "; ".join(f"{fault.pointer}: {fault.message}" for fault in faults[:5])
        raise Problem(422, "invalid", detail, errors=faults) from error
