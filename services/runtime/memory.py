"""The ports in memory: the `test` profile, held to the same suite as the Dapr adapters."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import orjson
from starlette.types import ASGIApp

from services.runtime.errors import Conflict, Unavailable
from services.runtime.ports import CREATE, Answer, Call, Clock, Entry, Op, Outgoing, Put


class MemoryState:
    """A dict with etags. Like Redis, a stale etag refuses its own write only."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._rows: dict[str, tuple[bytes, int, datetime | None]] = {}
        self._version = 0

    async def get(self, keys: Sequence[str]) -> dict[str, Entry]:
        await asyncio.sleep(0)
        rows = {key: row for key in keys if (row := self._row(key))}
        return {key: Entry(orjson.loads(raw), str(version)) for key, (raw, version, _) in rows.items()}

    async def commit(self, ops: Sequence[Op]) -> None:
        await asyncio.sleep(0)
        stale = [op.key for op in ops if not self._apply(op)]
        if stale:
            raise Conflict(stale)

    def rows(self) -> list[str]:
        return [key for key in list(self._rows) if self._row(key)]

    def _row(self, key: str) -> tuple[bytes, int, datetime | None] | None:
        row = self._rows.get(key)
        if row and row[2] and row[2] <= self._clock.now():
            del self._rows[key]
            return None
        return row

    def _apply(self, op: Op) -> bool:
        if not isinstance(op, Put):
            self._rows.pop(op.key, None)
            return True
        row = self._row(op.key)
        if op.etag == CREATE and row:
            return False
        if op.etag not in (None, CREATE) and (row is None or str(row[1]) != op.etag):
            return False
        self._version += 1
        until = self._clock.now() + timedelta(seconds=op.ttl) if op.ttl else None
        self._rows[op.key] = (orjson.dumps(op.value), self._version, until)
        return True


class MemoryBus:
    """A broker for one process: keeps what was published and hands it to whoever subscribes."""

    def __init__(self) -> None:
        self.published: list[tuple[str, dict[str, Any]]] = []
        self.down = False

    async def publish(self, events: Sequence[Outgoing]) -> list[Outgoing]:
        await asyncio.sleep(0)
        if self.down:
            raise Unavailable("the broker is switched off")
        self.published += [(event.topic, orjson.loads(event.envelope)) for event in events]
        return []

    def take(self) -> list[tuple[str, dict[str, Any]]]:
        """What was published since the last call."""
        taken, self.published = self.published, []
        return taken


class MemoryBlobs:
    """Blobs in a dict."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}

    async def put(self, name: str, content: bytes) -> str:
        self.contents[f"blob:{name}"] = content
        return f"blob:{name}"

    async def get(self, uri: str) -> bytes:
        return self.contents[uri]

    async def put_all(self, contents: Sequence[tuple[str, bytes]]) -> list[str]:
        return [await self.put(name, content) for name, content in contents]

    async def get_all(self, uris: Sequence[str]) -> list[bytes | None]:
        return [self.contents.get(uri) for uri in uris]

    async def holds(self, uri: str, content: bytes) -> bool:
        return self.contents.get(uri) == content

    async def replace(self, uri: str, content: bytes) -> None:
        self.contents[uri] = content

    async def delete(self, uri: str) -> None:
        self.contents.pop(uri, None)


class SystemClock:
    """The machine's clock, in UTC."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class SteppedClock:
    """A clock that moves only when told to."""

    def __init__(self, start: datetime | None = None) -> None:
        self._now = start or datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self._now

    def step(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)


class MemoryJobs:
    """Remembers schedules; tests make the calls."""

    def __init__(self) -> None:
        self.schedules: dict[str, str] = {}

    async def schedule(self, name: str, schedule: str) -> None:
        self.schedules[name] = schedule

    async def cancel(self, name: str) -> None:
        self.schedules.pop(name, None)


class MemoryPeers:
    """Answers from functions, by app id; calls go to the apps themselves."""

    def __init__(
        self,
        answers: Mapping[str, Callable[[str, Mapping[str, str]], Any]] | None = None,
        apps: Mapping[str, ASGIApp] | None = None,
    ) -> None:
        self._answers = dict(answers or {})
        self.apps = dict(apps or {})

    async def get(self, app_id: str, path: str, params: Mapping[str, str]) -> Any:
        if app_id not in self._answers:
            raise Unavailable(f"{app_id} is not running")
        return self._answers[app_id](path, params)

    @asynccontextmanager
    async def call(self, app_id: str, call: Call) -> AsyncIterator[Answer]:
        if app_id not in self.apps:
            raise Unavailable(f"{app_id} does not answer; it is probably being started again.")
        transport = httpx2.ASGITransport(app=self.apps[app_id], raise_app_exceptions=False)
        url = httpx2.URL("http://peer/").copy_with(raw_path=call.target.encode("ascii"))
        async with httpx2.AsyncClient(transport=transport) as client:
            request = httpx2.Request(call.method, url, headers=list(call.headers), content=call.body)
            answer = await client.send(request, stream=True)
            yield Answer(answer.status_code, answer.headers.multi_items(), answer.aiter_raw())
