"""What a sample must be to be let in: forms, media types, hashes, times and identity. Pure."""

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Annotated, Any, Self, TypeVar

import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from services.contracts.envelope import NO_ORIGIN, Origin
from services.contracts.events import Trigger
from services.contracts.ids import sample_id, sha256
from services.contracts.inputs import InputSpec
from services.contracts.manifest import Sha256
from services.contracts.preprocessing import FORMATS, UnreadableSample, decode
from services.contracts.problem import Fault, Problem, invalid
from services.runtime import strict_json

ROW_TYPE, TEXT_TYPE = "application/json", "text/plain"
KINDS = {"tabular": "rows", "series": "points and windows", "text": "texts"}
UNTYPED = ("", "application/octet-stream")
MAX_ATTRIBUTES = 16 << 10
"""Bytes of a sample's attributes as JSON: they travel in events."""
HEADER = "x-halfsure-"

MAGIC: dict[str, tuple[tuple[int, bytes], ...]] = {
    "image/png": ((0, b"\x89PNG\r\n\x1a\n"),),
    "image/jpeg": ((0, b"\xff\xd8\xff"),),
    "image/webp": ((0, b"RIFF"), (8, b"WEBP")),
    "image/bmp": ((0, b"BM"),),
    "image/gif": ((0, b"GIF8"),),
    "image/tiff": ((0, b"II*\x00"),),
}
BIG_ENDIAN_TIFF = b"MM\x00*"

Tag = Annotated[str, Field(min_length=1, max_length=64)]
M = TypeVar("M", bound="Meta")


class Meta(BaseModel):
    """What a sender may say about a sample, beside its content."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    stream_id: str | None = Field(default=None, min_length=1, max_length=256)
    device_id: str | None = Field(default=None, min_length=1, max_length=128, description="where it was made")
    sequence: int | None = Field(default=None, ge=0, le=2**63 - 1)
    captured_at: AwareDatetime | None = None
    tags: list[Tag] = Field(default_factory=list, max_length=32)
    attributes: dict[str, Any] = Field(default_factory=dict)
    key: str | None = Field(default=None, min_length=1, max_length=512, description="a table row's own key")
    trigger: Trigger = "policy"
    sha256: Sha256 | None = Field(default=None, description="of the content, to be checked")

    @model_validator(mode="after")
    def _sequence_has_a_stream(self) -> Self:
        if self.sequence is not None and self.stream_id is None:
            raise ValueError("a sequence number belongs to a stream_id")
        return self


class Claim(BaseModel):
    """Content that is in the blob store already."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str = Field(min_length=1, max_length=1024)
    sha256: Sha256
    bytes: int | None = Field(default=None, ge=0)
    media_type: str = ""


class Inline(Meta):
    """The JSON form: a row, a text, base64 data, or a claim on stored content; exactly one of them."""

    row: dict[str, Any] | None = None
    text: str | None = None
    data: str | None = None
    media_type: str | None = None
    content: Claim | None = None

    @model_validator(mode="after")
    def _one_content(self) -> Self:
        if sum(part is not None for part in (self.row, self.text, self.data, self.content)) != 1:
            raise ValueError("give exactly one of row, text, data and content")
        if self.media_type is not None and self.data is None:
            raise ValueError("media_type goes with data")
        return self


@dataclass(frozen=True)
class Draft:
    """A sample that may be stored: its content, what is said of it, and who it is."""

    sample_id: str
    content: bytes
    media_type: str
    sha256: str
    captured_at: datetime
    meta: Meta
    own_name: bool  # whether its identity is not its content, so that its blob is not shared
    source: str | None = None
    request_id: str = ""
    origin: Origin = NO_ORIGIN
    row: Mapping[str, Any] | None = None  # of a point of a stream, until its window is whole

    @property
    def is_point(self) -> bool:
        """Whether it is not a sample yet, but the last part of one."""
        return self.row is not None


