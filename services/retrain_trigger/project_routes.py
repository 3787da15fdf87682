"""REST of projects and their retrain rules."""

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Header, Query, Response

from services.contracts.problem import invalid, not_found
from services.contracts.projects import ProjectDocument, ProjectSpec, TriggerRule
from services.retrain_trigger.catalogue import Catalogue, etag
from services.retrain_trigger.flights import Flights
from services.retrain_trigger.trigger import cooldown_until
from services.runtime import http
from services.runtime.access import Caller, authenticate, caller_with
from services.runtime.http import StrictRoute

IfMatch = Annotated[str | None, Header()]


def visible(name: str, caller: Annotated[Caller, Depends(authenticate)]) -> str:
    """A project by its path; another's is not found."""
    if not caller.sees(name):
        raise not_found("project", name)
    return name


Named = Annotated[str, Depends(visible)]
Operator = Annotated[Caller, caller_with("operator")]
Viewer = Annotated[Caller, caller_with("viewer")]


def routes(catalogue: Catalogue, flights: Flights) -> APIRouter:
    router = APIRouter(route_class=StrictRoute)
    _projects(router, catalogue, flights)
    _triggers(router, catalogue, flights)
    return router


def _projects(router: APIRouter, catalogue: Catalogue, flights: Flights) -> None:
    projects = catalogue.service.projects

    @router.post("/v1/projects", status_code=201, responses={200: {"description": "It was here already"}})
    async def create(spec: ProjectSpec, caller: Operator) -> Response:
        if not caller.sees(spec.name):
            raise not_found("project", spec.name)  # neither whether it is there, nor that it could be
        document, new = await catalogue.create(spec)
        return _answer(document, 201 if new else 200, location=f"/v1/projects/{spec.name}")

    @router.get("/v1/projects")
    async def listed(
        caller: Viewer, limit: Annotated[int, Query(ge=1, le=500)] = 50, cursor: str | None = None
    ) -> dict[str, Any]:
        after = http.read_cursor(cursor) or ""
        known = sorted((one for one in projects.all() if caller.sees(one.name)), key=lambda one: one.name)
        left = [one for one in known if one.name > after]
        page = left[:limit]
        more = page[-1].name if len(left) > limit else None
        return http.page([one.model_dump(mode="json") for one in page], more)

    @router.get("/v1/projects/{name}")
    async def one(name: Named, caller: Viewer) -> Response:
        return _answer(await projects.need(name), 200)

    @router.put("/v1/projects/{name}")
    async def change(name: Named, spec: ProjectSpec, caller: Operator, if_match: IfMatch = None) -> Response:
        if spec.name != name:
            raise invalid("/name", "fixed", f"The body names {spec.name!r}, the path {name!r}.")
        return _answer(await catalogue.change(spec, if_match), 200)

    @router.delete("/v1/projects/{name}", status_code=204)
    async def delete(name: Named, caller: Annotated[Caller, caller_with("admin")], if_match: IfMatch = None) -> None:
        await projects.need(name)
        await catalogue.delete(name, if_match)
        await flights.clear(name, caller.subject)


def _triggers(router: APIRouter, catalogue: Catalogue, flights: Flights) -> None:
    @router.get("/v1/triggers/{name}")
    async def trigger(name: Named, caller: Viewer) -> Response:
        return await _standing(name)

    @router.put("/v1/triggers/{name}")
    async def change(name: Named, rule: TriggerRule, caller: Operator, if_match: IfMatch = None) -> Response:
        await catalogue.service.projects.need(name)
        await catalogue.change_trigger(name, rule, if_match)
        return await _standing(name)

    async def _standing(name: str) -> Response:
        document = await catalogue.service.projects.need(name)
        counters, flight, decision = await flights.standing(document)
        now, pause = flights.service.clock.now(), flights.settings.pause_after_failure
        body = {
            "project": name,
            "rule": document.trigger.model_dump(),
            "counters": {
                "new": counters.new,
                "retracted": counters.retracted,
                "per_class": dict(counters.per_class),
                "evaluation": counters.evaluation,
                "audit": {"errors": counters.audit_errors, "total": counters.audit_total},
                "oldest_new": counters.oldest_new,
            },
            "drift": await flights.drift(name),
            "fires": decision.fire,
            "reason": decision.reason,
            "missing": dict(decision.missing),
            "cooldown_until": cooldown_until(document.trigger, flight, now, pause),
            "active_run": flight.active,
        }
        return Response(orjson.dumps(body), media_type="application/json", headers={"etag": etag(document)})


def _answer(document: ProjectDocument, status: int, **headers: str) -> Response:
    body = orjson.dumps(document.model_dump(mode="json"))
    return Response(body, status, headers={"etag": etag(document), **headers}, media_type="application/json")
