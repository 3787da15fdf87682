"""What a service needs of the world: each port has a Dapr (or real) adapter and one in memory."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from services.runtime.workflow import Workflows

CREATE = "create"  # as an etag: the key must not exist yet


@dataclass(frozen=True)
class Entry:
    """A stored value and the etag that names this version of it."""

    value: Any
    etag: str


@dataclass(frozen=True)
class Put:
    """Write `value` (anything JSON can hold). With an etag, only over that version; CREATE: only if new."""

    key: str
    value: Any
    etag: str | None = None
    ttl: int | None = None  # seconds


@dataclass(frozen=True)
class Delete:
    """Remove a key; it need not exist."""

    key: str


Op = Put | Delete


class State(Protocol):
    """A key-value store of this service's own."""

    async def get(self, keys: Sequence[str]) -> dict[str, Entry]:
        """The entries that exist, in one round trip for all keys."""
        ...

    async def commit(self, ops: Sequence[Op]) -> None:
        """Apply all operations as one transaction, which a crash cannot split.

        Raises Conflict when an etag is stale. That write is then not applied; whether the others are is up
        to the store (Redis applies them, PostgreSQL does not), so callers look: see `unit.Unit`.
        """
        ...


@dataclass(frozen=True)
class Outgoing:
    """An envelope, ready for the wire, and where it goes."""

    topic: str
    envelope: bytes


class Publisher(Protocol):
    """The way out to the broker."""

    async def publish(self, events: Sequence[Outgoing]) -> list[Outgoing]:
        """Publish in bulk; returns those that were not accepted. Raises Unavailable if none could be tried."""
        ...


class Blobs(Protocol):
    """Content by name: written once, and changed only to erase somebody's part of it."""

    async def put(self, name: str, content: bytes) -> str:
        """Store `content` under `name` (again is harmless) and return its uri."""
        ...

    async def get(self, uri: str) -> bytes:
        """Raises KeyError if there is none."""
        ...

    async def put_all(self, contents: Sequence[tuple[str, bytes]]) -> list[str]:
        """`put` of many, in as few trips as there can be."""
        ...

    async def get_all(self, uris: Sequence[str]) -> list[bytes | None]:
        """`get` of many; None for what there is not."""
        ...

    async def holds(self, uri: str, content: bytes) -> bool:
        """Whether exactly this content is at `uri`, as the store itself has it and not as it was sent."""
        ...

    async def replace(self, uri: str, content: bytes) -> None:
        """Put `content` in the place of what is at `uri`, at once and as a whole."""
        ...

    async def delete(self, uri: str) -> None: ...


class Clock(Protocol):
    """The time, so that tests can hold it still."""

    def now(self) -> datetime: ...


Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Call:
    """A request that is handed on as it came; `target` is path and query, still encoded."""

    method: str
    target: str
    headers: Headers
    body: AsyncIterator[bytes] | None = None


@dataclass(frozen=True)
class Answer:
    """What came back, its body still on the way."""

    status: int
    headers: Headers
    body: AsyncIterator[bytes]


class Peers(Protocol):
    """REST of the other services, through the sidecar: reads of our own, and calls for somebody who has a token."""

    async def get(self, app_id: str, path: str, params: Mapping[str, str]) -> Any:
        """The JSON answer. Raises KeyError on 404 and 410, Unavailable when the service does not answer."""
        ...

    def call(self, app_id: str, call: Call) -> AbstractAsyncContextManager[Answer]:
        """The answer, streamed, whatever its status. Raises Unavailable when the service does not answer."""
        ...


class Jobs(Protocol):
    """The scheduler: named schedules of this service, kept where no process has to live for them."""

    async def schedule(self, name: str, schedule: str) -> None:
        """Call again and again by `schedule` (contracts/cron.py); the same again is harmless. Raises Unavailable."""
        ...

    async def cancel(self, name: str) -> None:
        """Call no more; it need not be there. Raises Unavailable."""
        ...


@dataclass
class Ports:
    """All the ports of one service."""

    state: State
    publisher: Publisher
    blobs: Blobs
    clock: Clock
    peers: Peers
    workflows: Workflows | None = None
    reasons: Mapping[str, Callable[[], Awaitable[str | None]]] = field(default_factory=dict)
    """What is to be looked at again and again, and why it cannot be worked with."""
    jobs: Jobs | None = None
    bus: Callable[[str], Publisher] | None = None  # a way out to another broker, by its component's name
