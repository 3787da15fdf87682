"""Scoring samples again with a named version: jobs in state, with a cursor, that a restart or a replica takes up."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog

from services.contracts.envelope import Message
from services.contracts.events import Content, RescoreRequested, SampleScored
from services.contracts.ids import digest
from services.contracts.problem import Problem
from services.infer.artefacts import Loaded, Unloadable
from services.infer.scoring import Claimed, Scoring, claim_key, done_key, done_record, gone_key, open_still, said
from services.infer.serving import NONE, Serving
from services.infer.settings import InferSettings
from services.runtime.projects import Projects
from services.runtime.service import Service, transact
from services.runtime.unit import Unit

log = structlog.get_logger()

OPEN = "jobs:open"
TURN = "jobs"
HOLD = timedelta(seconds=30)
KEPT = 7 * 86_400
"""Seconds that a finished job is remembered: longer than a broker redelivers."""
RUNNING = ("WAITING", "RUNNING")


class Rescoring:
    """The jobs of all projects, and the worker that does them."""

    def __init__(self, service: Service, serving: Serving, scoring: Scoring, settings: InferSettings) -> None:
        self._service = service
        self._serving = serving
        self._scoring = scoring
        self._chunk = settings.chunk
        self._patience = timedelta(seconds=settings.patience_seconds)
        self._holder = uuid.uuid4().hex

    @property
    def projects(self) -> Projects:
        return self._service.projects

    async def request(self, batch: Sequence[Message[RescoreRequested]], unit: Unit) -> None:
        """Handler: write the jobs down; the worker does them."""
        names = {message.id: f"{message.event.rescore_id}.{message.event.part}" for message in batch}
        keys = {message.id: job_key(message.event.project, names[message.id]) for message in batch}
        known = await unit.get_many([OPEN, *keys.values()])
        for message in batch:
            event = message.event
            await self._service.projects.of_event(event)
            if keys[message.id] not in known:
                ids = list(dict.fromkeys(event.sample_ids))
                job = self._job(names[message.id], event.project, event.model_version, event.rescore_id)
                await self._open(unit, {**job, "total": len(ids)}, ids)

    async def submit(
        self, project: str, version: str, ids: Sequence[str] | None, where: Mapping[str, str], *, again: bool = True
    ) -> dict[str, Any]:
        """A job over ids, or over what ingest lists for `where`. Raises a 409 problem while it runs.

        What the version has scored before is not scored again; with `again` it is told again.
        """
        chosen = None if ids is None else list(dict.fromkeys(ids))
        told = ",".join(chosen) if chosen is not None else str(sorted(where.items()))
        name = f"rsc_{digest(project, version, told)}"
        job = self._job(name, project, version, name)
        job |= {"where": dict(where)} if chosen is None else {"total": len(chosen)}
        job["again"] = again

        async def work(unit: Unit) -> dict[str, Any]:
            before = (await unit.get_many([OPEN, job_key(project, name)])).get(job_key(project, name))
            if before and before["state"] in RUNNING:
                raise Problem(409, "already-running", f"The same job is running: GET /v1/rescore/{name}.")
            await self._open(unit, job, chosen)
            return job

        async with self._service.lock(TURN):
            return await transact(self._service, work)

    async def get(self, project: str, name: str) -> dict[str, Any] | None:
        key = job_key(project, name)
        entry = (await self._service.state.get([key])).get(key)
        return entry.value if entry else None

    async def work(self) -> None:
        """Do what is open, a chunk of each job in turn; one that waits or fails lets the others pass."""
        while True:
            entry = (await self._service.state.get([OPEN])).get(OPEN)
            open_jobs = entry.value["of"] if entry else []
            steps = [await self._tried(project, name) for project, name in open_jobs]
            if True in steps:
                continue
            for step in steps:
                if isinstance(step, Exception):
                    raise step
            return

    async def _tried(self, project: str, name: str) -> bool | Exception:
        """Whether the job has more to do now, or what stopped it."""
        try:
            return await self._step(project, name)
        except Exception as error:
            return error

    def _job(self, name: str, project: str, version: str, rescore_id: str) -> dict[str, Any]:
        return {
            "id": name,
            "project": project,
            "model_version": version,
            "rescore_id": rescore_id,
            "state": "WAITING",
            "done": 0,
            "failed": 0,
            "unknown": 0,
            "total": None,
            "cursor": 0,
            "where": None,
            "page": None,
            "detail": "",
            "created_at": self._service.clock.now().isoformat(),
            "holder": None,
            "until": None,
        }

    async def _open(self, unit: Unit, job: dict[str, Any], ids: list[str] | None) -> None:
        waiting = (await unit.get(OPEN) or {"of": []})["of"]
        entry = [job["project"], job["id"]]
        unit.put(OPEN, {"of": waiting if entry in waiting else [*waiting, entry]}, guard=True)
        key = job_key(job["project"], job["id"])
        unit.put(key, job, guard=True)
        if ids is not None:
            unit.put(f"{key}:ids", {"of": ids}, ttl=KEPT)

    async def _step(self, project: str, name: str) -> bool:
        """One chunk of one job; False when there is nothing more to do for it now."""
        job = await self.get(project, name)
        if job is None or job["state"] not in RUNNING:
            await self._close(project, name)
            return False
        now = self._service.clock.now()
        if job["holder"] not in (None, self._holder) and now < datetime.fromisoformat(job["until"]):
            return False
        loaded = await self._model(project, job)
        if isinstance(loaded, str):
            await self._fail(project, name, loaded)
            return False
        if loaded is None:
            return False

        async def chunk(unit: Unit) -> bool:
            return await self._score(unit, project, name, loaded)

        return await transact(self._service, chunk)

    async def _model(self, project: str, job: dict[str, Any]) -> Loaded | str | None:
        """The job's version; None while it may still come; a sentence if it never will."""
        document = await self._service.projects.get(project)
        if document is None:
            return f"There is no project {project!r} any more."
        if job["model_version"] == NONE:
            return await self._serving.extractor(document)
        try:
            loaded = await self._serving.bring(project, job["model_version"])
        except Unloadable as error:
            return f"The version cannot be loaded: {error}"
        patient = self._service.clock.now() - datetime.fromisoformat(job["created_at"]) < self._patience
        return loaded if loaded or patient else f"Nobody has announced the version {job['model_version']!r}."

    async def _score(self, unit: Unit, project: str, name: str, loaded: Loaded) -> bool:
        key = job_key(project, name)
        job = await unit.get(key)
        if job is None or job["state"] not in RUNNING:
            return False
        ids, claims, more = await self._next(unit, job)
        done = {sample: done_key(project, sample, loaded.version) for sample in ids}
        gone = {sample: gone_key(project, sample) for sample in ids}
        known = await unit.get_many([*done.values(), *gone.values(), *(claim_key(project, sample) for sample in ids)])
        claims = await self._claims(unit, project, [s for s in ids if gone[s] not in known], claims)
        todo = [Claimed(sample, claims[sample]) for sample in claims if open_still(known.get(done[sample]))]
        verdicts = {verdict.sample_id: verdict for verdict in await self._scoring.verdicts(loaded, todo)}
        for sample in claims:
            verdict = verdicts.get(sample)
            if new := verdict is not None:
                unit.put(done[sample], done_record(verdict), guard=True)
                verdict = verdict.model_copy(update={"rescore_id": job["rescore_id"]})
            else:
                verdict = said(known[done[sample]], job["rescore_id"])
            if new or job.get("again", True):
                unit.emit(verdict, guard=key, origin=unit.origin(claim_key(project, sample)))
            job = _counted(job, "done" if isinstance(verdict, SampleScored) else "failed")
        until = (self._service.clock.now() + HOLD).isoformat()
        job = {**job, "unknown": job["unknown"] + len(ids) - len(claims), "holder": self._holder, "until": until}
        unit.put(key, {**job, **more}, guard=True, ttl=KEPT if more["state"] == "DONE" else None)
        return more["state"] != "DONE"

    async def _next(self, unit: Unit, job: dict[str, Any]) -> tuple[list[str], dict[str, Content], dict[str, Any]]:
        """The next ids, those of their contents that are known with them, and how the job goes on."""
        if job["where"] is None:
            ids = (await unit.get(f"{job_key(job['project'], job['id'])}:ids") or {"of": []})["of"]
            cursor = job["cursor"] + self._chunk
            state = "RUNNING" if cursor < len(ids) else "DONE"
            return ids[job["cursor"] : cursor], {}, {"cursor": cursor, "state": state}
        wanted = {**job["where"], "project": job["project"], "state": "STORED", "limit": str(self._chunk)}
        if job["page"]:
            wanted["cursor"] = job["page"]
        answer = await self._service.peers.get("ingest", "v1/samples", wanted)
        contents = {row["sample_id"]: Content.model_validate(row["content"]) for row in answer["items"]}
        state = "RUNNING" if answer["cursor"] else "DONE"
        more = {"cursor": job["cursor"] + len(contents), "page": answer["cursor"], "state": state}
        return list(contents), contents, more

    async def _claims(
        self, unit: Unit, project: str, ids: Sequence[str], given: Mapping[str, Content]
    ) -> dict[str, Content]:
        """Where the contents are: from the list, from this service's own notes, or asked of ingest."""
        keys = {sample: claim_key(project, sample) for sample in ids if sample not in given}
        noted = await unit.get_many(keys.values())
        claims: dict[str, Content] = {}
        for sample in ids:
            if sample in given:
                claims[sample] = given[sample]
            elif keys[sample] in noted:
                claims[sample] = Content.model_validate(noted[keys[sample]]["content"])
            elif content := await asked(self._service, project, sample):
                claims[sample] = content
                unit.put(keys[sample], {"content": content.model_dump()})
        return claims

    async def _fail(self, project: str, name: str, detail: str) -> None:
        log.warning("rescoring failed", project=project, job=name, reason=detail)

        async def work(unit: Unit) -> None:
            job = await unit.get(job_key(project, name))
            if job and job["state"] in RUNNING:
                failed = {**job, "state": "FAILED", "detail": detail}
                unit.put(job_key(project, name), failed, guard=True, ttl=KEPT)

        await transact(self._service, work)

    async def _close(self, project: str, name: str) -> None:
        async def work(unit: Unit) -> None:
            waiting = (await unit.get(OPEN) or {"of": []})["of"]
            unit.put(OPEN, {"of": [entry for entry in waiting if entry != [project, name]]}, guard=True)

        async with self._service.lock(TURN):
            await transact(self._service, work)


def job_key(project: str, name: str) -> str:
    return f"job:{project}:{name}"


async def asked(service: Service, project: str, sample: str) -> Content | None:
    """A sample's content by ingest, for samples that this service has not heard of; None if there is none."""
    try:
        row = await service.peers.get("ingest", f"v1/samples/{sample}", {"project": project})
    except KeyError:
        return None
    return Content.model_validate(row["content"])


def _counted(job: dict[str, Any], name: str) -> dict[str, Any]:
    return {**job, name: job[name] + 1}
