"""A service in memory: the same app as in production, on the ports of the `test` profile."""

import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
from hypothesis import settings

from services.cli.toolchain import NoRuntime, find_runtime
from services.contracts.envelope import Origin, wrap
from services.contracts.events import Event
from services.runtime import garbage, telemetry
from services.runtime.memory import MemoryBlobs, MemoryBus, MemoryJobs, MemoryPeers, MemoryState, SteppedClock
from services.runtime.memory_workflows import MemoryWorkflows
from services.runtime.ports import Ports
from services.runtime.service import Service
from services.runtime.settings import RuntimeSettings

telemetry.configure("test", "warning")
settings.register_profile("any machine", deadline=None)  # what is slow is for benchmarks to say
settings.load_profile("any machine")


def pytest_collection_finish() -> None:
    """As `python -m services.runtime` does: what is there for good is not looked through at every collection."""
    garbage.look_less()


SIDECAR_TOKEN = "sidecar-token"
TOKENS = {role: f"{role}-token" for role in ("viewer", "annotator", "reviewer", "operator", "admin")}


def write_tokens(path: Path) -> Path:
    rows = [
        {"sha256": sha256(token.encode()).hexdigest(), "subject": role, "role": role, "projects": ["*"]}
        for role, token in TOKENS.items()
    ]
    only = {"sha256": sha256(b"other-token").hexdigest(), "subject": "other", "role": "admin", "projects": ["other"]}
    path.write_text(json.dumps({"tokens": [*rows, only]}))
    return path


def nobody(path: str, params: Mapping[str, str]) -> Any:
    """A peer that is there and knows nothing."""
    raise KeyError(path)


class Running:
    """A started service: REST calls, deliveries from its broker, and what it has published."""

    def __init__(self, service: Service, ports: Ports, client: httpx2.AsyncClient) -> None:
        self.service = service
        self.state: MemoryState = ports.state  # type: ignore[assignment]
        self.bus: MemoryBus = ports.publisher  # type: ignore[assignment]
        self.blobs: MemoryBlobs = ports.blobs  # type: ignore[assignment]
        self.clock: SteppedClock = ports.clock  # type: ignore[assignment]
        self.client = client

    async def call(self, method: str, path: str, role: str = "admin", **kwargs: Any) -> httpx2.Response:
        headers = {"authorization": f"Bearer {TOKENS[role]}", **kwargs.pop("headers", {})}
        return await self.client.request(method, path, headers=headers, **kwargs)

    async def records(self) -> dict[str, Any]:
        """All that the service's store holds."""
        return {key: entry.value for key, entry in (await self.state.get(self.state.rows())).items()}

    async def deliver(self, *events: Event) -> list[str]:
        """What the sidecar would send for these events, in bulk by topic; the verdicts, in order."""
        now = self.clock.now()
        envelopes = [
            (event.topic, orjson.loads(wrap(event, siteid="test", service="test", now=now))) for event in events
        ]
        return [(await self.deliver_raw(topic, [envelope]))[0] for topic, envelope in envelopes]

    async def deliver_batch(self, events: Sequence[Event], siteid: str = "test", deviceid: str = "") -> list[str]:
        now, origin = self.clock.now(), Origin(device=deviceid or None)
        envelopes = [orjson.loads(wrap(e, siteid=siteid, service="test", now=now, origin=origin)) for e in events]
        return await self.deliver_raw(events[0].topic, envelopes)

    async def deliver_raw(self, topic: str, envelopes: Sequence[Any]) -> list[str]:
        entries = [{"entryId": str(i), "event": envelope} for i, envelope in enumerate(envelopes)]
        answer = await self.client.post(
            f"/events/{topic}", json={"entries": entries}, headers={"dapr-api-token": SIDECAR_TOKEN}
        )
        assert answer.status_code == 200, answer.text
        return [row["verdict"] for row in answer.json()["statuses"]]

    async def published(self) -> list[tuple[str, dict[str, Any]]]:
        """(topic, envelope) of everything published since the last call."""
        await self.service.outbox.drain()
        return self.bus.take()

    async def data(self, kind: type[Event]) -> list[dict[str, Any]]:
        """The data of the events of one type published since the last call."""
        return [envelope["data"] for _, envelope in await self.published() if envelope["type"] == kind.type]


def memory_ports(peers: Mapping[str, Callable[..., Any]] | None = None) -> Ports:
    """The ports of the `test` profile, empty."""
    clock = SteppedClock(datetime(2026, 1, 1, tzinfo=UTC))
    known = MemoryPeers({"retrain-trigger": nobody, **(peers or {})})
    engines = {"workflows": MemoryWorkflows(), "jobs": MemoryJobs()}
    return Ports(MemoryState(clock), MemoryBus(), MemoryBlobs(), clock, known, bus=lambda _: MemoryBus(), **engines)


@contextlib.asynccontextmanager
async def started(
    create: Callable[..., Service],
    folder: Path,
    ports: Ports | None = None,
    peers: Mapping[str, Callable[..., Any]] | None = None,
    **settings: Any,
) -> AsyncIterator[Running]:
    """Run `create(settings, connect)` on memory ports; a second run on the same ports is a restart."""
    ports = ports or memory_ports(peers)

    async def connect(_: RuntimeSettings) -> tuple[Ports, Callable[[], Any]]:
        async def close() -> None: ...

        return ports, close

    runtime = RuntimeSettings(
        sidecar_token=SIDECAR_TOKEN,
        tokens=write_tokens(folder / "tokens.json"),
        state_dir=folder,
        **{"replica": 0, **settings},
    )
    service = create(runtime, connect)
    transport = httpx2.ASGITransport(app=service.api, raise_app_exceptions=False)
    async with (
        service.api.router.lifespan_context(service.api),
        httpx2.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        yield Running(service, ports, client)


@pytest.fixture
def ports() -> Ports:
    """Memory ports that outlive a service, for restarts."""
    return memory_ports()


def require_runtime() -> None:
    """Skips where the Dapr runtime is not installed; in CI that is a failure."""
    try:
        find_runtime()
    except NoRuntime as error:
        if os.environ.get("CI") or os.environ.get("HALFSURE_REQUIRE_DAPR"):
            raise
        pytest.skip(str(error))


async def wait_until(what: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Poll until `what()` (plain or async) is truthy; fails with its name after `seconds`."""
    import asyncio
    import inspect

    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = what()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        await asyncio.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {getattr(what, '__name__', what)}")


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loops that turn quickly, so that tests need not wait."""
    monkeypatch.setenv("HALFSURE_RETRAIN_TRIGGER_CHECK_SECONDS", "0.02")
    monkeypatch.setenv("HALFSURE_RETRAIN_TRIGGER_TEND_SECONDS", "0.05")
    monkeypatch.setenv("HALFSURE_RETRAIN_TRIGGER_POOL_PATIENCE", "0")