@dataclass(frozen=True)
class Gate:
    """The rules of one project at one moment."""

    project: str
    siteid: str
    spec: InputSpec
    now: datetime
    ahead: timedelta = timedelta(minutes=5)

    def draft(self, content: bytes, media_type: str, meta: Meta, source: str | None = None) -> Draft:
        """The sample that this would be. Raises Problem 415 or 422; does not decode it yet."""
        captured_at = meta.captured_at or self.now
        if captured_at > self.now + self.ahead:
            raise invalid("/captured_at", "in-the-future", f"captured_at {captured_at.isoformat()} is in the future.")
        if not finite(meta.attributes):
            raise invalid("/attributes", "not-finite", "attributes hold a number that is not finite.")
        if len(orjson.dumps(meta.attributes)) > MAX_ATTRIBUTES:
            raise invalid("/attributes", "too-long", f"attributes may have {MAX_ATTRIBUTES} bytes at most.")
        kind = accepted(media_type, content, self.spec)
        digest = sha256(content)
        if meta.sha256 and meta.sha256 != digest:
            raise invalid("/sha256", "mismatch", f"The content's sha256 is {digest}, not {meta.sha256}.")
        if meta.key is not None and self.spec.kind != "tabular":
            raise invalid("/key", "no-table", "Only a table's row has a key of its own.")
        key = identity(meta, digest, self.siteid)
        return Draft(
            sample_id=sample_id(self.project, key),
            content=content,
            media_type=kind,
            sha256=digest,
            captured_at=captured_at,
            meta=meta,
            own_name=key != digest,
            source=source,
        )

    def inline(self, form: Inline) -> Draft:
        """The draft of a row or of base64 data. Raises Problem."""
        if form.row is not None:
            if not finite(form.row):
                raise invalid("/row", "not-finite", "The row holds a number that is not finite.")
            row = self.draft(canonical(form.row), ROW_TYPE, form)
            return self._point(row, form.row) if self.spec.kind == "series" else row
        if form.text is not None:
            return self.draft(form.text.encode(), TEXT_TYPE, form)
        try:
            content = base64.b64decode(form.data or "", validate=True)
        except ValueError as error:
            raise invalid("/data", "base64", f"data is not base64: {error}.") from error
        return self.draft(content, form.media_type or "", form)

    def _point(self, draft: Draft, row: Mapping[str, Any]) -> Draft:
        """Raises a 422 problem where it does not say of which stream it is, and where in it."""
        if draft.meta.sequence is None:
            detail = "A point needs stream_id and sequence, the number of the point in its stream."
            raise invalid("/sequence", "missing", detail)
        return replace(draft, row=row)

    def payload(self, content: bytes, fields: Mapping[str, Any]) -> Draft:
        """The draft of bytes that come without a word on their type: a row as JSON, a text or an image. `fields` are
        those of Meta. Raises Problem."""
        if self.spec.media_type != ROW_TYPE:
            return self.draft(content, "", parsed(Meta, fields))
        try:
            row = strict_json.loads(content)
        except strict_json.Unsound as error:
            raise Problem(422, "json", f"The row cannot be read: {error}.") from error
        return self.inline(parsed(Inline, {**fields, "row": row}))

    def claimed(self, claim: Claim, content: bytes, meta: Meta) -> Draft:
        """The draft of content that was in the store already. Raises Problem."""
        digest = sha256(content)
        if claim.sha256 != digest:
            raise invalid("/content/sha256", "mismatch", f"The content's sha256 is {digest}, not {claim.sha256}.")
        if claim.bytes is not None and claim.bytes != len(content):
            raise invalid("/content/bytes", "mismatch", f"The content has {len(content)} bytes, not {claim.bytes}.")
        return self.draft(content, claim.media_type, meta, source=claim.uri)


def identity(meta: Meta, digest: str, siteid: str) -> str:
    """A point of a stream is itself, a row with a key is its key, anything else is its content."""
    if meta.stream_id is not None and meta.sequence is not None:
        return f"{siteid}/{meta.stream_id}/{meta.sequence}"
    return meta.key if meta.key is not None else digest


def blob_name(project: str, draft: Draft) -> str:
    """Equal content shares a blob only where it is one sample, so that erasing one never erases another."""
    name = f"samples/{project}/{draft.sha256[:2]}/{draft.sha256}"
    return f"{name}.{draft.sample_id.removeprefix('smp_')}" if draft.own_name else name


