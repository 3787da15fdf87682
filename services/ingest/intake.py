"""Storing samples: whoever arrives while a transaction runs shares the next one."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from services.contracts.events import Content, SampleIngested, SampleRejected
from services.ingest import index
from services.ingest.admission import Draft, blob_name
from services.ingest.settings import IngestSettings
from services.runtime.errors import Conflict, Unavailable
from services.runtime.service import Service
from services.runtime.unit import Unit

log = structlog.get_logger()

TRIES = 8


@dataclass(frozen=True)
class Outcome:
    """What became of a draft: its record, and whether this draft made it."""

    record: dict[str, Any]
    created: bool

    @property
    def gathering(self) -> bool:
        """Whether it is a point whose window lacks others, and so no sample yet."""
        return self.record["state"] == "GATHERING"

    @property
    def duplicate(self) -> bool:
        return not self.created and not self.gathering

    @property
    def status(self) -> int:
        """201 for a new sample, 202 where it or its window's other points wait, 200 for one that is known."""
        if self.gathering or (self.created and self.record["state"] == "BUFFERED"):
            return 202
        return 201 if self.created else 200


@dataclass
class Ticket:
    """One request's drafts, waiting for a transaction."""

    drafts: Sequence[Draft]
    answer: "asyncio.Future[list[Outcome]]"


