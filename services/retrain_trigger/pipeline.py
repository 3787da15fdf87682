"""What a run does, step by step: submit, follow, register, judge, end. Each step may be taken twice."""

from collections.abc import Awaitable, Callable, Generator, Mapping
from datetime import datetime
from functools import wraps
from typing import Any

import structlog

from services.contracts.events import (
    Content,
    TrainingCancelled,
    TrainingFailed,
    TrainingStarted,
    TrainingSucceeded,
)
from services.contracts.manifest import ModelManifest
from services.contracts.projects import ProjectDocument
from services.contracts.tasks import answer_of
from services.retrain_trigger import lineage as lineage_of
from services.retrain_trigger import pool
from services.retrain_trigger.backends import Backend, BadOutcome, ModelSource, Work
from services.retrain_trigger.evaluation import main_value, metric_of
from services.retrain_trigger.gate import GateSettings, judge
from services.retrain_trigger.heads import HeadParams
from services.retrain_trigger.labels import Labels
from services.retrain_trigger.models import new_record
from services.retrain_trigger.registry import Registry, Superseded
from services.retrain_trigger.reports import checked
from services.retrain_trigger.retention import Retention
from services.retrain_trigger.runs import Runs, beat_key, ended, flight_key, moved, no_flight, run_key
from services.retrain_trigger.settings import RetrainTriggerSettings
from services.runtime import tracing
from services.runtime.ports import Put
from services.runtime.service import Service, transact
from services.runtime.unit import TRACE, Unit
from services.runtime.workflow import Activity, ActivityFailed, Step

log = structlog.get_logger()

NAME = "retrain"

Order = dict[str, Any]
"""What a step is told: the run's id, and for the last one how the run ended. Everything else is in the records."""


def retrain(order: Order) -> Generator[Step, Any, str]:
    """The workflow of one run; returns the state that it ended in."""
    outcome: dict[str, Any] = {"state": "FAILED"}
    try:
        yield Activity("submit", order)
        job = yield Activity("follow", order)
        while job["state"] == "running":
            job = yield Activity("follow", order)
        if job["state"] == "succeeded":
            job = yield Activity("register", order)
        if job["state"] == "registered":
            yield Activity("judge", order)
        ends = {"registered": "SUCCEEDED", "cancelled": "CANCELLED"}
        outcome = {"state": ends.get(job["state"], "FAILED"), "error": job.get("error")}
    except ActivityFailed as error:
        outcome = {"state": "FAILED", "error": str(error)}
    yield Activity("end", {**order, **outcome})
    return outcome["state"]


class RunGone(Exception):
    """The run, or its project, does not exist any more."""


