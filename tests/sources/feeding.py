"""ingest on memory ports with a file of sources, and what the tests ask it."""

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import yaml
from conftest import Running, started, wait_until
from worlds import project

from services.contracts.events import SampleIngested
from services.ingest.app import create
from services.runtime.memory import MemoryBlobs, MemoryBus, MemoryPeers, MemoryState, SystemClock
from services.runtime.ports import Ports

QUICK = {"first": 0.05, "longest": 0.2}


async def eventually(what: Callable[[], Any]) -> Any:
    """The same as `wait_until`, for what a machine that is busy may need long for."""
    return await wait_until(what, 40)


def nobody(path: str, params: Any) -> Any:
    raise KeyError(path)


def real_time() -> Ports:
    """Memory ports that go by the machine's clock, as sources do."""
    clock = SystemClock()
    peers = MemoryPeers({"retrain-trigger": nobody})
    return Ports(MemoryState(clock), MemoryBus(), MemoryBlobs(), clock, peers, None)


@contextlib.asynccontextmanager
async def feeding(
    folder: Path, monkeypatch: Any, *sources: dict[str, Any], ports: Ports | None = None, **settings: Any
) -> AsyncIterator["Feeding"]:
    """ingest with these sources, and the projects `default` (8x8 images) and `table` (columns a and b)."""
    file = folder / "sources.yaml"
    file.write_text(yaml.safe_dump({"sources": [{"reconnect": QUICK, **source} for source in sources]}))
    monkeypatch.setenv("HALFSURE_INGEST_SOURCES", str(file))
    async with started(create, folder, ports=ports or real_time(), **settings) as running:
        await running.deliver(await project(running.blobs))
        await running.deliver(await project(running.blobs, "table", "tabular"))
        yield Feeding(running)


class Feeding:
    """The running service, seen from its sources' side."""

    def __init__(self, running: Running) -> None:
        self.running = running

    async def source(self, name: str, project: str = "default") -> dict[str, Any]:
        answer = await self.running.call("GET", f"/v1/sources/{name}?project={project}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def samples(self, project: str = "default") -> list[dict[str, Any]]:
        return (await self.running.call("GET", f"/v1/samples?project={project}&limit=500")).json()["items"]

    async def ingested(self) -> list[dict[str, Any]]:
        return await self.running.data(SampleIngested)

    async def ready(self) -> dict[str, Any]:
        return (await self.running.client.get("/readyz")).json()