@dataclass
class Lane:
    """A project's samples on their way in; and what its chain still has to be told after a conflict."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: list[Ticket] = field(default_factory=list)
    segment: int = 0
    headers: list[index.Header] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def take(self, most: int) -> list[Ticket]:
        """The tickets of the next transaction: `most` drafts, or one ticket that is larger."""
        taken = [self.waiting.pop(0)]
        size = len(taken[0].drafts)
        while self.waiting and size + len(self.waiting[0].drafts) <= most:
            size += len(self.waiting[0].drafts)
            taken.append(self.waiting.pop(0))
        return taken

    def count(self, name: str, change: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + change


class Intake:
    """The way in of all projects, and the writer of this replica's chain of the index."""

    def __init__(self, service: Service, settings: IngestSettings) -> None:
        self._service = service
        self._state = "STORED" if settings.buffer_bytes is None else "BUFFERED"
        self._group = settings.group
        self._lanes: dict[str, Lane] = {}

    async def admit(self, project: str, drafts: Sequence[Draft]) -> list[Outcome]:
        """An outcome for each draft, in order. Raises Retry when the store does not answer."""
        lane = self._lanes.setdefault(project, Lane())
        ticket = Ticket(drafts, asyncio.get_running_loop().create_future())
        lane.waiting.append(ticket)
        async with lane.lock:
            while not ticket.answer.done():
                await self._serve(project, lane, lane.take(self._group), ticket)
        return await ticket.answer

    async def count(self, project: str, changes: dict[str, int]) -> None:
        """Add to the durable counts."""
        lane = self._lanes.setdefault(project, Lane())
        async with lane.lock:
            for name, change in changes.items():
                lane.count(name, change)
            await self._write(project, lane, [])

    def chain(self) -> int:
        """The number of this replica's chain."""
        return self._service.outbox.slot

    async def _serve(self, project: str, lane: Lane, tickets: Sequence[Ticket], mine: Ticket) -> None:
        drafts = [draft for ticket in tickets for draft in ticket.drafts]
        try:
            outcomes = iter(await self._write(project, lane, drafts))
        except BaseException as error:
            for ticket in tickets:
                if ticket is not mine and not ticket.answer.done():
                    ticket.answer.set_exception(error if isinstance(error, Exception) else Unavailable())
            raise
        for ticket in tickets:
            answer = [next(outcomes) for _ in ticket.drafts]
            if not ticket.answer.done():
                ticket.answer.set_result(answer)

    async def _write(self, project: str, lane: Lane, drafts: Sequence[Draft]) -> list[Outcome]:
        """One transaction; after a conflict, another for what is missing."""
        outcomes: list[Outcome | None] = [None] * len(drafts)
        for attempt in range(TRIES):
            try:
                await self._attempt(project, lane, drafts, outcomes)
            except Conflict:
                await asyncio.sleep(0.005 * 2**attempt)
            done = [outcome for outcome in outcomes if outcome]
            if len(done) == len(drafts) and not lane.headers and not lane.counts:
                return done
        raise Conflict([index.head_key(project, self.chain())])

    async def _attempt(self, project: str, lane: Lane, drafts: Sequence[Draft], outcomes: list[Outcome | None]) -> None:
        unit = await self._service.unit()
        open_drafts = [at for at, outcome in enumerate(outcomes) if outcome is None]
        keys = {at: f"smp:{project}:{drafts[at].sample_id}" for at in open_drafts}
        head_key = index.head_key(project, self.chain())
        await unit.get_many([head_key, index.segment_key(project, self.chain(), lane.segment), *keys.values()])
        new, old = await self._sorted(unit, keys)
        uris = await self._blobs(project, [drafts[at] for at in new])
        records = {at: self._record(drafts[at], uri) for at, uri in zip(new, uris, strict=True)}
        for at, record in records.items():
            unit.put(keys[at], record, guard=True, origin=drafts[at].origin)
            unit.emit(_ingested(project, drafts[at], record), guard=keys[at])
        for at in old:
            unit.emit(_duplicate(project, drafts[at]), guard=head_key, origin=drafts[at].origin)
        headers = [*lane.headers, *(_header(drafts[at]) for at in new)]
        counts = dict(lane.counts)
        for name, change in (("STORED", len(new)), ("duplicates", len(old)), ("bytes", _bytes(drafts, new))):
            counts[name] = counts.get(name, 0) + change
        segment_key = await self._index(unit, project, lane, headers, counts)
        written = await unit.commit()
        # Some guards may have failed: whatever was written stays, and the lane remembers what was not.
        lane.headers = [] if segment_key in written or not headers else headers
        lane.counts = {} if head_key in written else counts
        for at, record in records.items():
            if keys[at] in written:
                outcomes[at] = Outcome(record, created=True)
            else:
                lane.count("STORED", -1)
                lane.count("bytes", -len(drafts[at].content))
                lane.headers = [row for row in lane.headers if row[0] != drafts[at].sample_id]
        if head_key in written:
            for at in old:
                outcomes[at] = Outcome(await unit.get(keys[at]) or {}, created=False)

    async def _sorted(self, unit: Unit, keys: dict[int, str]) -> tuple[list[int], list[int]]:
        """Positions of the drafts that are new, and of those that are known or come twice in this group."""
        known = set(await unit.get_many(keys.values()))
        new, old = [], []
        for at, key in keys.items():
            (old if key in known else new).append(at)
            known.add(key)
        return new, old

    async def _blobs(self, project: str, drafts: Sequence[Draft]) -> list[str]:
        names = [blob_name(project, draft) for draft in drafts]
        there = [(draft.source or "").partition(":")[2] == name for draft, name in zip(drafts, names, strict=True)]
        rows = list(zip(drafts, names, there, strict=True))
        put = iter(await self._service.blobs.put_all([(name, draft.content) for draft, name, is_ in rows if not is_]))
        return [draft.source or "" if is_ else next(put) for draft, _, is_ in rows]

    async def _index(
        self, unit: Unit, project: str, lane: Lane, headers: Sequence[index.Header], counts: dict[str, int]
    ) -> str | None:
        """Put the head, and the segment if it grows; returns the segment's key."""
        shard = self.chain()
        head_key = index.head_key(project, shard)
        head = await unit.get(head_key) or index.new_head()
        key = None
        if headers:
            lane.segment = head["segment"]
            key = index.segment_key(project, shard, lane.segment)
            rows = (await unit.get(key) or {"rows": []})["rows"]
            if len(rows) >= index.SEGMENT:
                lane.segment += 1
                head = {**head, "segment": lane.segment}
                key = index.segment_key(project, shard, lane.segment)
                rows = (await unit.get(key) or {"rows": []})["rows"]
            unit.put(key, {"rows": index.appended(rows, headers)}, guard=True)
        unit.put(head_key, index.counted(head, counts), guard=True)
        return key

    def _record(self, draft: Draft, uri: str) -> dict[str, Any]:
        meta = draft.meta
        return {
            "sample_id": draft.sample_id,
            "state": self._state,
            "content": Content(
                uri=uri, sha256=draft.sha256, bytes=len(draft.content), media_type=draft.media_type
            ).model_dump(),
            "captured_at": draft.captured_at.isoformat(),
            "stored_at": self._service.clock.now().isoformat(),
            "stream_id": meta.stream_id,
            "sequence": meta.sequence,
            "device_id": meta.device_id,
            "attributes": meta.attributes,
            "tags": meta.tags,
            "trigger": meta.trigger,
            "source": draft.source,
            "shard": self.chain(),
        }


def _header(draft: Draft) -> index.Header:
    return [draft.sample_id, draft.captured_at.timestamp(), draft.meta.stream_id, draft.meta.tags]


def _bytes(drafts: Sequence[Draft], positions: Sequence[int]) -> int:
    return sum(len(drafts[at].content) for at in positions)


def _ingested(project: str, draft: Draft, record: dict[str, Any]) -> SampleIngested:
    return SampleIngested(
        project=project,
        sample_id=draft.sample_id,
        content=record["content"],
        captured_at=draft.captured_at,
        stream_id=draft.meta.stream_id,
        sequence=draft.meta.sequence,
        attributes=draft.meta.attributes,
        tags=draft.meta.tags,
        trigger=draft.meta.trigger,
    )


def _duplicate(project: str, draft: Draft) -> SampleRejected:
    return SampleRejected(
        project=project, request_id=draft.request_id, reason="duplicate", of_sample_id=draft.sample_id
    )
