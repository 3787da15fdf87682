"""Training runs: one at a time in a project, each named by its data, in records that outlive every crash."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson

from services.contracts.envelope import Origin
from services.contracts.events import SnapshotRef, TrainingReason, TrainingRequested
from services.contracts.ids import run_id, sha256
from services.contracts.problem import Problem, not_found
from services.contracts.projects import ProjectDocument
from services.retrain_trigger import snapshots
from services.retrain_trigger.entries import Entry, Schema
from services.retrain_trigger.heads import HeadParams
from services.retrain_trigger.labels import Labels
from services.retrain_trigger.marks import answer
from services.retrain_trigger.models import no_pointer, pointer_key
from services.retrain_trigger.trigger import Flight
from services.runtime import tracing
from services.runtime.service import Service, transact
from services.runtime.unit import Unit

ENDED = ("SUCCEEDED", "FAILED", "CANCELLED")
ORDER = ("REQUESTED", "SUBMITTED", "RUNNING", *ENDED)
GIVEN_UP = ("FAILED", "CANCELLED")


class RunActive(Problem):
    """A run is active in this project; wait for it, or cancel it."""

    def __init__(self, active: str) -> None:
        super().__init__(
            409, "run-active", f"{self.__doc__} It is {active}.", headers={"location": f"/v1/runs/{active}"}
        )
        self.active = active


class IllegalTransition(Problem):
    """The run is not in a state that this can be done in."""

    def __init__(self, run: str, state: str) -> None:
        super().__init__(409, "illegal-transition", f"{run} is {state}; what has ended does not change.")


def run_key(run: str) -> str:
    return f"run:{run}"


def beat_key(run: str) -> str:
    return f"run:beat:{run}"


def index_key(project: str) -> str:
    return f"run:index:{project}"


def flight_key(project: str) -> str:
    return f"run:active:{project}"


def snapshot_key(snapshot: str) -> str:
    return f"snap:{snapshot}"


def no_flight() -> dict[str, Any]:
    """The flight record of a project that has never trained."""
    return {"run_id": None, "last": None, "ended_at": None, "failed": False, "restarts": 0}


def read_flight(record: Mapping[str, Any]) -> Flight:
    """The flight record as the retrain rule sees it."""
    ended = datetime.fromisoformat(record["ended_at"]) if record["ended_at"] else None
    return Flight(record["run_id"], ended, record["failed"])


def moved(run: Mapping[str, Any], state: str, **changes: Any) -> dict[str, Any]:
    """The record further on; a run never goes back, nor on from where it has ended."""
    if run["state"] in ENDED or ORDER.index(state) < ORDER.index(run["state"]):
        return dict(run)
    return {**run, **changes, "state": state}


def ended(run: Mapping[str, Any]) -> bool:
    return run["state"] in ENDED


class Runs:
    """The records of runs and snapshots, and how a run comes to be."""

    def __init__(self, service: Service, labels: Labels) -> None:
        self.service = service
        self._labels = labels

    # What is read.

    async def get(self, run: str) -> dict[str, Any] | None:
        found = (await self.service.state.get([run_key(run)])).get(run_key(run))
        return found.value if found else None

    async def need(self, project: str, run: str) -> dict[str, Any]:
        """For routes: a 404 problem if the project has no such run."""
        record = await self.get(run)
        if record is None or record.get("project") != project:
            raise not_found("run", run)
        return record

    async def progress(self, run: str) -> dict[str, Any] | None:
        """The step that a run has begun last, and when; None: none yet, or long ago."""
        found = (await self.service.state.get([beat_key(run)])).get(beat_key(run))
        return {name: found.value[name] for name in ("step", "at")} if found else None

    async def ids(self, project: str) -> list[str]:
        """Oldest first."""
        found = (await self.service.state.get([index_key(project)])).get(index_key(project))
        return found.value["runs"] if found else []

    async def flight(self, project: str) -> dict[str, Any]:
        found = (await self.service.state.get([flight_key(project)])).get(flight_key(project))
        return found.value if found else no_flight()

    async def snapshot(self, project: str, snapshot: str) -> dict[str, Any]:
        """For routes: the record of a snapshot; a 404 problem if there is none."""
        found = (await self.service.state.get([snapshot_key(snapshot)])).get(snapshot_key(snapshot))
        if found is None or found.value.get("project") != project:
            raise not_found("snapshot", snapshot)
        return found.value

    async def manifest(self, uri: str) -> snapshots.Manifest:
        return snapshots.Manifest.model_validate_json(await self.service.blobs.get(uri))

    # How a run comes to be.

    async def open(
        self, document: ProjectDocument, reason: TrainingReason, by: str, *, force: bool = False
    ) -> tuple[dict[str, Any], bool]:
        """The run of the labels as they are now, and whether it is new. Raises RunActive.

        The same data with the same parameters is the same run, and is not trained again, unless it failed or was
        cancelled and is forced.
        """
        async with self.service.lock(f"open:{document.name}"):
            await self._labels.refresh(document.name)
            entries = self._labels.all(document.name)
            schema = Schema(document.task, document.labels)
            manifest = snapshots.take(document.name, schema, entries.values())
            content = manifest.encoded()
            name = snapshots.blob_name(document.name, sha256(content))
            new = self._labels.counters(document, None).new
            reference = snapshots.reference(manifest, await self.service.blobs.put(name, content), new)
            labels = origins(manifest, entries)
            # A run is in the trace of the sample whose label tipped it, or of the request that asked for it.
            tipped = labels[0] if labels and reason != "manual" else None

            async def work(unit: Unit) -> tuple[dict[str, Any], bool]:
                return await self._open(unit, document, manifest, reference, (reason, by, force))

            with tracing.span("training run", tipped, labels, project=document.name, snapshot=reference.id):
                run, created = await transact(self.service, work)
                tracing.note(run=run["run_id"])
                for label in labels if created else ():
                    tracing.mark("label used", label, tracing.current(), run=run["run_id"])
            return run, created

    async def cancel(self, project: str, run: str, by: str) -> dict[str, Any]:
        """Ask for a run's end; it ends when its next step is taken. Raises IllegalTransition."""
        await self.need(project, run)

        async def work(unit: Unit) -> dict[str, Any]:
            record = await unit.get(run_key(run)) or {}
            if ended(record):
                raise IllegalTransition(run, record["state"])
            if not record["cancel"]:
                record = {**record, "cancel": {"by": by, "at": self.service.clock.now().isoformat()}}
                unit.put(run_key(run), record, guard=True)
            return record

        return await transact(self.service, work)

    async def _open(
        self,
        unit: Unit,
        document: ProjectDocument,
        manifest: snapshots.Manifest,
        reference: SnapshotRef,
        why: tuple[TrainingReason, str, bool],
    ) -> tuple[dict[str, Any], bool]:
        reason, by, force = why
        project = document.name
        flight = await unit.get(flight_key(project)) or no_flight()
        pointer = await unit.get(pointer_key(project)) or no_pointer()
        params = _params(document)
        run = await self._free_id(unit, project, reference, params, force)
        existing = await unit.get(run_key(run))
        if flight["run_id"] not in (None, run):
            raise RunActive(flight["run_id"])
        # A request that was only half written left a record that nobody flies: it is written again.
        if existing and not (existing["state"] == "REQUESTED" and flight["run_id"] is None):
            return existing, False
        now = self.service.clock.now().isoformat()
        record = _new_run(run, project, reference, params, reason, by, pointer["version"], now)
        index = await unit.get(index_key(project)) or {"runs": []}
        if run not in index["runs"]:
            unit.put(index_key(project), {"runs": [*index["runs"], run]}, guard=True)
        await unit.get(run_key(run))
        unit.put(run_key(run), record, guard=True, origin=Origin(tracing.current()))
        unit.put(flight_key(project), {**flight, "run_id": run, "since": now, "restarts": 0}, guard=True)
        await answer(unit, project)
        unit.put(snapshot_key(reference.id), _new_snapshot(manifest, reference, flight.get("snapshot"), now))
        requested = TrainingRequested(
            project=project,
            run_id=run,
            reason=reason,
            snapshot=reference,
            base_model=pointer["version"],
            params=params,
        )
        unit.emit(requested, guard=flight_key(project))
        return record, True

    async def _free_id(
        self, unit: Unit, project: str, reference: SnapshotRef, params: dict[str, Any], force: bool
    ) -> str:
        """The run's id; forced, the first one whose run has neither succeeded nor been given up."""
        while True:
            hashed = sha256(orjson.dumps(params, option=orjson.OPT_SORT_KEYS))
            run = run_id(project, reference.sha256, hashed)
            existing = await unit.get(run_key(run))
            if not (force and existing and existing["state"] in GIVEN_UP):
                return run
            params["attempt"] = params.get("attempt", 1) + 1


