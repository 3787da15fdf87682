"""The labels of all projects: documents of many samples each in the store, mirrored in memory."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime

from services.contracts.envelope import Message
from services.contracts.events import LabelAccepted, LabelRetracted, SampleWithdrawn
from services.contracts.projects import ProjectDocument
from services.retrain_trigger import entries, snapshots
from services.retrain_trigger.entries import SHARDS, Entry, Schema, shard_of
from services.retrain_trigger.trigger import Audits, Counters
from services.runtime.service import Service, transact
from services.runtime.unit import Unit

TURN = "labels"  # one batch at a time writes label documents in this process
SHARDS_AT_A_TIME = 8  # documents in one transaction when many change

Change = Callable[[Entry | None], Entry | None]


def erasing_key(project: str) -> str:
    """The withdrawn samples that a snapshot or a pool of an earlier run may still name."""
    return f"erasing:{project}"


def shard_key(project: str, shard: int) -> str:
    return f"labels:{project}:{shard}"


class Labels:
    """Handlers of label events, and what the rule and the snapshots read."""

    def __init__(self, service: Service, erase: Callable[[str, set[str]], Awaitable[None]]) -> None:
        self.service = service
        self._erase = erase
        self._mirror: dict[str, dict[int, dict[str, Entry]]] = {}
        self._versions: dict[str, int] = {}

    # What label-queue and ingest say.

    async def accept(self, batch: Sequence[Message[LabelAccepted]], unit: Unit) -> None:
        """LabelAccepted: the highest revision of a sample's label counts, once."""
        now = self.service.clock.now()
        changes = [(m.event.project, m.event.sample_id, _accepting(m)) for m in batch]
        await self._know({m.event.project: m for m in batch})
        await self._apply(unit, changes, now)

    async def retract(self, batch: Sequence[Message[LabelRetracted]], unit: Unit) -> None:
        """LabelRetracted: the label leaves the next snapshot."""
        now = self.service.clock.now()
        changes = [(m.event.project, m.event.sample_id, _retracting(m.event, now)) for m in batch]
        await self._know({m.event.project: m for m in batch})
        await self._apply(unit, changes, now)

    async def withdraw(self, batch: Sequence[Message[SampleWithdrawn]], unit: Unit) -> None:
        """SampleWithdrawn: the sample leaves all that is still to be trained."""
        now = self.service.clock.now()
        changes = [(m.event.project, m.event.sample_id, _withdrawing(m.event, now)) for m in batch]
        await self._know({m.event.project: m for m in batch})
        for project in {m.event.project for m in batch}:
            gone = {m.event.sample_id for m in batch if m.event.project == project}
            await self._erase(project, gone)
            # What is pinned already is for `Erasing` to rewrite: that may be much, and a message waits for nothing.
            waiting = (await unit.get(erasing_key(project)) or {"samples": []})["samples"]
            unit.put(erasing_key(project), {"samples": sorted({*waiting, *gone})}, guard=True)
        await self._apply(unit, changes, now)

    # What is read.

    def version(self, project: str) -> int:
        """Grows with every change that this process has seen."""
        return self._versions.get(project, 0)

    def all(self, project: str) -> dict[str, Entry]:
        """sample id -> entry, as mirrored here."""
        shards = self._mirror.get(project, {})
        return {name: entry for shard in shards.values() for name, entry in shard.items()}

    def judging(self, project: str) -> set[str]:
        """Samples that somebody brought along to judge models with; they are in no pool either."""
        return {name for name, entry in self.all(project).items() if entry.pinned}

    def counters(self, document: ProjectDocument, active: str | None) -> Counters:
        return entries.count(self.all(document.name), Schema(document.task, document.labels), document.name, active)

    def audits(self, project: str, versions: Sequence[str]) -> list[Audits]:
        """What the audit found of each version."""
        known = self.all(project).values()
        return [entries.audits(known, version) for version in versions]

    async def load(self) -> None:
        """Mirror every project's labels; at start."""
        for document in self.service.projects.all():
            await self.refresh(document.name)

    async def refresh(self, project: str) -> None:
        """Read a project's labels again: the store is the truth, and other replicas write it."""
        async with self.service.lock(TURN):
            found = await self.service.state.get([shard_key(project, shard) for shard in range(SHARDS)])
            for shard in range(SHARDS):
                entry = found.get(shard_key(project, shard))
                self._remember(project, shard, _parsed(entry.value) if entry else {})

    # What a run writes.

    async def mark(self, project: str, manifest: snapshots.Manifest, snapshot: str) -> None:
        """A run is over: its labels are not new any more, and what it trained on never judges. Safe to repeat."""
        rows, trained = manifest.rows, {row.sample_id for row in manifest.train}

        def marked(one: Entry | None) -> Entry | None:
            row = rows.get(one.sample_id) if one else None
            if one is None or row is None:
                gone = one is not None and one.state == "retracted" and one.snapshot is not None
                return one.model_copy(update={"snapshot": None}) if one and gone else one
            if row.revision != one.revision:
                # A newer label came meanwhile: it is new, but its sample has been trained on.
                return one.model_copy(update={"trained": one.trained or one.sample_id in trained})
            return one.mark(snapshot, one.sample_id in trained)

        await self._change_all(project, marked)

    async def forget(self, project: str) -> None:
        """A project is deleted: so are its labels."""
        async with self.service.lock(TURN):

            async def work(unit: Unit) -> None:
                for shard in range(SHARDS):
                    unit.delete(shard_key(project, shard))

            await transact(self.service, work)
            self._mirror.pop(project, None)
            self._versions[project] = self.version(project) + 1

    async def _change_all(self, project: str, change: Change) -> None:
        for start in range(0, SHARDS, SHARDS_AT_A_TIME):
            shards = range(start, start + SHARDS_AT_A_TIME)

            async def work(unit: Unit, shards: range = shards) -> None:
                found = await unit.get_many(shard_key(project, shard) for shard in shards)
                for shard in shards:
                    before = _parsed(found.get(shard_key(project, shard), {}))
                    after = {name: entry for name, old in before.items() if (entry := change(old))}
                    self._write(unit, project, shard, before, after)

            async with self.service.lock(TURN):
                await transact(self.service, work)

    async def _apply(self, unit: Unit, changes: Iterable[tuple[str, str, Change]], now: datetime) -> None:
        grouped: dict[tuple[str, int], list[tuple[str, Change]]] = {}
        for project, sample, change in changes:
            grouped.setdefault((project, shard_of(sample)), []).append((sample, change))
        found = await unit.get_many(shard_key(*place) for place in grouped)
        for (project, shard), wanted in grouped.items():
            before = _parsed(found.get(shard_key(project, shard), {}))
            after = dict(before)
            for sample, change in wanted:
                if entry := change(after.get(sample)):
                    after[sample] = entry
            self._write(unit, project, shard, before, after)

    def _write(
        self, unit: Unit, project: str, shard: int, before: Mapping[str, Entry], after: Mapping[str, Entry]
    ) -> None:
        if before != after:
            rows = {name: entry.model_dump(mode="json", exclude_defaults=True) for name, entry in after.items()}
            unit.put(shard_key(project, shard), {"samples": rows}, guard=True)
        # Also when nothing changes: a batch that was half written before leaves the mirror behind.
        unit.then(lambda: self._remember(project, shard, dict(after)))

    def _remember(self, project: str, shard: int, rows: dict[str, Entry]) -> None:
        known = self._mirror.setdefault(project, {})
        if known.get(shard, {}) != rows:
            known[shard] = rows
            self._versions[project] = self.version(project) + 1

    async def _know(self, projects: Mapping[str, Message[LabelAccepted | LabelRetracted | SampleWithdrawn]]) -> None:
        for message in projects.values():
            await self.service.projects.of_event(message.event)


def _parsed(document: Mapping) -> dict[str, Entry]:
    return {name: Entry.model_validate(row) for name, row in document.get("samples", {}).items()}


def _accepting(message: Message[LabelAccepted]) -> Change:
    event, trace = message.event, message.traceparent
    return lambda old: old.accept(event, message.time, trace) if old else entries.entry(event, message.time, trace)


def _retracting(event: LabelRetracted, now: datetime) -> Change:
    return lambda old: (
        old.retract(event) if old else entries.tombstone(event.sample_id, event.label_revision, "retracted", now)
    )


def _withdrawing(event: SampleWithdrawn, now: datetime) -> Change:
    return lambda old: old.withdraw() if old else entries.tombstone(event.sample_id, 0, "withdrawn", now)
