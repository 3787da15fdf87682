"""The routes that every service has: health, metrics, what it is, and what its sidecar delivers."""

import contextlib
from typing import TYPE_CHECKING, Annotated, Any

import orjson
from fastapi import Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from services.runtime import delivery, telemetry
from services.runtime.access import Caller, caller_with, needs
from services.runtime.errors import Retry

if TYPE_CHECKING:
    from services.runtime.service import Service


def routes(service: "Service", version: str) -> None:
    """Add them to the service's API."""
    api = service.api

    @api.get("/healthz", include_in_schema=False)
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @api.get("/readyz", include_in_schema=False)
    async def readyz() -> Response:
        reasons = service.unready()
        body = orjson.dumps({"ready": not reasons, "reasons": reasons})
        return Response(body, 503 if reasons else 200, media_type="application/json")

    @api.get("/metrics")
    async def metrics(caller: Annotated[Caller, caller_with("viewer")]) -> Response:
        telemetry.WAITING.set(service.waiting)
        with contextlib.suppress(Retry):  # a store that is away takes no other figure with it
            shelved, dropped = await service.deadletters.counts()
            telemetry.SHELVED.set(shelved)
            telemetry.GIVEN_WAY.set(dropped)
        visible = telemetry.Visible(lambda project: not project or caller.sees(project))
        return Response(generate_latest(visible), media_type=CONTENT_TYPE_LATEST)

    @api.get("/v1/openapi.json", dependencies=[needs("viewer")])
    async def openapi() -> dict[str, Any]:
        return api.openapi()

    @api.get("/v1/info", dependencies=[needs("viewer")])
    async def info() -> dict[str, Any]:
        return {
            "service": service.app_id,
            "version": version,
            "site": service.settings.siteid,
            "ready": not service.unready(),
            "events": {
                sub.event.type: sorted(event.type for event in sub.emits)
                for sub in service.inbox.subscriptions.values()
            },
        }

    delivery.routes(service)
