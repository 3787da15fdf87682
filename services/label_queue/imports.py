"""Labels made elsewhere: lines of NDJSON -> accepted tasks, for training, for the evaluation set, or as gold."""

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from services.contracts.events import Content, TaskSkipped
from services.contracts.ids import sample_id, sha256, task_id
from services.contracts.preprocessing import UnreadableSample, decode
from services.contracts.problem import Fault, Problem, invalid
from services.contracts.projects import ProjectDocument
from services.label_queue import facts, leases
from services.label_queue.consensus import canonical
from services.label_queue.schemas import Schema
from services.label_queue.store import Tasks, parsed, task_key
from services.label_queue.tasks import Split, State, Task
from services.runtime.http import read_json
from services.runtime.service import transact
from services.runtime.unit import Unit

LINES = 1000
TOGETHER = 200  # labels in one transaction
WRITERS = 16  # blobs written at a time

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Stored(BaseModel):
    """Content that is in the blob store already."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str = Field(min_length=1, max_length=1024)
    sha256: Sha256
    bytes: int = Field(ge=0)
    media_type: str = Field(min_length=1, max_length=100)


class Line(BaseModel):
    """A sample, as base64 data, as a row or as stored content of a known sample, and its label."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    value: Any
    data: str | None = None
    media_type: str | None = Field(default=None, max_length=100)
    row: dict[str, Any] | None = None
    content: Stored | None = None
    sample_id: str | None = Field(default=None, pattern=r"^smp_[a-z2-7]{26}$")
    key: str | None = Field(default=None, min_length=1, max_length=500)

    @model_validator(mode="after")
    def _one_content(self) -> Self:
        if sum(part is not None for part in (self.data, self.row, self.content)) != 1:
            raise ValueError("give exactly one of data, row and content")
        if (self.data is None) != (self.media_type is None):
            raise ValueError("media_type goes with data, and data with media_type")
        if (self.content is None) != (self.sample_id is None) or (self.content and self.key):
            raise ValueError("sample_id goes with content, and content with sample_id and no key")
        return self


@dataclass(frozen=True)
class Draft:
    """A line that may be imported; `raw` is the content to store, none if it is stored already."""

    sample: str
    value: Any
    content: Content
    raw: bytes | None


