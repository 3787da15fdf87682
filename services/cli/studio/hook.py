"""Where Label Studio tells of annotations: what it says is only where to look, so it need not be believed."""

import asyncio
import contextlib
import hmac
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import orjson
import uvicorn
from fastapi import FastAPI, Request, Response

from services.cli.studio.news import News
from services.cli.studio.server import ACTIONS

LARGEST = 8 << 20  # bytes of a body


def api(news: News, secret: str) -> FastAPI:
    """One route, for whoever has the secret."""
    app = FastAPI(openapi_url=None)

    @app.post("/label-studio")
    async def told(request: Request) -> Response:
        given = request.headers.get("authorization", "").encode()
        if not hmac.compare_digest(given, f"Bearer {secret}".encode()):
            return Response(status_code=401)
        size = 0
        parts: list[bytes] = []
        async for part in request.stream():
            size += len(part)
            if size > LARGEST:
                break
            parts.append(part)
        news.tell(named(b"".join(parts)) if size <= LARGEST else None)
        return Response(status_code=204)

    return app


class _Quiet(uvicorn.Server):
    """Leaves signals to whoever runs it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def listening(news: News, secret: str, host: str, port: int) -> AsyncIterator[None]:
    """Messages are taken as long as the block lasts. Raises OSError for a port that is taken."""
    with socket.create_server((host, port)) as door:
        server = _Quiet(uvicorn.Config(api(news, secret), log_level="warning", access_log=False, lifespan="off"))
        serving = asyncio.create_task(server.serve([door]))
        try:
            yield
        finally:
            server.should_exit = True
            await serving


def named(body: bytes) -> set[int] | None:
    """The tasks that a message is about; None if it does not say, as of annotations that are deleted."""
    try:
        said = orjson.loads(body)
    except ValueError:
        return None
    if not isinstance(said, dict):
        return None
    if said.get("action") not in ACTIONS:
        return set()
    if str(said["action"]).endswith("DELETED"):
        return None
    parts = [*_listed(said.get("task")), *_listed(said.get("tasks"))]
    numbers = {part.get("id") for part in parts}
    numbers |= {part.get("task") for key in ("annotation", "annotations") for part in _listed(said.get(key))}
    found = {number for number in numbers if isinstance(number, int)}
    return found or None


def _listed(value: Any) -> list[dict[str, Any]]:
    rows = value if isinstance(value, list) else [value]
    return [row for row in rows if isinstance(row, dict)]
