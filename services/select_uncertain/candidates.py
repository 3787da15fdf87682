"""The pools: kept in step with what is scored, labelled, skipped and withdrawn, and with the model in service."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import structlog

from services.contracts.envelope import Message, Origin
from services.contracts.events import (
    LabelAccepted,
    LabelRetracted,
    ModelActivation,
    ModelRejected,
    SampleEvicted,
    SampleExpired,
    SampleScored,
    SampleScoringFailed,
    SampleWithdrawn,
    TaskEvent,
    TaskSkipped,
)
from services.contracts.projects import SelectionPolicy
from services.runtime.service import Service
from services.runtime.unit import Unit
from services.select_uncertain import opinions, stopping
from services.select_uncertain.candidate import NO_MODEL, Candidate, State
from services.select_uncertain.policies import Policies
from services.select_uncertain.pool import ProjectPool
from services.select_uncertain.questions import selected
from services.select_uncertain.stream import AdaptiveThreshold

log = structlog.get_logger()

TURN = "pool"  # one batch at a time changes the pools of this replica
REJECTED_KEPT = 50  # versions whose rejection is remembered, longer than a broker redelivers
SEGMENT = 1000  # ids in an index document


def cand_key(project: str, sample: str) -> str:
    return f"cand:{project}:{sample}"


class Candidates:
    """Handlers over one pool a project."""

    def __init__(self, service: Service, policies: Policies) -> None:
        self.service = service
        self.policies = policies
        self._pools: dict[str, ProjectPool] = {}

    def pool(self, project: str) -> ProjectPool:
        if project not in self._pools:
            self._pools[project] = ProjectPool(project)
        return self._pools[project]

    def forget(self, project: str) -> None:
        """The project is deleted; its records stay."""
        self._pools.pop(project, None)

    async def load(self) -> None:
        """Read every project's pool from the store; at start."""
        for project in self.service.projects.all():
            await self._load(project.name)

    async def _load(self, project: str) -> None:
        pool = self.pool(project)
        heads = await self.service.state.get([f"cidx:{project}", f"active:{project}"])
        if entry := heads.get(f"active:{project}"):
            self._follow(project, entry.value)
        count = heads[f"cidx:{project}"].value["segments"] if f"cidx:{project}" in heads else 0
        segments = await self.service.state.get([f"cidx:{project}:{n}" for n in range(count)])
        ids = [sample for entry in segments.values() for sample in entry.value["ids"]]
        for start in range(0, len(ids), SEGMENT):
            found = await self.service.state.get([cand_key(project, s) for s in ids[start : start + SEGMENT]])
            for entry in found.values():
                pool.put(Candidate.of_record(entry.value), self.service.clock.now())
        pool.indexed.update(ids)

    # What happens to samples.

    async def scored(self, batch: Sequence[Message[SampleScored]], unit: Unit) -> None:
        """SampleScored: a new candidate, or new scores of one that is known."""
        new = [m.event for m in batch if m.event.sample_id not in self.pool(m.event.project).candidates]
        await unit.get_new(cand_key(event.project, event.sample_id) for event in new)
        await self._read(batch, unit)
        await self._index(batch, unit)
        now = self.service.clock.now()
        for message in batch:
            event = message.event
            key = cand_key(event.project, event.sample_id)
            record = await unit.get(key)
            known = Candidate.of_record(record) if record else None
            if known and (known.state == "WITHDRAWN" or not self._newer(event, known)):
                continue
            start = known or Candidate(
                event.sample_id,
                "CANDIDATE",
                "",
                event.content.model_dump(),
                seen_at=now.isoformat(),
                site=message.siteid,
                device=message.deviceid or "",
            )
            policy = await self.policies.recent(event.project)
            candidate = await self._streamed(unit, event.project, start.scored(event), policy)
            if question := opinions.reranked(event.project, candidate, policy.aggregate):
                candidate, reranked = question
                unit.emit(reranked, message, guard=key)
            if result := opinions.result(event.project, candidate, policy, self.pool(event.project).active):
                unit.emit(result, message, guard=key)
            self.write(unit, event.project, candidate, now, message.origin)

    async def _streamed(self, unit: Unit, project: str, candidate: Candidate, policy: SelectionPolicy) -> Candidate:
        """The sample with what the stream's thresholds say of it, once, as it comes."""
        flags = dict(candidate.flags)
        for flag, leaf in self.pool(project).tree(policy).streams.items():
            if flag in flags or leaf.score not in candidate.scores:
                continue
            key = f"thr:{project}:{flag}"
            threshold = AdaptiveThreshold(leaf.share, leaf.window, await unit.get(key))
            (flags[flag],) = threshold.push([candidate.scores[leaf.score]])
            unit.put(key, threshold.state, guard=True)
        return candidate if flags == candidate.flags else replace(candidate, flags=flags)

    async def unscorable(self, batch: Sequence[Message[SampleScoringFailed]], unit: Unit) -> None:
        """SampleScoringFailed: a sample that no model can read goes to a person at once.

        One that has scores, and that a model's server was silent about, keeps those until it is asked again.
        """
        await self._read(batch, unit)
        await self._index(batch, unit)
        now = self.service.clock.now()
        for message in batch:
            event = message.event
            key = cand_key(event.project, event.sample_id)
            record = await unit.get(key)
            if record and (record["state"] != "CANDIDATE" or (event.retryable and record["version"])):
                continue
            policy = await self.policies.current(event.project)
            decision = {
                "round_id": "unscorable",
                "policy": {"id": policy.id, "version": policy.version},
                "reasons": [f"cannot be scored: {event.error}"],
                "trigger": "policy",
                "at": now.isoformat(),
            }
            candidate = Candidate(
                event.sample_id,
                "UNSCORABLE",
                event.model_version,
                event.content.model_dump(),
                decision=decision,
                seen_at=now.isoformat(),
                site=message.siteid,
                device=message.deviceid or "",
            )
            self.write(unit, event.project, candidate, now)
            unit.emit(selected(event.project, candidate, policy, 1.0, decision, 0), message, guard=key)

    async def labelled(self, batch: Sequence[Message[LabelAccepted]], unit: Unit) -> None:
        """LabelAccepted: the sample leaves the pool, and may bring a new model nearer."""
        await self._read(batch, unit)
        await self._index(batch, unit)
        now = self.service.clock.now()
        for message in batch:
            event = message.event
            record = await unit.get(cand_key(event.project, event.sample_id))
            if record is None:
                # A label made elsewhere, of a sample that has not come in (yet): it must not be asked about then.
                record = Candidate(event.sample_id, "CANDIDATE", "", event.content.model_dump()).record()
            if record["state"] in ("LABELED", "WITHDRAWN"):
                continue
            decision = {**(record["decision"] or {}), "label": event.value}
            if event.split == "train":
                decision |= {"judged": self.pool(event.project).judged, "labelled_at": now.isoformat()}
            self.write(unit, event.project, Candidate.of_record(record).become("LABELED", decision), now)

    async def retracted(self, batch: Sequence[Message[LabelRetracted]], unit: Unit) -> None:
        """LabelRetracted: the task is queued again, so it counts as open."""
        await self._read(batch, unit)
        for message in batch:
            record = await unit.get(cand_key(message.event.project, message.event.sample_id))
            if record and record["state"] == "LABELED":
                candidate = Candidate.of_record(record).become("SELECTED")
                self.write(unit, message.event.project, candidate, self.service.clock.now())

    async def skipped(self, batch: Sequence[Message[TaskSkipped]], unit: Unit) -> None:
        """TaskSkipped: nobody could answer, and it is not asked again; or it has given way, and may be."""
        await self._read(batch, unit)
        now = self.service.clock.now()
        for message in batch:
            event = message.event
            record = await unit.get(cand_key(event.project, event.sample_id))
            if record is None or record["state"] not in ("SELECTED", "UNSCORABLE"):
                continue
            candidate = Candidate.of_record(record)
            decision = candidate.decision or {}
            if event.lease_epoch <= decision.get("after_epoch", -1):
                continue  # of an earlier time that it was asked about
            if event.reason == "evicted":
                gave_way = {"after_epoch": event.lease_epoch, "gave_way": now.isoformat()}
                self.write(unit, event.project, candidate.become("CANDIDATE", gave_way), now)
            else:
                state: State = "EXPIRED" if event.reason == "expired" else "SKIPPED"
                self.write(unit, event.project, candidate.become(state), now)

    async def held(self, batch: Sequence[Message[TaskEvent]], unit: Unit) -> None:
        """TaskLeased: somebody is at it, so it is not to give way. Only remembered; the queue knows best."""
        await self.service.projects.of_batch(batch)
        for message in batch:
            unit.then(lambda event=message.event: self.pool(event.project).leased.add(event.sample_id))

    async def let_go(self, batch: Sequence[Message[TaskEvent]], unit: Unit) -> None:
        """TaskReleased, TaskExpired: nobody is at it any more."""
        await self.service.projects.of_batch(batch)
        for message in batch:
            unit.then(lambda event=message.event: self.pool(event.project).leased.discard(event.sample_id))

    async def withdrawn(self, batch: Sequence[Message[SampleWithdrawn]], unit: Unit) -> None:
        """SampleWithdrawn: forgotten, whatever it was, and whatever is still to come of it."""
        await self._read(batch, unit)
        await self._index(batch, unit)
        now = self.service.clock.now()
        for message in batch:
            project, sample = message.event.project, message.event.sample_id
            record = await unit.get(cand_key(project, sample))
            known = Candidate.of_record(record) if record else Candidate(sample, "CANDIDATE", "", {})
            if known.state != "WITHDRAWN":
                self.write(unit, project, known.withdrawn(), now)

    async def expired(self, batch: Sequence[Message[SampleExpired]], unit: Unit) -> None:
        """SampleExpired: its content is gone, so it is asked about no more; a copy in the cloud will do."""
        lost = [message for message in batch if message.event.reason != "uploaded"]
        await self._read(lost, unit)
        for message in lost:
            project, sample = message.event.project, message.event.sample_id
            record = await unit.get(cand_key(project, sample))
            if record is None or record["state"] not in ("CANDIDATE", "DISCARDED", "SELECTED", "UNSCORABLE"):
                continue
            candidate = Candidate.of_record(record)
            if candidate.asked and candidate.state != "CANDIDATE":
                question = {"project": project, "sample_id": sample, "round_id": (candidate.decision or {})["round_id"]}
                unit.emit(SampleEvicted(**question, why="expired"), message, guard=cand_key(project, sample))
            self.write(unit, project, candidate.become("EXPIRED"), self.service.clock.now())

    # What happens to models.

    async def activated(self, batch: Sequence[Message[ModelActivation]], unit: Unit) -> None:
        """A model is promoted or rolled back: everything is scored again, by it."""
        for message in batch:
            event = message.event
            known = await self._standing(unit, event.project)
            if known["epoch"] >= event.activation_epoch:
                continue
            serving = {"version": event.version, "epoch": event.activation_epoch, "judged": known["judged"] + 1}
            self._stand(unit, event.project, {**known, **serving, **_measured(known, event.version, event.gate)})

    async def judged(self, batch: Sequence[Message[ModelRejected]], unit: Unit) -> None:
        """ModelRejected: the round that waited for the candidate need not wait any longer."""
        for message in batch:
            event = message.event
            known = await self._standing(unit, event.project)
            if event.version not in known["rejected"]:
                rejected = [*known["rejected"], event.version][-REJECTED_KEPT:]
                told = {"judged": known["judged"] + 1, "rejected": rejected}
                self._stand(unit, event.project, {**known, **told, **_measured(known, event.version, event.gate)})

    async def _standing(self, unit: Unit, project: str) -> dict[str, Any]:
        """The record of what serves and how many models were judged; the pool follows it."""
        record = await unit.get(f"active:{project}")
        if record is None:
            return {"version": NO_MODEL, "epoch": 0, "judged": 0, "rejected": []}
        self._follow(project, record)
        return record

    def _stand(self, unit: Unit, project: str, record: dict[str, Any]) -> None:
        unit.put(f"active:{project}", record, guard=True)
        unit.then(lambda: self._follow(project, record))

    def _follow(self, project: str, record: dict[str, Any]) -> None:
        pool = self.pool(project)
        if record["epoch"] > pool.epoch:
            pool.active, pool.epoch = record["version"], record["epoch"]
            pool.requested_at, pool.requests = None, 0
        if record["judged"] >= pool.judged:
            pool.judged, pool.history = record["judged"], record.get("history", [])

    # Small steps that the above share.

    def _newer(self, event: SampleScored, known: Candidate) -> bool:
        """Whether a score replaces the one that is known: the active model's always does, once."""
        if event.model_version == known.version:
            return False
        return not known.version or event.model_version == self.pool(event.project).active or known.version == NO_MODEL

    def write(
        self, unit: Unit, project: str, candidate: Candidate, now: datetime, origin: Origin | None = None
    ) -> None:
        unit.put(cand_key(project, candidate.sample_id), candidate.record(), guard=True, origin=origin)
        unit.then(lambda: self.pool(project).put(candidate, now))

    async def _index(self, batch: Sequence[Message[Any]], unit: Unit) -> None:
        """Name the samples in the index that are not in it, also those whose record a lost try has left; once more
        than needed does no harm."""
        wanted: dict[str, dict[str, None]] = {}
        for message in batch:
            if message.event.sample_id not in self.pool(message.event.project).indexed:
                wanted.setdefault(message.event.project, {})[message.event.sample_id] = None
        for project, new in wanted.items():
            head = await unit.get(f"cidx:{project}") or {"segments": 0}
            last = max(head["segments"] - 1, 0)
            segment = await unit.get(f"cidx:{project}:{last}") or {"ids": []}
            if len(segment["ids"]) >= SEGMENT:
                last, segment = last + 1, {"ids": []}
                await unit.get(f"cidx:{project}:{last}")
            unit.put(f"cidx:{project}:{last}", {"ids": [*segment["ids"], *new]}, guard=True)
            unit.put(f"cidx:{project}", {"segments": last + 1}, guard=True)
            unit.then(lambda pool=self.pool(project), ids=new: pool.indexed.update(ids))

    async def _read(self, batch: Sequence[Message[Any]], unit: Unit) -> None:
        """Read the records of a batch of known projects in one trip; the pools follow them."""
        await self.service.projects.of_batch(batch)
        found = await unit.get_many(cand_key(m.event.project, m.event.sample_id) for m in batch)
        # What a try that failed, or whose answer was lost, has written is in the store and in no pool yet.
        for message in batch:
            if record := found.get(cand_key(message.event.project, message.event.sample_id)):
                self.pool(message.event.project).put(Candidate.of_record(record), self.service.clock.now())


def _measured(known: dict[str, Any], version: str, gate: Mapping[str, Any]) -> dict[str, Any]:
    """The models judged, with this one once."""
    history = [row for row in known.get("history", []) if row["version"] != version]
    row = stopping.judged(version, gate)
    return {"history": [*history, row][-stopping.KEPT :]} if row else {}
