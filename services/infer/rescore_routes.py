"""REST of rescoring: once, over ids or a filter; or again and again, by a schedule."""

from typing import Any, Self

from fastapi import APIRouter
from pydantic import AwareDatetime, Field, field_validator, model_validator

from services.contracts import cron
from services.contracts.problem import not_found
from services.infer.rescoring import Rescoring
from services.infer.routes import Body, SampleId
from services.infer.schedules import ACTIVE, Schedules
from services.infer.serving import NONE, Serving
from services.runtime import http
from services.runtime.access import Project, needs


class Where(Body):
    """Which stored samples: the filters of ingest's list."""

    tag: str | None = None
    stream: str | None = None
    since: AwareDatetime | None = Field(default=None, alias="from")
    until: AwareDatetime | None = Field(default=None, alias="to")

    def params(self) -> dict[str, str]:
        """As query parameters of ingest's list."""
        fields = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return {name: str(value) for name, value in fields.items()}


class RescoreRequest(Body):
    """Samples by id or by filter, and the version to score them with; by a filter again and again, by a schedule."""

    model_version: str = Field(default=ACTIVE, min_length=1)
    sample_ids: list[SampleId] | None = Field(default=None, min_length=1, max_length=10_000)
    filter: Where | None = None
    schedule: str | None = Field(default=None, description="cron (UTC), @daily, @every 10h")

    @field_validator("schedule")
    @classmethod
    def _cron(cls, schedule: str | None) -> str | None:
        return schedule and cron.checked(schedule)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.sample_ids is None) == (self.filter is None):
            raise ValueError("give either sample_ids or filter")
        if self.schedule and self.filter is None:
            raise ValueError("a schedule goes with a filter: what it finds is new each time")
        return self


def routes(serving: Serving, rescoring: Rescoring, schedules: Schedules) -> APIRouter:
    router = APIRouter(route_class=http.StrictRoute)
    projects = rescoring.projects

    @router.post("/v1/rescore", dependencies=[needs("operator")], status_code=202)
    async def rescore(project: Project, body: RescoreRequest) -> dict[str, Any]:
        await projects.need(project)
        known = body.model_version in (NONE, ACTIVE)
        if not known and await serving.wanted.known(project, body.model_version) is None:
            raise not_found("model version", body.model_version)
        where = body.filter.params() if body.filter else {}
        if body.schedule:
            return await schedules.put(project, body.model_version, where, body.schedule)
        version = schedules.version(project, body.model_version)
        return _job(await rescoring.submit(project, version, body.sample_ids, where))

    @router.get("/v1/rescore", dependencies=[needs("viewer")])
    async def standing(project: Project) -> dict[str, Any]:
        await projects.need(project)
        return http.page(await schedules.all(project), None)

    @router.get("/v1/rescore/{name}", dependencies=[needs("viewer")])
    async def progress(project: Project, name: str) -> dict[str, Any]:
        job = await rescoring.get(project, name)
        if job is None:
            raise not_found("rescoring", name)
        return _job(job)

    @router.delete("/v1/rescore/{name}", dependencies=[needs("operator")], status_code=204)
    async def no_more(project: Project, name: str) -> None:
        if not await schedules.remove(project, name):
            raise not_found("standing order", name)

    return router


def _job(job: dict[str, Any]) -> dict[str, Any]:
    names = ("id", "model_version", "state", "done", "failed", "unknown", "total", "detail", "created_at")
    return {name: job[name] for name in names}
