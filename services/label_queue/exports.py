"""Labels on their way out: all that are accepted now, or those of a snapshot, in any of the formats."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson

from services.contracts.events import Content
from services.contracts.ids import task_id
from services.contracts.problem import Problem, not_found
from services.contracts.projects import ProjectDocument
from services.label_queue.interchange.label import Dataset, Format, Label
from services.label_queue.schemas import Schema
from services.label_queue.store import Tasks
from services.label_queue.tasks import State, Task

BULK = 500  # labels read and written at a time
READERS = 16  # contents read at a time
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class Cut(Exception):
    """What was asked for is not there any more; what was sent of it is no whole."""


class Exports:
    """Streams of bytes over the accepted tasks."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._service = tasks.service

    async def revision(self, project: str) -> tuple[str, int]:
        """What the accepted labels are named by as a whole, and how many there are; the same in every replica."""
        await self._tasks.refresh(project)
        book = await self._tasks.book(project)
        return f"{book.fingerprint:016x}", book.states[State.ACCEPTED]

    async def current(self, project: str, gold: bool, revision: str | None) -> AsyncIterator[list[Label]]:
        """Every accepted label by task id, a bulk at a time, those of gold samples only if wanted.

        Raises Cut if a `revision` is named and labels have changed meanwhile.
        """
        book = await self._tasks.book(project)
        after: str | None = None
        while True:
            names, more = book.page([State.ACCEPTED], after, BULK)
            tasks = [task for task in await self._tasks.many(names) if task.state == State.ACCEPTED and task.content]
            yield [_label(task) for task in tasks if gold or task.split != "gold"]
            if revision is not None and revision != f"{book.fingerprint:016x}":
                raise Cut(f"the labels are not at {revision} any more")
            if more is None:
                return
            after = more

    async def snapshot(self, project: str, name: str) -> tuple[list[Label], str]:
        """The labels as a training run has had them, and the snapshot's hash. Raises a 404 problem, or a 409."""
        try:
            known = await self._service.peers.get("retrain-trigger", f"v1/snapshots/{name}", {"project": project})
        except KeyError as error:
            raise not_found("snapshot", name) from error
        try:
            manifest = orjson.loads(await self._service.blobs.get(known["uri"]))
        except KeyError as error:
            raise Problem(409, "snapshot-gone", f"Snapshot {name} is known, but not in the store any more.") from error
        rows = [(row, split) for split in ("train", "evaluation") for row in manifest[split]]
        ids = [task_id(project, row["sample_id"]) for row, _ in rows]
        tasks: dict[str, Task] = {}
        for start in range(0, len(ids), BULK):
            tasks |= {task.sample_id: task for task in await self._tasks.many(ids[start : start + BULK])}
        gone = [row["sample_id"] for row, _ in rows if (found := tasks.get(row["sample_id"])) and found.withdrawn]
        if gone:
            raise Problem(409, "snapshot-gone", f"{len(gone)} samples of snapshot {name} are withdrawn since.")
        return [_of_row(row, split, tasks.get(row["sample_id"])) for row, split in rows], known["sha256"]

    async def write(
        self, form: Format, document: ProjectDocument, schema: Schema, parts: AsyncIterator[Sequence[Label]]
    ) -> AsyncIterator[bytes]:
        """The file, piece by piece."""
        writer = form.writer(Dataset(document.name, list(schema.labels), document.task))
        for piece in writer.begin():
            yield piece
        async for labels in parts:
            whole = await self._with_contents(labels) if form.opens(document.task) else labels
            for piece in writer.add(whole):
                yield piece
            await asyncio.sleep(0)
        for piece in writer.end():
            yield piece

    async def _with_contents(self, labels: Sequence[Label]) -> list[Label]:
        limit = asyncio.Semaphore(READERS)

        async def read(label: Label) -> Label:
            async with limit:
                try:
                    return replace(label, raw=await self._service.blobs.get(label.content.uri))
                except KeyError as error:
                    raise Cut(f"the content of {label.sample_id} is gone") from error

        return list(await asyncio.gather(*map(read, labels)))


async def in_bulks(labels: Sequence[Label]) -> AsyncIterator[Sequence[Label]]:
    for start in range(0, len(labels), BULK):
        yield labels[start : start + BULK]


def _label(task: Task) -> Label:
    assert task.content is not None
    facts: dict[str, Any] = {
        "sample_id": task.sample_id,
        "task_id": task.id,
        "value": task.value,
        "label_revision": task.label_revision,
        "split": task.split,
        "origin": task.origin,
        "agreement": task.agreement,
        "annotators": max(1, len(task.counted)),
        "schema_version": task.schema_version,
        "is_audit": task.is_audit,
        "trigger": task.trigger,
        "weight": task.weight,
        "model_version": task.model_version,
        "predicted": task.prelabel.answer if task.prelabel else None,
        **task.content.model_dump(),
        "accepted_at": task.changed_at.isoformat(),
    }
    confidence = task.prelabel.confidence if task.prelabel else None
    return Label(task.sample_id, task.value, task.content, task.split, facts, confidence)


def _of_row(row: dict[str, Any], split: str, task: Task | None) -> Label:
    """A snapshot's row; what it does not say of a label comes from the task as it is now."""
    content = Content.model_validate(row["content"])
    blank = task or Task(
        id="", project="", sample_id="", state=State.ACCEPTED, created_at=LONG_AGO, changed_at=LONG_AGO
    )
    now = _label(blank.model_copy(update={"content": content}))
    told = {"sample_id": row["sample_id"], "value": row["label"], "label_revision": row["revision"], "split": split}
    facts = {**now.facts, **told, "weight": row["weight"], **content.model_dump()}
    return Label(row["sample_id"], row["label"], content, split, facts, now.confidence)
