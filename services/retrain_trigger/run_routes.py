"""REST of training runs and snapshots."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict

from services.contracts.ids import sha256
from services.contracts.problem import Fault, Problem, not_found
from services.contracts.projects import ProjectDocument
from services.retrain_trigger.flights import Flights
from services.retrain_trigger.runs import RunActive, Runs, run_key
from services.retrain_trigger.snapshots import difference
from services.retrain_trigger.trigger import shortage
from services.runtime import http, tracing
from services.runtime.access import Caller, Project, caller_with, needs
from services.runtime.http import StrictRoute
from services.runtime.unit import TRACE


class RunRequest(BaseModel):
    """A run on demand; forced, the rule's least numbers do not count, nor does a run that failed."""

    model_config = ConfigDict(extra="forbid")

    reason: Literal["manual"] = "manual"
    force: bool = False


Operator = Annotated[Caller, caller_with("operator")]


def routes(runs: Runs, flights: Flights) -> APIRouter:
    router = APIRouter(route_class=StrictRoute)
    _runs(router, runs, flights)
    _snapshots(router, runs)
    return router


def _runs(router: APIRouter, runs: Runs, flights: Flights) -> None:
    service = runs.service

    @router.post("/v1/runs", status_code=202, responses={200: {"description": "The run of the same labels"}})
    async def start(project: Project, body: RunRequest, caller: Operator) -> Response:
        document = await service.projects.need(project)
        await _enough(flights, document, forced=body.force)
        run, created = await runs.open(document, body.reason, caller.subject, force=body.force)
        if created:
            await flights.launch(run["run_id"])
        headers = {"location": f"/v1/runs/{run['run_id']}?project={project}"}
        body_ = orjson.dumps(shown(run))
        return Response(body_, 202 if created else 200, headers=headers, media_type="application/json")

    @router.get("/v1/runs", dependencies=[needs("viewer")])
    async def listed(
        project: Project, limit: Annotated[int, Query(ge=1, le=500)] = 50, cursor: str | None = None
    ) -> dict[str, Any]:
        await service.projects.need(project)
        page, more = newest(await runs.ids(project), limit, http.read_cursor(cursor))
        found = await service.state.get([run_key(run) for run in page])
        return http.page([shown(found[run_key(run)].value) for run in page if run_key(run) in found], more)

    @router.get("/v1/runs/{run}", dependencies=[needs("viewer")])
    async def one(project: Project, run: str) -> dict[str, Any]:
        return {**shown(await runs.need(project, run)), "progress": await runs.progress(run)}

    @router.post("/v1/runs/{run}:cancel", status_code=202)
    async def cancel(project: Project, run: str, caller: Operator) -> dict[str, Any]:
        return shown(await flights.cancel(project, run, caller.subject))


def _snapshots(router: APIRouter, runs: Runs) -> None:
    @router.get("/v1/snapshots/{snapshot}", dependencies=[needs("viewer")])
    async def one(project: Project, snapshot: str) -> dict[str, Any]:
        record = await runs.snapshot(project, snapshot)
        changes: dict[str, Any] = {"added": record["counts"]["train"] + record["counts"]["evaluation"], "removed": 0}
        if record["previous"]:
            found = await _difference(project, record["previous"], snapshot)
            changes = {name: len(found[name]) for name in ("added", "removed", "changed")}
        return {**shown(record), "changes": changes}

    @router.get("/v1/snapshots/{snapshot}/diff", dependencies=[needs("viewer")])
    async def diff(project: Project, snapshot: str, old: Annotated[str, Query(alias="from")]) -> dict[str, Any]:
        return {"from": old, "to": snapshot, **await _difference(project, old, snapshot)}

    @router.get("/v1/snapshots/{snapshot}/content", dependencies=[needs("viewer")])
    async def content(project: Project, snapshot: str) -> Response:
        record = await runs.snapshot(project, snapshot)
        try:
            raw = await runs.service.blobs.get(record["uri"])
        except KeyError as error:
            raise not_found("snapshot", snapshot) from error
        return Response(raw, media_type="application/json", headers={"etag": f'"{sha256(raw)}"'})

    async def _difference(project: str, old: str, new: str) -> Mapping[str, Any]:
        before, after = await runs.snapshot(project, old), await runs.snapshot(project, new)
        return difference(await runs.manifest(before["uri"]), await runs.manifest(after["uri"]))


async def _enough(flights: Flights, document: ProjectDocument, *, forced: bool) -> None:
    """Raises RunActive, or a 409 problem that names what each class lacks."""
    counters, flight, _ = await flights.standing(document)
    if flight.active:
        raise RunActive(flight.active)
    if short := shortage(document.trigger, counters, forced=forced):
        faults = [
            Fault(pointer=f"/labels/{label}", code="shortage", message=f"{label!r} lacks {lacking} labels")
            for label, lacking in short.items()
        ]
        detail = f"{len(short)} classes have too few labels: " + ", ".join(f"{k} lacks {v}" for k, v in short.items())
        raise Problem(409, "not-enough-labels", detail[:500], errors=faults)


def newest(ids: list[str], limit: int, after: str | None) -> tuple[list[str], str | None]:
    """A page of ids that are kept oldest first, newest first; and the one to go on from."""
    turned = ids[::-1]
    start = turned.index(after) + 1 if after in turned else 0
    page = turned[start : start + limit]
    return page, page[-1] if page and start + limit < len(turned) else None


def shown(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record without what is only the store's, and the trace that it is of."""
    shown_ = {name: value for name, value in record.items() if not name.startswith("_")}
    return {**shown_, "trace_id": tracing.trace_id(record[TRACE])} if TRACE in record else shown_
