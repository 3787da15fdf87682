"""Somebody who listens to the portal's stream, over a real connection."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import orjson
import uvicorn
from conftest import TOKENS, Running, wait_until


def parsed(text: str) -> list[dict[str, str]]:
    frames = [frame for frame in text.split("\n\n") if frame and not frame.startswith(":")]
    return [
        dict(line.split(": ", 1) for line in frame.splitlines() if not line.startswith("retry")) for frame in frames
    ]


class Listener:
    """An open stream over a real connection."""

    def __init__(self, port: int, token: str = TOKENS["annotator"], after: str | None = None, query: str = "") -> None:
        headers = {"authorization": f"Bearer {token}"} | ({"last-event-id": after} if after else {})
        self._url, self._headers = f"http://127.0.0.1:{port}/v1/events{query}", headers
        self.text = ""
        self.ended = False

    async def __aenter__(self) -> "Listener":
        self._task = asyncio.create_task(self._read())
        await wait_until(lambda: self.text or self.ended)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _read(self) -> None:
        async with (
            httpx2.AsyncClient(timeout=None, trust_env=False) as client,
            client.stream("GET", self._url, headers=self._headers) as answer,
        ):
            assert answer.status_code == 200
            async for chunk in answer.aiter_text():
                self.text += chunk
        self.ended = True

    def events(self) -> list[dict[str, str]]:
        return parsed(self.text)

    def told(self, kind: str) -> list[dict[str, Any]]:
        """All events of a type so far."""
        return [orjson.loads(event["data"]) for event in self.events() if event["event"] == kind]

    async def heard(self, kind: str, count: int = 1, seconds: float = 10) -> list[dict[str, Any]]:
        """All events of a type, once there are so many."""
        await wait_until(lambda: len(self.told(kind)) >= count, seconds)
        return self.told(kind)


@contextlib.asynccontextmanager
async def on_a_socket(portal: Running) -> AsyncIterator[int]:
    """The portal's port: a stream has no end that an in-process transport could wait for."""
    server = uvicorn.Server(uvicorn.Config(portal.service.api, port=0, lifespan="off", log_level="warning"))
    serving = asyncio.create_task(server.serve())
    await wait_until(lambda: server.started)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = server.force_exit = True
    await serving