class Pipeline:
    """The activities of the workflow."""

    def __init__(
        self,
        service: Service,
        settings: RetrainTriggerSettings,
        labels: Labels,
        registry: Registry,
        runs: Runs,
        backend: Backend,
    ) -> None:
        self.service = service
        self._settings = settings
        self._labels = labels
        self._registry = registry
        self._runs = runs
        self.backend = backend
        self._retention = Retention(registry, settings.models_kept)

    @property
    def activities(self) -> Mapping[str, Callable[[Order], Awaitable[Any]]]:
        steps = (self.submit, self.follow, self.register, self.judge, self.end)
        return {step.__name__: self._alive(step) for step in steps}

    async def submit(self, order: Order) -> None:
        """Hand the job to the backend."""
        run = await self._run(order)
        if ended(run) or run["cancel"]:
            return
        run = await self._pin_pool(run)
        job_id = await self.backend.submit(await self._work(run))
        await self._move(run, "SUBMITTED", backend=self.backend.name, job_id=job_id)

    async def follow(self, order: Order) -> dict[str, Any]:
        """Wait a while for the job's end; a job that the backend has lost is handed over again."""
        if (run := await self._run(order))["cancel"]:
            await self.backend.cancel(run["job_id"] or run["run_id"])
            return {"state": "cancelled"}
        if run["state"] == "SUBMITTED":
            now = self.service.clock.now().isoformat()
            started = TrainingStarted(project=run["project"], run_id=run["run_id"], backend_job_id=run["job_id"])
            await self._move(run, "RUNNING", started, started_at=now)
        if error := self._given_up(run):
            await self.backend.cancel(run["job_id"])
            return {"state": "failed", "error": error}
        job = await self.backend.poll(run["job_id"], self._settings.follow_seconds)
        if job.state == "lost":  # waited for in this very step, which waits ever longer for what stays away
            if (await self._run(order))["cancel"]:  # then it is gone because it was ended
                return {"state": "cancelled"}
            await self.backend.submit(await self._work(run))
            job = await self.backend.poll(run["job_id"], self._settings.follow_seconds)
        return {"state": "running" if job.state == "lost" else job.state, "error": job.error}

    def _given_up(self, run: Mapping[str, Any]) -> str | None:
        """Why a job is not waited for: whoever trains has said that it failed, or nothing for too long."""
        if (said := run.get("callback")) and said["state"] == "failed":
            return said["error"] or "the trainer says no more than that it failed"
        if (limit := self.backend.limit) is None or not run["started_at"]:
            return None
        since = self.service.clock.now() - datetime.fromisoformat(run["started_at"])
        return f"no outcome after {limit:g} s" if since.total_seconds() > limit else None

    async def register(self, order: Order) -> dict[str, Any]:
        """Take the model over from the backend, as a candidate."""
        run = await self._run(order)
        if run["cancel"]:
            return {"state": "cancelled"}
        if run["model_version"]:
            return {"state": "registered"}
        try:
            outcome = await self.backend.outcome(run["job_id"])
            snapshot = await self._runs.snapshot(run["project"], run["snapshot"]["id"])
            document = await self._document(run)
            champion = await self._champion(run)
            metrics = checked(outcome.result, snapshot, champion and champion.version, document.task)
        except BadOutcome as error:
            return {"state": "failed", "error": str(error)}
        version, artefact, manifest = await self._registry.package(
            run["project"], run["run_id"], outcome.model, outcome.manifest
        )
        lineage = {
            "run": run["run_id"],
            "snapshot": run["snapshot"]["id"],
            "base": run["base_model"],
            "backend": run["backend"],
            "code": outcome.result.get("code") or lineage_of.code(),
        }
        now = self.service.clock.now().isoformat()
        record = new_record(run["project"], version, artefact, manifest, at=now, lineage=lineage)
        record |= {"metrics": metrics and metrics["candidate"], "evaluation_sha256": snapshot["evaluation_sha256"]}

        async def work(unit: Unit) -> None:
            await self._registry.register(unit, record)

        await transact(self.service, work)
        changes: dict[str, Any] = {"model_version": version, "metrics": metrics}
        changes |= {"metric": _metric(metrics, outcome.result, run), "seconds": outcome.result.get("seconds")}
        await self._move(run, "RUNNING", _succeeded(run, artefact, metrics), **changes)
        return {"state": "registered"}

    async def judge(self, order: Order) -> None:
        """Let the gate decide, and promote or reject the candidate."""
        run = await self._run(order)
        if run["gate"]:
            return
        document = await self._document(run)
        settings = GateSettings(**document.gate.model_dump())
        verdict = judge(run["metrics"], settings)
        gate = {"promote": verdict.promote, "reasons": list(verdict.reasons), **verdict.numbers}
        if run["base_model"] and await self._champion(run) is None:
            why = f"not-compared: {run['base_model']} is scored by a server, and cannot be asked here"
            gate |= {"promote": False, "reasons": [why]}
        if gate["promote"]:
            await self._promote(run, gate, document)
        if not gate["promote"]:
            await self._registry.reject(run["model_version"], gate)
        log.info("judged", run=run["run_id"], version=run["model_version"], **gate)
        await self._move(run, "RUNNING", gate=gate, promoted=gate["promote"])

    async def _promote(self, run: Mapping[str, Any], gate: dict[str, Any], document: ProjectDocument) -> None:
        """The gate says afterwards whether it came to that."""
        try:
            await self._registry.promote(run["model_version"], gate, run["base_model"], document.rollout.share)
        except Superseded as error:
            gate |= {"promote": False, "reasons": [f"superseded: {error}"]}

    async def end(self, order: Order) -> None:
        """Close the run, and let the next one start."""
        run = await self._run(order)
        if order["state"] == "SUCCEEDED":
            manifest = await self._runs.manifest(run["snapshot"]["uri"])
            await self._labels.mark(run["project"], manifest, run["snapshot"]["id"])
        now = self.service.clock.now().isoformat()

        async def work(unit: Unit) -> None:
            await unit.get_many([run_key(run["run_id"]), flight_key(run["project"])])
            record = await unit.get(run_key(run["run_id"])) or run
            if not ended(record):
                record = moved(record, order["state"], ended_at=now, error=order.get("error"))
                unit.put(run_key(run["run_id"]), record, guard=True)
                if event := _last_words(record):
                    unit.emit(event, guard=run_key(run["run_id"]))
            flight = await unit.get(flight_key(run["project"])) or no_flight()
            if flight["run_id"] == run["run_id"]:
                unit.put(flight_key(run["project"]), _landed(flight, record), guard=True)

        await transact(self.service, work)
        await self._retention.sweep(run["project"])

    async def _run(self, order: Order) -> dict[str, Any]:
        run = await self._runs.get(order["run_id"])
        if run is None:
            raise RunGone(f"there is no run {order['run_id']}")
        return run

    async def _document(self, run: Mapping[str, Any]) -> ProjectDocument:
        document = await self.service.projects.get(run["project"])
        if document is None:
            raise RunGone(f"project {run['project']} was deleted")
        return document

    async def _pin_pool(self, run: dict[str, Any]) -> dict[str, Any]:
        """Decide once which unlabelled samples the run may see."""
        params = HeadParams.model_validate(run["params"]["training"])
        most = min(params.most_unlabelled, self._settings.pool_most)
        classifies = answer_of((await self._document(run)).task) == "classification"
        if run["pool"] or params.head == "logistic" or not most or not classifies:
            return run
        manifest = await self._runs.manifest(run["snapshot"]["uri"])
        found = await pool.listed(
            self.service.peers, run["project"], manifest.rows.keys() | self._labels.judging(run["project"]),
            most, self._settings.pool_patience,
        )  # fmt: skip
        pinned = await pool.pin(self.service.blobs, run["project"], found)
        return await self._move(run, run["state"], pool=pinned)

    async def _work(self, run: Mapping[str, Any]) -> Work:
        document = await self._document(run)
        unlabelled = await pool.pinned(self.service.blobs, run["pool"]["uri"]) if run["pool"] else ()
        return Work(
            run_id=run["run_id"],
            project=run["project"],
            task=document.task,
            snapshot=await self._runs.manifest(run["snapshot"]["uri"]),
            extractor=await self._source(document.extractor.artefact, document.extractor.manifest),
            champion=await self._champion(run),
            unlabelled=unlabelled,
            params=run["params"]["training"],
        )

    async def _champion(self, run: Mapping[str, Any]) -> ModelSource | None:
        """The model that a candidate is judged beside: none where there is none, or where a server runs it."""
        record = await self._registry.record(run["base_model"]) if run["base_model"] else None
        if record is None:
            return None
        artefact, manifest = (Content.model_validate(record[part]) for part in ("artefact", "manifest"))
        source = await self._source(artefact, manifest, record["version"])
        return source if source.manifest.backend == "onnx" else None

    async def _source(self, artefact: Content, manifest: Content, version: str | None = None) -> ModelSource:
        described = ModelManifest.model_validate_json(await self.service.blobs.get(manifest.uri))
        return ModelSource(artefact.uri, described, version)

    async def _move(self, run: Mapping[str, Any], state: str, *events: Any, **changes: Any) -> dict[str, Any]:
        """Write the run's record further on; what another has written meanwhile stays."""

        async def work(unit: Unit) -> dict[str, Any]:
            before = await unit.get(run_key(run["run_id"])) or dict(run)
            after = moved(before, state, **changes)
            if after != before:
                unit.put(run_key(run["run_id"]), after, guard=True)
                for event in events:
                    unit.emit(event)
            return after

        return await transact(self.service, work)

    def _alive(self, step: Callable[[Order], Awaitable[Any]]) -> Callable[[Order], Awaitable[Any]]:
        """`step`, with a sign of life before it, in the trace of its run."""

        @wraps(step)
        async def alive(order: Order) -> Any:
            beat = {"at": self.service.clock.now().isoformat(), "step": step.__name__, "slot": self.service.outbox.slot}
            await self.service.state.commit([Put(beat_key(order["run_id"]), beat, ttl=86_400)])
            run = await self._runs.get(order["run_id"]) or {}
            with tracing.span(f"run {step.__name__}", run.get(TRACE), run=order["run_id"]):
                return await step(order)

        return alive


