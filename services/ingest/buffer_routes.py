"""REST of the site's store: how full it is, and asking uplink to empty it."""

import uuid
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from services.contracts.events import BufferFlushRequested
from services.contracts.problem import Problem
from services.ingest.buffer import Buffer
from services.runtime import http
from services.runtime.access import Project, needs
from services.runtime.errors import Unavailable
from services.runtime.service import Service


class Flush(BaseModel):
    """Whether what waits goes up outside of the uplink's windows too."""

    model_config = ConfigDict(extra="forbid")

    force: bool = False


def buffer_routes(service: Service, buffer: Buffer) -> APIRouter:
    """The router."""
    router = APIRouter(route_class=http.StrictRoute, prefix="/v1")

    @router.get("/buffer", dependencies=[needs("viewer")])
    async def shown() -> dict[str, Any]:
        return await buffer.view()

    @router.post("/buffer:flush", dependencies=[needs("operator")], status_code=202)
    async def flush(project: Project, body: Flush | None = None) -> dict[str, Any]:
        return await _flush(service, project, (body or Flush()).force)

    return router


async def _flush(service: Service, project: str, force: bool) -> dict[str, Any]:
    """Raises a 409 problem outside of the uplink's windows, unless forced."""
    try:
        uplink = await service.peers.get("uplink", "v1/uplink", {})
    except (KeyError, Unavailable) as error:
        raise Problem(503, "no-uplink", "There is no uplink here that answers; it may be starting.") from error
    window = uplink["window"]
    if not window["open"] and not force:
        opens = window["opens"] or "at no time within a week"
        raise Problem(409, "uplink-closed", f"The uplink's window opens {opens}; say force to send before.")
    unit = await service.unit()
    unit.emit(BufferFlushRequested(project=project, request_id=f"req_{uuid.uuid4().hex[:26]}", force=force))
    await unit.commit()
    return {"waiting": uplink["up"]["waiting"], "force": force}
