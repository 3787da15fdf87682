"""A source's way in: from what it reads to the admission that HTTP has too."""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from services.contracts.ids import digest, sha256
from services.contracts.problem import Problem
from services.ingest import admission
from services.ingest.admission import Draft, Gate, Inline
from services.ingest.intake import Outcome
from services.ingest.samples import Samples
from services.ingest.sources.config import Common
from services.ingest.sources.pacing import RateCap
from services.ingest.sources.status import Status
from services.runtime.errors import Retry
from services.runtime.projects import UnknownProject

log = structlog.get_logger()

ROOM = 256
"""Readings of a live source that may wait for the store; then the oldest are dropped and counted."""
TOGETHER = 100
AGAIN_SECONDS = 2.0


class Trouble(Exception):
    """The source cannot be read now; the message says why, without any secret."""


@dataclass(frozen=True)
class Reading:
    """What a source has read: content or a row, and what it knows about it."""

    content: bytes | None = None
    row: Mapping[str, Any] | None = None
    captured_at: datetime | None = None
    sequence: int | None = None
    key: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)


Asked = tuple[Reading, str | None]
"""A reading and the trigger that somebody wants it to have."""


@dataclass
class Waiting:
    """A live reading on its way, and whoever has asked for exactly this one."""

    reading: Reading
    asked: "asyncio.Future[Outcome | Problem] | None" = None


class Door:
    """What a kind of source works with. A live one asks `due` and then `offer`s, which never waits; one that loses
    nothing by waiting, as a folder, `take`s."""

    def __init__(self, samples: Samples, source: Common, status: Status, notes: Path, burst: float = 1.0) -> None:
        self.source = source
        self.status = status
        self.notes = notes  # where the source may note how far it has come
        self.max_bytes = samples.service.settings.max_body
        self._samples = samples
        self._cap = RateCap(source.rate, burst) if source.rate else None
        self._queue: deque[Waiting] = deque()
        self._filled = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._asked: deque[asyncio.Future[Outcome | Problem]] = deque()
        self.worked = False  # whether anything has come since the last connection began

    def now(self) -> datetime:
        return self._samples.service.clock.now()

    def connected(self) -> None:
        self.status.enter("connected", self.now())
        self.status.seen(self.now())

    def seen(self) -> None:
        """The source has given a sign of life."""
        self.worked = True
        self.status.seen(self.now())

    def refuse(self, reason: str, detail: str) -> None:
        """Count what could not even be read."""
        self.status.refuse(reason, detail, self.now())

    def past(self, seconds: float) -> datetime:
        """A unix time as one of capture: no later than now, whatever a file's clock says."""
        return min(datetime.fromtimestamp(seconds, UTC), self.now())

    # Live: nothing waits.

    def due(self, now: float) -> bool:
        """Whether the next reading is wanted, by the rate cap or because somebody asks for it; counts it if not."""
        if self._asked or self._cap is None or self._cap.take(now):
            return True
        self.status.drop("rate")
        return False

    def offer(self, reading: Reading) -> None:
        """Hand over a reading that was due."""
        self.seen()
        if len(self._queue) >= ROOM:
            lost = self._queue.popleft()
            self.status.drop("full")
            _answer(lost, Problem(503, "unavailable", "The store does not keep up with this source."))
        # It is of now, however long it waits for the store.
        reading = reading if reading.captured_at else replace(reading, captured_at=self.now())
        self._queue.append(Waiting(reading, self._asked.popleft() if self._asked else None))
        self._filled.set()
        self._idle.clear()

    async def capture(self, seconds: float) -> Outcome | Problem:
        """The next reading, whatever the rate cap says, as a manual sample. Raises TimeoutError."""
        future: asyncio.Future[Outcome | Problem] = asyncio.get_running_loop().create_future()
        self._asked.append(future)
        try:
            return await asyncio.wait_for(future, seconds)
        finally:
            if future in self._asked:
                self._asked.remove(future)

    async def serve(self) -> None:
        """Admit what was offered, for ever."""
        while True:
            await self._filled.wait()
            batch = [self._queue.popleft() for _ in range(min(TOGETHER, len(self._queue)))]
            if not self._queue:
                self._filled.clear()
            try:
                outcomes = await self._admit([(row.reading, "manual" if row.asked else None) for row in batch])
            except Exception as error:
                log.error("readings were lost", source=self.source.name, exc_info=error)
                self.status.drop("failed", len(batch))
                outcomes = [Problem(500, "internal", "This could not be stored; the log says why.")] * len(batch)
            for row, outcome in zip(batch, outcomes, strict=True):
                _answer(row, outcome)
            if not self._queue:
                self._idle.set()

    async def drained(self) -> None:
        """Return when everything that was offered is admitted."""
        await self._idle.wait()

    # Patient: nothing is lost.

    async def take(self, readings: Sequence[Reading]) -> list[Outcome | Problem]:
        """What became of them, in order; waits for its turn and for the store."""
        if self._cap is not None:
            await asyncio.sleep(self._cap.wait(len(readings), asyncio.get_running_loop().time()))
        self.seen()
        return await self._admit([(reading, None) for reading in readings])

    async def _admit(self, readings: Sequence[Asked]) -> list[Outcome | Problem]:
        now = self.now()
        while True:
            try:
                outcomes = await self.admit(readings, now)
            except (Retry, UnknownProject) as error:
                if self.status.held is None:
                    log.warning("a source waits", source=self.source.name, reason=str(error))
                self.status.held = str(error)
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            self.status.held = None
            return outcomes

    async def admit(self, readings: Sequence[Asked], now: datetime) -> list[Outcome | Problem]:
        """One try, for readings of this moment. Raises Retry and UnknownProject."""
        project = await self._samples.service.projects.named(self.source.project)
        gate = self._samples.gate(project)
        drafts = [self._draft(gate, reading, trigger, now) for reading, trigger in readings]
        names = [self._request(draft, reading) for draft, (reading, _) in zip(drafts, readings, strict=True)]
        outcomes = await self._samples.admit(project, drafts, names)
        for outcome in outcomes:
            self.status.count(outcome, self.now())
        return outcomes

    def _draft(self, gate: Gate, reading: Reading, trigger: str | None, now: datetime) -> Draft | Problem:
        meta = {
            "stream_id": self.source.stream,
            "device_id": self.source.device_id,
            "sequence": reading.sequence,
            "captured_at": reading.captured_at or now,
            "tags": self.source.tags,
            "attributes": reading.attributes,
            "key": reading.key,
            "trigger": trigger or self.source.trigger,
        }
        try:
            if reading.row is None:
                return gate.payload(reading.content or b"", meta)
            if not gate.spec.columns:
                raise Problem(415, "media-type", f"This source brings rows, and the project takes {gate.spec.kind}s.")
            return gate.inline(admission.parsed(Inline, {**meta, "row": reading.row}))
        except Problem as problem:
            return problem

    def _request(self, draft: Draft | Problem, reading: Reading) -> str:
        """The same for the same reading: a refusal that is said again is said once."""
        what = draft.sample_id if isinstance(draft, Draft) else sha256(reading.content or repr(reading.row).encode())
        return f"req_{digest(self.source.name, what, str(reading.captured_at))}"


def _answer(row: Waiting, outcome: Outcome | Problem) -> None:
    if row.asked is not None and not row.asked.done():
        row.asked.set_result(outcome)
