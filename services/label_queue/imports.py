"""Labels made elsewhere -> accepted tasks, for training, for the evaluation set, or as gold."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import orjson

from services.contracts.events import Content, TaskSkipped
from services.contracts.ids import sample_id, sha256, task_id
from services.contracts.preprocessing import UnreadableSample, decode
from services.contracts.problem import Problem, invalid
from services.contracts.projects import ProjectDocument
from services.label_queue import facts, leases
from services.label_queue.consensus import canonical
from services.label_queue.interchange.label import Incoming
from services.label_queue.schemas import Schema
from services.label_queue.store import Tasks, parsed, task_key
from services.label_queue.tasks import Split, State, Task
from services.runtime import tracing
from services.runtime.service import transact
from services.runtime.unit import Unit

TOGETHER = 200  # labels in one transaction
WRITERS = 16  # blobs written at a time
SPLITS: dict[str, Split] = {"train": "train", "evaluation": "evaluation", "gold": "gold"}
SAMPLE_ID = re.compile(r"smp_[a-z2-7]{26}")


@dataclass(frozen=True)
class Draft:
    """A label that may be imported; `raw` is the content to store, none if it is stored already."""

    sample: str
    value: Any
    content: Content
    raw: bytes | None
    split: Split


class Imports:
    """Writes tasks that are accepted from the start."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._service = tasks.service

    async def take(
        self, document: ProjectDocument, schema: Schema, split: Split | None, rows: Iterator[Incoming | Problem]
    ) -> AsyncIterator[list[dict[str, Any]]]:
        """One result a row, in order and some at a time; a bad row costs itself alone.

        Without `split` each row goes where it says, else to training.
        """
        book = await self._tasks.book(document.name)
        number = 0
        while part := await asyncio.to_thread(lambda: list(islice(rows, TOGETHER))):
            limit = asyncio.Semaphore(WRITERS)
            drafts = await asyncio.gather(*(self._drafted(document, schema, split, row, limit) for row in part))
            numbered = list(enumerate(drafts, start=number))
            good = [(at, draft) for at, draft in numbered if isinstance(draft, Draft)]
            results = await self._accept(document.name, schema, good) if good else {}
            results |= {at: _refused(at, draft) for at, draft in numbered if isinstance(draft, Problem)}
            await self._tasks.reread(book, [task_id(document.name, draft.sample) for _, draft in good])
            yield [results[at] for at, _ in numbered]
            number += len(part)

    async def _drafted(
        self,
        document: ProjectDocument,
        schema: Schema,
        split: Split | None,
        row: Incoming | Problem,
        limit: asyncio.Semaphore,
    ) -> Draft | Problem:
        if isinstance(row, Problem):
            return row
        async with limit:
            try:
                draft = _draft(document.name, row, split)
                draft = replace(draft, value=schema.read(draft.value))
                if draft.raw is not None:
                    await asyncio.to_thread(_readable, draft, document)
                    uri = await self._service.blobs.put(draft.content.uri, draft.raw)
                    return replace(draft, content=draft.content.model_copy(update={"uri": uri}), raw=None)
                return draft
            except Problem as problem:
                return problem

    async def _accept(
        self, project: str, schema: Schema, part: Sequence[tuple[int, Draft]]
    ) -> dict[int, dict[str, Any]]:
        traces = tracing.apart(len(part))

        async def work(unit: Unit) -> dict[int, dict[str, Any]]:
            await unit.get_many(task_key(task_id(project, draft.sample)) for _, draft in part)
            told = zip(part, traces, strict=True)
            return {at: await self._one(project, schema, at, (draft, trace), unit) for (at, draft), trace in told}

        return await transact(self._service, work)

    async def _one(
        self, project: str, schema: Schema, number: int, given: tuple[Draft, str | None], unit: Unit
    ) -> dict[str, Any]:
        """One row, in the trace that its sample is in already, else in one of its own."""
        draft, trace = given
        now, split = self._service.clock.now(), draft.split
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
        before = unit.origin(key)
        self._tasks.put(task, unit, before if before.trace else replace(before, trace=trace))
        if split != "gold":
            unit.emit(facts.accepted(task), guard=key)
        elif known and known.is_open:
            unit.emit(facts.told(TaskSkipped, task, reason="gold"), guard=key)
        return _done(number, 201, task)


def _draft(project: str, row: Incoming, split: Split | None) -> Draft:
    part = split or SPLITS.get(row.split or "train")
    if part is None:
        raise invalid("/split", "unknown", f"A split is one of {', '.join(SPLITS)}, not {row.split!r:.100}.")
    if row.content is not None:
        if not SAMPLE_ID.fullmatch(row.sample_id or ""):
            raise invalid("/sample_id", "pattern", f"{row.sample_id!r:.100} is no sample's id.")
        if not _own_blob(row.content.uri, project):
            raise invalid("/content/uri", "foreign", "This uri names no content of this project.")
        return Draft(row.sample_id or "", row.value, row.content, None, part)
    raw, kind = _content(row)
    digest = sha256(raw)
    sample = sample_id(project, row.key or digest)
    name = f"samples/{project}/{digest[:2]}/{digest}"
    if row.key:  # equal content under another name is another sample, and is erased by itself
        name = f"{name}.{sample.removeprefix('smp_')}"
    content = Content(uri=name, sha256=digest, bytes=len(raw), media_type=kind)
    return Draft(sample, row.value, content, raw, part)


def _content(row: Incoming) -> tuple[bytes, str]:
    if row.row is not None:
        return orjson.dumps(row.row, option=orjson.OPT_SORT_KEYS), "application/json"
    return row.raw or b"", (row.media_type or "").split(";")[0].strip().lower()


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
