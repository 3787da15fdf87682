"""The site's store under a budget of bytes: makes room before content comes in, and says what it let go.

What is kept is known in memory, and read again at a start from the samples and their history. A site has one replica of
ingest: two would each allow themselves the whole budget.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import prometheus_client
import structlog

from services.contracts.envelope import Message
from services.contracts.events import OfSample, SampleExpired, SampleUploaded
from services.contracts.problem import Problem
from services.ingest import eviction, index
from services.ingest.admission import Draft, blob_name
from services.ingest.eviction import Full, Going, Kept, Ledger, Limits
from services.ingest.history import History, line
from services.ingest.intake import Outcome
from services.ingest.letting import EMPTY, settled, uris
from services.ingest.settings import IngestSettings
from services.runtime.errors import Unavailable
from services.runtime.service import Service, transact
from services.runtime.unit import Unit

log = structlog.get_logger()

BUFFER = "buffer"
PART = 200  # samples let go in one transaction
LOADED = 500  # read at a time at a start

BYTES = prometheus_client.Gauge("halfsure_buffer_bytes", "Bytes of samples that the site's store holds")
SAMPLES = prometheus_client.Gauge("halfsure_buffer_samples", "Samples that the site's store holds", ["standing"])
DROPPED = prometheus_client.Counter("halfsure_buffer_dropped_total", "Samples let go for room", ["reason"])

Store = Callable[[str, Sequence[Draft]], Awaitable[list[Outcome]]]


class Buffer:
    """The budget, where one is set; without one everything stays, and this does nothing."""

    def __init__(self, service: Service, history: History, settings: IngestSettings) -> None:
        self._service = service
        self._history = history
        self.budget = settings.buffer_bytes
        self._ledger = Ledger(Limits(settings.buffer_bytes or 0, settings.buffer_ttl_seconds))
        self._turn = asyncio.Lock()
        self._erased: set[str] = set()  # let go, and their content is gone
        self._unsure: dict[str, str] = {}  # content that is there, of samples that may not be

    # In and out.

    async def within(self, project: str, drafts: Sequence[Draft], store: Store) -> list[Outcome | Problem]:
        """What `store` answers to the drafts that there is room for, in order; a 507 problem for the others."""
        if self.budget is None:
            return [*await store(project, drafts)]
        new: dict[str, Draft] = {}
        async with self._turn:
            known = await self._known(project, drafts)
            fits = [await self._reserve(f"{project}/{draft.sample_id}", draft, known, new) for draft in drafts]
            try:
                await self._let_go([one for answer in fits if isinstance(answer, list) for one in answer])
            except BaseException:
                for name in new:
                    self._ledger.remove(name)
                raise
        outcomes = iter(await self._stored(project, drafts, fits, new, store))
        return [answer if isinstance(answer, Problem) else next(outcomes) for answer in fits]

    async def _known(self, project: str, drafts: Sequence[Draft]) -> set[str]:
        """Those that are stored, or were let go: they need no room, whoever sends them again and again."""
        names = {f"{project}/{draft.sample_id}" for draft in drafts}
        keys = {_key(name): name for name in names if name not in self._ledger.kept}
        found = await self._service.state.get(list(keys)) if keys else {}
        return {keys[key] for key in found} | (names - set(keys.values()))

    async def _reserve(self, name: str, draft: Draft, known: set[str], new: dict[str, Draft]) -> list[Going] | Problem:
        """Keep the bytes of a newcomer; what has to go for them."""
        if name in known or name in new:
            return []
        try:
            going = await self._unheld(lambda: self._ledger.room(len(draft.content), self._now()))
        except Full:
            detail = "The site's store is full, and all in it is promised or worth more. It takes samples again later."
            return Problem(507, "buffer-full", detail)
        self._ledger.put(name, Kept(len(draft.content), self._now()))
        new[name] = draft
        return going

    async def _stored(
        self, project: str, drafts: Sequence[Draft], fits: Sequence[Any], new: Mapping[str, Draft], store: Store
    ) -> list[Outcome]:
        fitting = [draft for draft, answer in zip(drafts, fits, strict=True) if not isinstance(answer, Problem)]
        try:
            outcomes = await store(project, fitting) if fitting else []
        except BaseException:
            # Nobody knows what was written: the bytes count until they are let go like any others.
            for name, draft in new.items():
                self._unsure[name] = f"blob:{blob_name(project, draft)}"
                self._settle(name)
            raise
        created = {f"{project}/{outcome.record['sample_id']}" for outcome in outcomes if outcome.created}
        for name in new:
            if name in created:
                self._settle(name)
            else:
                self._ledger.remove(name)
        return outcomes

    def _settle(self, name: str) -> None:
        kept = self._ledger.kept.get(name)
        if kept and kept.standing == "arriving":
            self._ledger.put(name, Kept(kept.bytes, kept.at, "unscored", uploaded=kept.uploaded))

    def forget(self, project: str, sample: str) -> None:
        """It was withdrawn, and its content is erased."""
        self._ledger.remove(f"{project}/{sample}")

    async def tend(self) -> None:
        """Keep the newcomers' share free."""
        if self.budget is not None:
            async with self._turn:
                await self._let_go(await self._unheld(lambda: self._ledger.surplus(self._now())))
            self._measure()

    # What is heard.

    async def record(self, batch: Sequence[Message[OfSample]], unit: Unit) -> None:
        """Handler: it goes into the sample's history, and may change what the sample is worth."""
        await self._history.record(batch, unit)
        unit.then(lambda: self._heard(batch))

    async def uploaded(self, batch: Sequence[Message[SampleUploaded]], unit: Unit) -> None:
        """SampleUploaded: the cloud has a checked copy, so the one here may go."""
        keys = [f"smp:{message.event.project}:{message.event.sample_id}" for message in batch]
        for key, record in (await unit.get_many(keys)).items():
            if record["state"] == "BUFFERED":
                unit.put(key, {**record, "state": "STORED"}, guard=True)
        await self.record(batch, unit)

    def _heard(self, batch: Sequence[Message[OfSample]]) -> None:
        for message in batch:
            name = f"{message.event.project}/{message.event.sample_id}"
            if kept := self._ledger.kept.get(name):
                row = line(message)
                self._ledger.put(name, eviction.told(kept, row["type"], message.time.timestamp(), row["data"]))

    # Letting go.

    async def _let_go(self, going: Sequence[Going]) -> None:
        """State and event first, then the content."""
        for start in range(0, len(going), PART):
            part = going[start : start + PART]
            try:
                async with self._service.lock(BUFFER):
                    gone = await transact(self._service, lambda unit, part=part: self._expire(unit, part))
                await asyncio.gather(*(self._erase(name, uris) for name, uris in gone.items()))
                for one in part:
                    DROPPED.labels(one.reason).inc()
            except BaseException:
                for one in going[start:]:
                    if one.name not in self._erased:
                        self._ledger.put(one.name, one.kept)
                raise

    async def _unheld(self, choose: Callable[[], list[Going]]) -> list[Going]:
        """What is to go, nobody being at it; a question whose time is over and that somebody is at is promised anew."""
        while True:
            going = choose()
            held = {one.name for one in going if await self._leased(one)}
            if not held:
                return going
            for one in going:
                self._ledger.put(one.name, replace(one.kept, since=self._now()) if one.name in held else one.kept)

    async def _leased(self, going: Going) -> bool:
        if going.reason != "ttl":
            return False
        project, _, sample = going.name.partition("/")
        try:
            found = await self._service.peers.get("label-queue", f"v1/samples/{sample}", {"project": project})
        except (KeyError, Unavailable):
            return False  # nobody asked about it, or the queue is in the cloud, which does not have its content yet
        return found.get("state") == "LEASED"

    async def _expire(self, unit: Unit, part: Sequence[Going]) -> dict[str, list[str]]:
        keys = {one.name: _key(one.name) for one in part}
        rows = await unit.get_many([BUFFER, *keys.values()])
        buffer = settled(rows.get(BUFFER, EMPTY), self._erased)
        gone: dict[str, list[str]] = {}
        for one in part:
            record = rows.get(keys[one.name])
            if record is None or record["state"] == "WITHDRAWN":
                gone[one.name] = [self._unsure[one.name]] if one.name in self._unsure else []
                continue
            gone[one.name] = uris(record)
            buffer["going"][one.name] = [one.reason, one.kept.bytes]
            if record["state"] != "EXPIRED":
                at = self._service.clock.now().isoformat()
                expired = {**record, "state": "EXPIRED", "expired": {"reason": one.reason, "at": at}}
                unit.put(keys[one.name], expired, guard=True)
                unit.emit(_expired(one, record), guard=keys[one.name])
        if rows.get(BUFFER) != buffer:
            unit.put(BUFFER, buffer, guard=True)
            done = set(self._erased)
            unit.then(lambda: self._erased.difference_update(done))
        return gone

    async def _erase(self, name: str, uris: Sequence[str]) -> None:
        for uri in uris:
            await self._service.blobs.delete(uri)
        self._unsure.pop(name, None)
        self._erased.add(name)

    # At a start, and what is shown.

    async def load(self) -> None:
        """Know again what is kept; end what a crash left half done."""
        if self.budget is None:
            return
        entry = (await self._service.state.get([BUFFER])).get(BUFFER)
        halfway = set(entry.value["going"]) if entry else set()
        for project in self._service.projects.all():
            cursor: str | None = None
            while True:
                found = await index.page(self._service.state, project.name, index.Filter(), LOADED, cursor)
                await self._load(project.name, found.items, halfway)
                if (cursor := found.cursor) is None:
                    break
        self._measure()

    async def _load(self, project: str, records: Sequence[dict[str, Any]], halfway: set[str]) -> None:
        stories = await self._history.lines(project, [record["sample_id"] for record in records])
        for record in records:
            name = f"{project}/{record['sample_id']}"
            if record["state"] == "EXPIRED" and name in halfway:
                await self._erase(name, uris(record))
            if record["state"] not in ("STORED", "BUFFERED"):
                continue
            kept = Kept(record["content"]["bytes"], _unix(record["stored_at"]), "unscored")
            for row in stories[record["sample_id"]]:
                kept = eviction.told(kept, row["type"], _unix(row["time"]), row["data"])
            self._ledger.put(name, kept)

    async def dropped(self) -> dict[str, dict[str, int]]:
        """How many samples were let go, by project and reason; lasts over restarts."""
        entry = (await self._service.state.get([BUFFER])).get(BUFFER)
        done = settled(entry.value, set(entry.value["going"])) if entry else EMPTY
        return {project: counts | {"bytes": done["bytes"][project]} for project, counts in done["counts"].items()}

    async def view(self) -> dict[str, Any]:
        """How full the store is, of what, and what was let go."""
        kept = self._ledger.kept.values()
        total: Counter[str] = Counter()
        for counts in (await self.dropped()).values():
            total.update(counts)
        lost = total.pop("bytes", 0)
        return {
            "budget": self.budget,
            "bytes": self._ledger.bytes,
            "depth": len(kept),
            "waiting": sum(1 for one in kept if one.standing == "selected" and not one.uploaded),
            "oldest": min((one.at for one in kept), default=None),
            "standing": dict(Counter(one.standing for one in kept)),
            "dropped": {"samples": sum(total.values()), "bytes": lost, "by_reason": dict(total)},
        }

    def _measure(self) -> None:
        BYTES.set(self._ledger.bytes)
        standing = Counter(one.standing for one in self._ledger.kept.values())
        for name in ("unscored", "scored", "discarded", "selected", "labelled"):
            SAMPLES.labels(name).set(standing[name])

    def _now(self) -> float:
        return self._service.clock.now().timestamp()


def _key(name: str) -> str:
    project, _, sample = name.partition("/")
    return f"smp:{project}:{sample}"


def _expired(going: Going, record: Mapping[str, Any]) -> SampleExpired:
    project, _, sample = going.name.partition("/")
    return SampleExpired(project=project, sample_id=sample, reason=going.reason, bytes=record["content"]["bytes"])


def _unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