class Imports:
    """Writes tasks that are accepted from the start."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._service = tasks.service

    async def take(
        self, document: ProjectDocument, schema: Schema, split: Split, lines: Sequence[bytes]
    ) -> list[dict[str, Any]]:
        """One result a line; a bad line costs itself alone. Raises a 422 for too many lines."""
        if len(lines) > LINES:
            raise invalid("", "too-many", f"An import may have {LINES} lines, not {len(lines)}.")
        book = await self._tasks.book(document.name)
        limit = asyncio.Semaphore(WRITERS)
        drafts = await asyncio.gather(*(self._drafted(document, schema, line, limit) for line in lines))
        results: dict[int, dict[str, Any]] = {}
        good = [(number, draft) for number, draft in enumerate(drafts) if isinstance(draft, Draft)]
        for start in range(0, len(good), TOGETHER):
            part = good[start : start + TOGETHER]
            results |= await self._accept(document.name, schema, split, part)
        for number, draft in enumerate(drafts):
            if isinstance(draft, Problem):
                results[number] = _refused(number, draft)
        await self._tasks.reread(book, [task_id(document.name, draft.sample) for _, draft in good])
        return [results[number] for number in range(len(lines))]

    async def _drafted(
        self, document: ProjectDocument, schema: Schema, line: bytes, limit: asyncio.Semaphore
    ) -> Draft | Problem:
        async with limit:
            try:
                draft = _draft(document.name, _line(line))
                schema.check(draft.value)
                if draft.raw is not None:
                    await asyncio.to_thread(_readable, draft, document)
                    uri = await self._service.blobs.put(draft.content.uri, draft.raw)
                    return Draft(draft.sample, draft.value, draft.content.model_copy(update={"uri": uri}), None)
                return draft
            except Problem as problem:
                return problem

    async def _accept(
        self, project: str, schema: Schema, split: Split, part: Sequence[tuple[int, Draft]]
    ) -> dict[int, dict[str, Any]]:
        async def work(unit: Unit) -> dict[int, dict[str, Any]]:
            await unit.get_many(task_key(task_id(project, draft.sample)) for _, draft in part)
            return {number: await self._one(project, schema, split, number, draft, unit) for number, draft in part}

        return await transact(self._service, work)

    async def _one(
        self, project: str, schema: Schema, split: Split, number: int, draft: Draft, unit: Unit
    ) -> dict[str, Any]:
        now = self._service.clock.now()
        key = task_key(task_id(project, draft.sample))
        record = await unit.get(key)
        known = parsed(record) if record else None
        if known and known.withdrawn:
            return _refused(number, Problem(410, "withdrawn", "This sample is withdrawn; nobody may use it."))
        if known and known.state == State.ACCEPTED:
            same = known.split == split and canonical(known.value) == canonical(draft.value)
            taken = Problem(409, "has-a-label", "This sample has another label or split already; retract that first.")
            return _done(number, 200, known) if same else _refused(number, taken)
        task = leases.imported(known, project, draft.sample, draft.content, draft.value, split, schema.version, now)
        self._tasks.put(task, unit)
        if split != "gold":
            unit.emit(facts.accepted(task), guard=key)
        elif known and known.is_open:
            unit.emit(facts.told(TaskSkipped, task, reason="gold"), guard=key)
        return _done(number, 201, task)


def _line(raw: bytes) -> Line:
    try:
        return Line.model_validate(read_json(raw))
    except ValidationError as error:
        faults = [
            Fault(pointer="/" + "/".join(map(str, e["loc"])), code=e["type"], message=e["msg"]) for e in error.errors()
        ]
        detail = "; ".join(f"{fault.pointer}: {fault.message}" for fault in faults[:5])
        raise Problem(422, "invalid", detail, errors=faults) from error


def _draft(project: str, line: Line) -> Draft:
    if line.content is not None and line.sample_id is not None:
        if not _own_blob(line.content.uri, project):
            raise invalid("/content/uri", "foreign", "This uri names no content of this project.")
        return Draft(line.sample_id, line.value, Content(**line.content.model_dump()), None)
    raw, kind = _content(line)
    digest = sha256(raw)
    sample = sample_id(project, line.key or digest)
    name = f"samples/{project}/{digest[:2]}/{digest}"
    if line.key:  # equal content under another name is another sample, and is erased by itself
        name = f"{name}.{sample.removeprefix('smp_')}"
    return Draft(sample, line.value, Content(uri=name, sha256=digest, bytes=len(raw), media_type=kind), raw)


def _content(line: Line) -> tuple[bytes, str]:
    if line.row is not None:
        return orjson.dumps(line.row, option=orjson.OPT_SORT_KEYS), "application/json"
    try:
        return base64.b64decode(line.data or "", validate=True), (line.media_type or "").split(";")[0].strip().lower()
    except ValueError as error:
        raise invalid("/data", "base64", f"data is not base64: {error}.") from error


def _readable(draft: Draft, document: ProjectDocument) -> None:
    try:
        decode(draft.raw or b"", draft.content.media_type, document.input)
    except UnreadableSample as error:
        raise invalid("/data", "unreadable", f"This can never be a sample of this project: {error}.") from error


def _own_blob(uri: str, project: str) -> bool:
    scheme, _, name = uri.partition(":")
    parts = name.split("/")
    clean = scheme.isalpha() and name.isprintable() and "\\" not in name
    clean = clean and all(part not in ("", ".", "..") for part in parts)
    return clean and len(parts) > 2 and parts[0] in ("samples", "uploads") and parts[1] == project


def _done(number: int, status: int, task: Task) -> dict[str, Any]:
    return {
        "line": number,
        "status": status,
        "sample_id": task.sample_id,
        "task_id": task.id,
        "label_revision": task.label_revision,
        "split": task.split,
    }


def _refused(number: int, problem: Problem) -> dict[str, Any]:
    errors = [fault.model_dump() for fault in problem.errors]
    return {
        "line": number,
        "status": problem.status,
        "problem": {"code": problem.code, "detail": problem.detail, "errors": errors},
    }