def _metric(
    metrics: Mapping[str, Any] | None, result: Mapping[str, Any], run: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The metric that the gate goes by, its value, and which job of the backend's made the model (the best trial)."""
    if metrics is None:
        return None
    child = result.get("child_run") or run["job_id"]
    main = metrics["candidate"]
    row = {"name": metric_of(main), "value": main_value(main), "child_run": child}
    return {**row, "chosen_by": chosen} if (chosen := result.get("chosen_by")) else row


def _landed(flight: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    succeeded = run["state"] == "SUCCEEDED"
    snapshot = run["snapshot"]["id"] if succeeded else flight.get("snapshot")
    last = {"last": run["run_id"], "ended_at": run["ended_at"], "failed": not succeeded}
    return {**flight, **last, "run_id": None, "snapshot": snapshot}


def _succeeded(run: Mapping[str, Any], artefact: Content, metrics: Mapping[str, Any] | None) -> TrainingSucceeded:
    main = {metric_of(metrics["candidate"]): main_value(metrics["candidate"])} if metrics else {}
    return TrainingSucceeded(
        project=run["project"], run_id=run["run_id"], backend_job_id=run["job_id"], metrics=main, artefact=artefact
    )


def _last_words(run: Mapping[str, Any]) -> TrainingFailed | TrainingCancelled | None:
    """What is said of a run that did not succeed; of one that did, its model has been announced."""
    kinds = {"FAILED": TrainingFailed, "CANCELLED": TrainingCancelled}
    if run["state"] not in kinds:
        return None
    kind = kinds[run["state"]]
    return kind(project=run["project"], run_id=run["run_id"], backend_job_id=run["job_id"] or "", error=run["error"])
