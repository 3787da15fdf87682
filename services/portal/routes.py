"""REST of portal: who the caller is, and what happens."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse

from services.contracts.problem import Problem, not_found
from services.portal.feed import Feed
from services.portal.settings import PortalSettings
from services.runtime import http
from services.runtime.access import Caller, Tokens, caller_with

Viewer = Annotated[Caller, caller_with("viewer")]
LONGEST_ID = 19  # digits of a segment's number


def routes(feed: Feed, settings: PortalSettings) -> APIRouter:
    """The routes, tied to the feed."""
    router = APIRouter(route_class=http.StrictRoute)

    @router.get("/v1/me")
    async def me(caller: Viewer) -> dict[str, Any]:
        return {
            "subject": caller.subject,
            "role": caller.role,
            "projects": list(caller.projects),
            "services": settings.services,
        }

    @router.get("/v1/events", response_class=StreamingResponse)
    async def events(
        request: Request,
        caller: Viewer,
        project: Annotated[str | None, Query(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")] = None,
        last_event_id: Annotated[str | None, Header()] = None,
    ) -> StreamingResponse:
        if project is not None and not caller.sees(project):
            raise not_found("project", project)
        if feed.listeners >= settings.most_listeners:
            detail = f"{settings.most_listeners} listen here already; the page works without, and tries again."
            raise Problem(503, "too-many-listeners", detail, headers={"retry-after": "5"})

        def sees(name: str) -> bool:
            return caller.sees(name) and project in (None, name)

        stream = feed.follow(_number(last_event_id), sees, settings.heartbeat_seconds)
        headers = {"cache-control": "no-store", "x-accel-buffering": "no", "x-content-type-options": "nosniff"}
        return StreamingResponse(_while_known(request, stream), headers=headers, media_type="text/event-stream")

    return router


def _number(last_event_id: str | None) -> int | None:
    """Raises a 400 for an id that no stream here gave out."""
    if last_event_id is None or last_event_id == "":
        return None
    if not last_event_id.isascii() or not last_event_id.isdigit() or len(last_event_id) > LONGEST_ID:
        raise Problem(400, "bad-event-id", "This Last-Event-ID is none that the stream gave out; leave it away.")
    return int(last_event_id)


async def _while_known(request: Request, stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The stream ends with the token it was opened with, at its next sign of life at the latest."""
    tokens: Tokens = request.app.state.tokens
    token = request.headers.get("authorization", "").partition(" ")[2].strip()
    async for chunk in stream:
        if await tokens.caller(token) is None:
            return
        yield chunk
