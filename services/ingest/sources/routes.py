"""REST of the sources: how each fares, and a capture by hand."""

from typing import Any

from fastapi import APIRouter, Response

from services.contracts.problem import Problem, not_found
from services.ingest.records import answer
from services.ingest.sources.supervisor import SourcesKeeper
from services.runtime import http
from services.runtime.access import Project, needs


def routes(keeper: SourcesKeeper) -> APIRouter:
    """All routes, tied to `keeper`."""
    router = APIRouter(route_class=http.StrictRoute)
    viewer = [needs("viewer")]

    @router.get("/v1/sources", dependencies=viewer)
    async def listed(project: Project) -> dict[str, Any]:
        return http.page(await keeper.views(project), None)

    @router.get("/v1/sources/{name}", dependencies=viewer)
    async def one(project: Project, name: str) -> dict[str, Any]:
        return await _view(project, name)

    @router.post("/v1/sources/{name}:capture", dependencies=[needs("operator")], status_code=201)
    async def capture(project: Project, name: str) -> Response:
        """The next frame or row, past the rate cap, as a sample with trigger `manual`."""
        await _view(project, name)
        outcome = await keeper.capture(name)
        if isinstance(outcome, Problem):
            raise outcome
        return answer(outcome, project)

    async def _view(project: str, name: str) -> dict[str, Any]:
        found = [view for view in await keeper.views(project) if view["name"] == name]
        if not found:
            raise not_found("source", name)
        return found[0]

    return router
