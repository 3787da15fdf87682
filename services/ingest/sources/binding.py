"""Any Dapr input binding: a component's messages, each a sample of one project and stream.

The component is the operator's; its sidecar posts to the path of its name. A second replica gets messages of its own,
so this kind is not led by one replica.
"""

import asyncio

import structlog
from fastapi import Request, Response
from fastapi.routing import APIRoute

from services.contracts.problem import Problem
from services.ingest.sensors import shelve
from services.ingest.sources.config import Binding
from services.ingest.sources.door import Door, Reading
from services.runtime.errors import Drop, Retry
from services.runtime.service import Service

log = structlog.get_logger()


async def run(source: Binding, door: Door) -> None:
    """The sidecar connects; here is only to say so."""
    door.connected()
    await asyncio.Event().wait()


def listen(service: Service, door: Door, component: str) -> None:
    """Take messages of the component; one that can never be a sample is shelved and acknowledged."""

    async def receive(request: Request) -> Response:
        if not service.from_sidecar(request):
            raise Problem(401, "unauthorized", "Only this service's own sidecar may deliver messages.")
        payload = await request.body()
        if not door.due(asyncio.get_running_loop().time()):
            return Response(status_code=200)
        try:
            (outcome,) = await door.admit([(Reading(payload), None)], service.clock.now())
        except Retry as error:
            log.warning("a message must come again", source=door.source.name, reason=str(error))
            return Response(status_code=503)
        except Drop as error:
            door.refuse("dropped", str(error))
            await shelve(service, component, payload, str(error))
            return Response(status_code=200)
        door.seen()
        if isinstance(outcome, Problem):
            await shelve(service, component, payload, str(outcome))
        return Response(status_code=200)

    # Not a StrictRoute: what a device sends may be no JSON although the sidecar calls it so.
    service.api.router.add_api_route(
        f"/{component}", receive, methods=["POST"], include_in_schema=False, route_class_override=APIRoute
    )
