"""A service as in production, on a clock that can be made to jump and a blob store that can be made slow.

    python tests/chaos/serve.py APP-ID

Both follow the file that HALFSURE_CHAOS names, {"clock": seconds, "blobs": seconds}, while it is there.
"""

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from os import environ
from pathlib import Path
from typing import Any

from services.runtime import __main__ as production
from services.runtime.ports import Blobs, Clock, Ports
from services.runtime.settings import RuntimeSettings

CONTROL = Path(environ["HALFSURE_CHAOS"])


def wanted(name: str) -> float:
    """What the file says now; nothing, where there is none."""
    try:
        return float(json.loads(CONTROL.read_text()).get(name, 0.0))
    except (OSError, ValueError):
        return 0.0


class JumpingClock:
    """The time, and what was added to it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def now(self) -> datetime:
        return self._clock.now() + timedelta(seconds=wanted("clock"))


class SlowBlobs:
    """The blob store, after a while."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    async def put(self, name: str, content: bytes) -> str:
        await asyncio.sleep(wanted("blobs"))
        return await self._blobs.put(name, content)

    async def get(self, uri: str) -> bytes:
        await asyncio.sleep(wanted("blobs"))
        return await self._blobs.get(uri)

    async def put_all(self, contents: Sequence[tuple[str, bytes]]) -> list[str]:
        await asyncio.sleep(wanted("blobs"))
        return await self._blobs.put_all(contents)

    async def get_all(self, uris: Sequence[str]) -> list[bytes | None]:
        await asyncio.sleep(wanted("blobs"))
        return await self._blobs.get_all(uris)

    async def holds(self, uri: str, content: bytes) -> bool:
        return await self._blobs.holds(uri, content)

    async def replace(self, uri: str, content: bytes) -> None:
        await self._blobs.replace(uri, content)

    async def delete(self, uri: str) -> None:
        await self._blobs.delete(uri)


async def connect(settings: RuntimeSettings) -> tuple[Ports, Callable[[], Any]]:
    ports, close = await production_connect(settings)
    return replace(ports, clock=JumpingClock(ports.clock), blobs=SlowBlobs(ports.blobs)), close


production_connect, production.connect_dapr = production.connect_dapr, connect

if __name__ == "__main__":
    sys.exit(production.main(sys.argv[1:]))
