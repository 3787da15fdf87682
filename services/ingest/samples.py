"""Samples: let in, looked up, listed, withdrawn and erased."""

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import structlog

from services.contracts.events import SampleRejected, SampleWithdrawn
from services.contracts.problem import Problem, not_found
from services.contracts.projects import ProjectDocument
from services.ingest import admission, hooks, index
from services.ingest.admission import Claim, Draft, Gate, Inline
from services.ingest.buffer import Buffer
from services.ingest.history import History
from services.ingest.intake import Intake, Outcome
from services.ingest.letting import uris
from services.ingest.settings import IngestSettings
from services.ingest.streams import Streams
from services.runtime import tracing
from services.runtime.errors import Unavailable
from services.runtime.service import Service, transact
from services.runtime.unit import Unit

log = structlog.get_logger()

ERASURES = "erasures"
NO_ERASURES: dict[str, Any] = {"of": [], "counts": {}}
REASONS = {413: "too_large", 415: "type", 400: "schema", 403: "policy", 422: "schema", 429: "quota", 507: "quota"}


class Samples:
    """What ingest knows and does."""

    def __init__(self, service: Service, settings: IngestSettings, buffer: Buffer, history: History) -> None:
        self.service = service
        self._buffer = buffer
        self._history = history
        self._hooks = hooks.chain(settings)
        self._ahead = timedelta(seconds=settings.future_seconds)
        self._intake = Intake(service, settings)
        self._streams = Streams(service)

    def gate(self, project: ProjectDocument) -> Gate:
        """The rules that hold now."""
        return Gate(project.name, self.service.settings.siteid, project.input, self.service.clock.now(), self._ahead)

    async def drafted(self, gate: Gate, form: Inline) -> Draft:
        """The draft of a JSON form; content that is in the store already is read and checked."""
        if form.content is None:
            return gate.inline(form)
        return gate.claimed(form.content, await self._claimed(gate.project, form.content), form)

    async def _claimed(self, project: str, claim: Claim) -> bytes:
        if not admission.own_blob(claim.uri, project):
            where = f"blob:uploads/{project}/..."
            raise Problem(403, "foreign-uri", f"{claim.uri} is not of this project's store; put content at {where}")
        if (claim.bytes or 0) > self.service.settings.max_body:
            raise Problem(413, "too-large", f"Content may have {self.service.settings.max_body} bytes at most.")
        try:
            content = await self.service.blobs.get(claim.uri)
        except KeyError as error:
            raise admission.invalid("/content/uri", "missing", f"There is nothing at {claim.uri}.") from error
        if len(content) > self.service.settings.max_body:
            raise Problem(413, "too-large", f"Content may have {self.service.settings.max_body} bytes at most.")
        return content

    async def admit(
        self, project: ProjectDocument, drafts: Sequence[Draft | Problem], requests: Sequence[str]
    ) -> list[Outcome | Problem]:
        """Store the drafts that the project's models could read; what was or is refused is said on the bus."""
        judged = await self._judged(project, drafts)
        good = [
            admission.with_request(draft, request, trace)
            for draft, request, trace in zip(judged, requests, tracing.apart(len(judged)), strict=True)
            if isinstance(draft, Draft)
        ]
        stored = iter(await self._stored(project, good) if good else [])
        answers = [row if isinstance(row, Problem) else next(stored) for row in judged]
        refused = [(request, row) for row, request in zip(answers, requests, strict=True) if isinstance(row, Problem)]
        await self.refuse(project.name, refused)
        return answers

    async def _judged(self, project: ProjectDocument, drafts: Sequence[Draft | Problem]) -> list[Draft | Problem]:
        """The drafts that may be stored, as the hooks leave them; decoded once more where one changed something."""
        judged = await asyncio.to_thread(_fit, drafts, project)
        if not self._hooks:
            return judged
        gate = self.gate(project)
        changed = await asyncio.to_thread(
            lambda: [row if isinstance(row, Problem) else hooks.passed(self._hooks, gate, row) for row in judged]
        )
        for before, after in zip(judged, changed, strict=True):
            if isinstance(before, Draft) and before is not after and before.source:
                await self.service.blobs.delete(before.source)  # what must not be stored was put there to be read
        return await asyncio.to_thread(_fit, changed, project)

    async def _stored(self, project: ProjectDocument, drafts: Sequence[Draft]) -> list[Outcome | Problem]:
        """Outcomes in order; the point of a stream is stored with its window, and until then only kept."""
        if project.input.length is None:
            return await self._buffer.within(project.name, drafts, self._intake.admit)
        points = [draft for draft in drafts if draft.is_point]
        assembled = await self._streams.assemble(project.name, project.input.length, points)
        own = iter(assembled.own)
        told = [next(own) if draft.is_point else draft for draft in drafts]
        asked = {row.sample_id: row for row in told if isinstance(row, Draft)}
        ready = {**{window.sample_id: window for window in assembled.windows}, **asked}
        drafted = [*ready.values()]
        outcomes = await self._buffer.within(project.name, drafted, self._intake.admit) if drafted else []
        if assembled.windows:
            await self._streams.made(project.name, project.input.length, assembled.windows)
        by_id = dict(zip(ready, outcomes, strict=True))
        return [_outcome(row, by_id) for row in told]

    async def refuse(self, project: str, refused: Sequence[tuple[str, Problem]]) -> None:
        """Say and count that requests were refused."""
        known = [(request, REASONS[problem.status]) for request, problem in refused if problem.status in REASONS]
        if not known:
            return
        unit = await self.service.unit()
        changes: dict[str, int] = {}
        for request, reason in known:
            unit.emit(SampleRejected.model_validate({"project": project, "request_id": request, "reason": reason}))
            changes[f"rejected.{reason}"] = changes.get(f"rejected.{reason}", 0) + 1
        await unit.commit()
        await self._intake.count(project, changes)

    async def get(self, project: str, sample: str, *, withdrawn: bool = False) -> dict[str, Any]:
        """The record. Raises a 404 problem, and a 410 one for a withdrawn sample unless `withdrawn`."""
        key = f"smp:{project}:{sample}"
        entry = (await self.service.state.get([key])).get(key)
        if entry is None:
            raise not_found("sample", sample)
        record: dict[str, Any] = entry.value
        if record["state"] == "WITHDRAWN" and not withdrawn:
            gone = record["withdrawn"]
            raise Problem(410, "withdrawn", f"This sample was withdrawn at {gone['at']} ({gone['why']}).")
        return record

    async def shown(self, project: str, sample: str) -> dict[str, Any]:
        """What has content to show: a sample, or one that came to label-queue with its label and never passed here."""
        try:
            return await self.get(project, sample)
        except Problem as problem:
            if problem.status != 404:
                raise
            with contextlib.suppress(KeyError, Unavailable):
                return await self.service.peers.get("label-queue", f"v1/samples/{sample}", {"project": project})
            raise

    async def content(self, record: dict[str, Any]) -> bytes:
        """Raises a 410 problem if it was let go for room, and a 404 one if the store has lost it."""
        if gone := record.get("expired"):
            raise Problem(410, "expired", f"Its content was let go at {gone['at']} for room ({gone['reason']}).")
        try:
            return await self.service.blobs.get(record["content"]["uri"])
        except KeyError as error:
            raise Problem(404, "content-missing", "The sample is known, its content is not in the store.") from error

    async def withdraw(self, project: str, sample: str, who: str, why: str) -> dict[str, Any]:
        """Withdraw for good; the content is erased by `erase`, which a crash does not stop."""
        key = f"smp:{project}:{sample}"

        async def work(unit: Unit) -> dict[str, Any]:
            record = (await unit.get_many([key, ERASURES])).get(key)
            if record is None:
                raise not_found("sample", sample)
            gone = record if record["state"] == "WITHDRAWN" else self._tombstone(record, who, why)
            if gone["withdrawn"]["why"] != why:
                reason = gone["withdrawn"]["why"]
                raise Problem(409, "already-withdrawn", f"It is withdrawn already, for another reason: {reason}.")
            waiting = await unit.get(ERASURES) or NO_ERASURES
            if not gone["erased"] and [project, sample] not in waiting["of"]:
                unit.put(ERASURES, {**waiting, "of": [*waiting["of"], [project, sample]]}, guard=True)
            if gone is not record:
                unit.put(key, gone, guard=True)
                event = {"project": project, "sample_id": sample, "who": who, "why": why}
                unit.emit(SampleWithdrawn.model_validate(event), guard=key)
            return gone

        async with self.service.lock(ERASURES):
            return await transact(self.service, work)

    def _tombstone(self, record: dict[str, Any], who: str, why: str) -> dict[str, Any]:
        gone = {"who": who, "why": why, "at": self.service.clock.now().isoformat()}
        return {**record, "state": "WITHDRAWN", "withdrawn": gone, "erased": False, "attributes": {}}

    async def erase(self) -> None:
        """Erase the content of withdrawn samples, and count them; again and again, until nothing waits."""
        entry = (await self.service.state.get([ERASURES])).get(ERASURES)
        for project, sample in entry.value["of"] if entry else ():
            record = await self.get(project, sample, withdrawn=True)
            if record["state"] == "WITHDRAWN":
                await self._erase(project, record)
                self._buffer.forget(project, sample)
            await self._erased(project, sample)

    async def _erase(self, project: str, record: dict[str, Any]) -> None:
        """The content, what was said of the sample, and the tags that it is listed under."""
        for uri in uris(record):
            await self.service.blobs.delete(uri)
        await self._history.erase(project, record["sample_id"])
        if record["tags"]:
            await self._untag(project, record["sample_id"])

    async def _untag(self, project: str, sample: str) -> None:
        if (key := await index.tagged(self.service.state, project, sample)) is None:
            return

        async def work(unit: Unit) -> None:
            rows = (await unit.get(key) or {"rows": []})["rows"]
            unit.put(key, {"rows": index.untagged(rows, sample)}, guard=True)

        await transact(self.service, work)

    async def _erased(self, project: str, sample: str) -> None:
        key = f"smp:{project}:{sample}"

        async def work(unit: Unit) -> None:
            rows = await unit.get_many([ERASURES, key])
            waiting, record = rows.get(ERASURES, NO_ERASURES), rows[key]
            if [project, sample] in waiting["of"]:
                counts, rest = dict(waiting["counts"]), [row for row in waiting["of"] if row != [project, sample]]
                if record["state"] == "WITHDRAWN":
                    counts[project] = _counted(counts.get(project, ()), record)
                unit.put(ERASURES, {"of": rest, "counts": counts}, guard=True)
            if record["state"] == "WITHDRAWN" and not record["erased"]:
                unit.put(key, {**record, "tags": [], "erased": True}, guard=True)

        async with self.service.lock(ERASURES):
            await transact(self.service, work)

    async def stats(self, project: str) -> dict[str, Any]:
        """Counts that survive a restart."""
        counts = await index.counts(self.service.state, project)
        entry = (await self.service.state.get([ERASURES])).get(ERASURES)
        withdrawn, erased, both = _whole((entry.value["counts"] if entry else {}).get(project, ()))
        let_go = (await self._buffer.dropped()).get(project, {})
        expired = sum(count for reason, count in let_go.items() if reason != "bytes") - both
        rejected = {name.partition(".")[2]: n for name, n in counts.items() if name.startswith("rejected.")}
        return {
            "project": project,
            "states": {
                "STORED": counts.get("STORED", 0) - withdrawn - expired,
                "WITHDRAWN": withdrawn,
                **({"EXPIRED": expired} if expired else {}),
            },
            "duplicates": counts.get("duplicates", 0),
            "rejected": rejected,
            "bytes": counts.get("bytes", 0) - erased - let_go.get("bytes", 0),
        }


def _whole(counts: Sequence[int]) -> tuple[int, int, int]:
    """Withdrawn samples, the bytes that went with them, and how many had been let go before."""
    number, size, both = [*counts, 0, 0, 0][:3]
    return number, size, both


def _counted(counts: Sequence[int], record: dict[str, Any]) -> tuple[int, int, int]:
    number, size, both = _whole(counts)
    if "expired" in record:
        return number + 1, size, both + 1
    return number + 1, size + record["content"]["bytes"], both


def _outcome(row: Draft | Problem | dict[str, Any], stored: dict[str, Outcome | Problem]) -> Outcome | Problem:
    if isinstance(row, Draft):
        return stored[row.sample_id]
    return row if isinstance(row, Problem) else Outcome(row, created=False)


def _fit(drafts: Sequence[Draft | Problem], project: ProjectDocument) -> list[Draft | Problem]:
    return [row if isinstance(row, Problem) else admission.unfit(row, project.input) or row for row in drafts]