def origins(manifest: snapshots.Manifest, labels: Mapping[str, Entry]) -> list[str]:
    """The traces of the labels that no earlier snapshot has, the newest first."""
    new = [labels[name] for name in manifest.rows if labels[name].snapshot is None]
    return [one.trace for one in sorted(new, key=lambda one: (one.at, one.sample_id), reverse=True) if one.trace]


def _params(document: ProjectDocument) -> dict[str, Any]:
    """All that decides what comes out of a snapshot."""
    return {
        "training": HeadParams.model_validate(document.training).model_dump(),
        "extractor": document.extractor.artefact.sha256,
    }


def _new_run(
    run: str,
    project: str,
    reference: SnapshotRef,
    params: Mapping[str, Any],
    reason: TrainingReason,
    by: str,
    champion: str | None,
    now: str,
) -> dict[str, Any]:
    return {
        "run_id": run,
        "project": project,
        "state": "REQUESTED",
        "reason": reason,
        "requested_by": by,
        "requested_at": now,
        "started_at": None,
        "ended_at": None,
        "snapshot": reference.model_dump(),
        "params": dict(params),
        "base_model": champion,
        "backend": None,
        "job_id": None,
        "pool": None,
        "model_version": None,
        "metrics": None,
        "metric": None,
        "gate": None,
        "promoted": False,
        "seconds": None,
        "error": None,
        "cancel": None,
        "callbacks": [],
    }


def _new_snapshot(
    manifest: snapshots.Manifest, reference: SnapshotRef, previous: str | None, now: str
) -> dict[str, Any]:
    return {
        **reference.model_dump(),
        "project": manifest.project,
        "labels": list(manifest.labels),
        "per_class": snapshots.per_class(manifest),
        "evaluation_sha256": manifest.evaluation_sha256,
        "previous": previous if previous != reference.id else None,
        "created_at": now,
    }
