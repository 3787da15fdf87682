"""REST of uplink: the projects that the site knows, and what waits for the cloud."""

from typing import Annotated, Any

from fastapi import APIRouter

from services.contracts.problem import not_found
from services.runtime.access import Caller, caller_with, needs
from services.runtime.service import MAIN, Service
from services.uplink.door import Door

CLOUD = "cloud"
CONTENT = "content"


def routes(service: Service, door: Door) -> APIRouter:
    """The router; the site's services read projects here instead of from their owner, who is in the cloud."""
    router = APIRouter(prefix="/v1")

    @router.get("/projects/{name}")
    async def project(name: str, caller: Annotated[Caller, caller_with("viewer")]) -> dict[str, Any]:
        document = await service.projects.get(name) if caller.sees(name) else None
        if document is None:
            raise not_found("project", name)
        return document.model_dump(mode="json")

    @router.get("/uplink", dependencies=[needs("viewer")])
    async def uplink() -> dict[str, Any]:
        up, down = (service.outboxes[CLOUD], service.outboxes[CONTENT]), service.outboxes[MAIN]
        return {
            "site": service.settings.siteid,
            "window": door.view(),
            "up": {"waiting": sum(o.waiting for o in up), "published": sum(o.published for o in up)},
            "down": {"waiting": down.waiting, "published": down.published},
        }

    return router