def own_blob(uri: str, project: str) -> bool:
    """Whether the uri names content of this project in this store: nothing foreign, nobody else's."""
    scheme, _, name = uri.partition(":")
    parts = name.split("/")
    clean = scheme.isalpha() and name.isprintable() and "\\" not in name
    clean = clean and all(part not in ("", ".", "..") for part in parts)
    return clean and len(parts) > 2 and parts[0] in ("samples", "uploads") and parts[1] == project


def unfit(draft: Draft, spec: InputSpec) -> Problem | None:
    """Why the project's models could never read the sample, if so."""
    reader = InputSpec.tabular(spec.columns) if draft.is_point else spec
    try:
        decode(draft.content, draft.media_type, reader)
    except UnreadableSample as error:
        pointer = "/row" if reader.kind == "tabular" else "/content"
        return invalid(pointer, "unreadable", f"This can never be a sample of this project: {error}.")
    return None


def accepted(media_type: str, content: bytes, spec: InputSpec) -> str:
    """The media type, checked against the project's kind and the magic bytes. Raises a 415 problem."""
    kind = media_type.split(";")[0].strip().lower()
    if spec.media_type is not None:
        if kind not in (spec.media_type, *UNTYPED):
            raise Problem(415, "media-type", f"This project takes {KINDS[spec.kind]} ({spec.media_type}), not {kind}.")
        return spec.media_type
    found = sniffed(content)
    if kind in UNTYPED:
        if found is None:
            raise Problem(415, "media-type", f"Name the media type; this project takes {', '.join(FORMATS)}.")
        return found
    kind = "image/jpeg" if kind == "image/jpg" else kind
    if kind not in FORMATS:
        raise Problem(415, "media-type", f"This project takes {', '.join(FORMATS)}, not {kind}.")
    if content and found != kind:
        raise Problem(415, "magic-bytes", f"The content says {found or 'nothing known'}, its media type {kind}.")
    return kind


def sniffed(content: bytes) -> str | None:
    """The image type by its first bytes."""
    if content.startswith(BIG_ENDIAN_TIFF):
        return "image/tiff"
    for kind, marks in MAGIC.items():
        if all(content[at : at + len(mark)] == mark for at, mark in marks):
            return kind
    return None


def canonical(row: Any) -> bytes:
    """The bytes of a row or a window: sorted keys, no spaces; equal rows are equal bytes. Raises a 422 problem."""
    try:
        return orjson.dumps(row, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        raise invalid("/row", "json", f"The row cannot be kept as JSON: {error}.") from error


def finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Mapping):
        return all(map(finite, value.values()))
    return all(map(finite, value)) if isinstance(value, list) else True


def parsed(kind: type[M], raw: Any) -> M:
    """Raises a 422 problem that points at every fault."""
    if not isinstance(raw, Mapping):
        raise invalid("", "object", "This must be a JSON object.")
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        faults = [
            Fault(pointer="".join(f"/{part}" for part in fault["loc"]), code=fault["type"], message=fault["msg"])
            for fault in error.errors()
        ]
        what = "; ".join(f"{fault.pointer}: {fault.message}" for fault in faults[:5])
        raise Problem(422, "invalid", what, errors=faults) from error


def from_headers(headers: Mapping[str, str]) -> dict[str, Any]:
    """The X-Halfsure-* headers as the fields of `Meta`; raises a 422 problem where one is no JSON."""
    fields: dict[str, Any] = {}
    names = {"stream": "stream_id", "device": "device_id", "attributes": "attributes", "tags": "tags"}
    for header, value in headers.items():
        if not header.lower().startswith(HEADER):
            continue
        short = header.lower().removeprefix(HEADER)
        name = names.get(short, short.replace("-", "_"))
        if name == "attributes":
            fields[name] = _json_header(header, value)
        elif name == "tags":
            fields[name] = [tag.strip() for tag in value.split(",") if tag.strip()]
        else:
            fields[name] = value
    return fields


def _json_header(header: str, value: str) -> Any:
    try:
        return strict_json.loads(value.encode())
    except strict_json.Unsound as error:
        raise invalid(f"/{header}", "json", f"{header} cannot be read: {error}.") from error


def with_request(draft: Draft, request_id: str, trace: str | None) -> Draft:
    return replace(draft, request_id=request_id, origin=Origin(trace, draft.meta.device_id))
