"""A label-queue of its own: the service, its sidecar and Redis, as `halfsure up` runs them, and ways to fill it."""

import asyncio
import contextlib
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import orjson
import psutil
import yaml
from crowd import project, selected
from redis import Redis

from services.cli.redis import find_redis_server, redis_command
from services.cli.settings import StackSettings, default_root
from services.cli.stack import Stack
from services.contracts.envelope import CONTENT_TYPE, wrap
from services.contracts.events import Event
from services.contracts.ids import task_id
from services.label_queue import leases
from services.label_queue.book import header
from services.label_queue.store import task_key

BULK = 200
SEGMENT = 1000


def run_file(folder: Path, apps: Sequence[str]) -> Path:
    """The project's own run file, without the other services."""
    root = default_root()
    content = yaml.safe_load((root / "dapr" / "dapr.yaml").read_text())
    content["common"]["resourcesPaths"] = [str(root / "components" / "local"), str(root / "dapr")]
    content["common"]["configFilePath"] = str(root / "dapr" / "config.yaml")
    chosen = [{**app, "appDirPath": str(root)} for app in content["apps"] if app["appID"] in apps]
    path = folder / "dapr.yaml"
    path.write_text(yaml.safe_dump({**content, "apps": chosen}))
    return path


class StreamReader:
    """What Dapr's Redis pub/sub has written."""

    def __init__(self, address: str) -> None:
        host, port = address.split(":")
        self._redis = Redis(host=host, port=int(port))

    def read(self, topic: str) -> list[dict[str, Any]]:
        rows: Any = self._redis.xrange(topic)
        return [orjson.loads(fields[b"data"]) for _, fields in rows]


class QueueStack:
    """A running label-queue, with its stack and a client for it."""

    def __init__(self, stack: Stack, client: httpx2.AsyncClient, sidecar: httpx2.AsyncClient) -> None:
        self.stack = stack
        self.client = client
        self._sidecar = sidecar

    async def publish(self, events: Sequence[Event]) -> None:
        """By the broker, as the other services do."""
        for start in range(0, len(events), BULK):
            part = events[start : start + BULK]
            entries = [
                {
                    "entryId": str(at),
                    "event": orjson.loads(wrap(event, siteid="test", service="test", now=datetime.now(UTC))),
                    "contentType": CONTENT_TYPE,
                }
                for at, event in enumerate(part)
            ]
            answer = await self._sidecar.post(f"/v1.0-alpha1/publish/bulk/pubsub/{part[0].topic}", json=entries)
            assert answer.status_code in (200, 204), answer.text

    async def stats(self) -> dict[str, Any]:
        return (await self.client.get("/v1/stats")).json()

    async def said(self, kind: type[Event]) -> list[dict[str, Any]]:
        """The envelopes of one type that are in the broker's stream, once the outbox is empty."""
        stream = StreamReader(self.stack.plan().redis_host)
        before = -1
        while True:
            rows = await asyncio.to_thread(stream.read, kind.topic)
            if len(rows) == before:
                return [row for row in rows if row["type"] == kind.type]
            before = len(rows)
            await asyncio.sleep(1.0)

    @property
    def memory(self) -> int:
        """Bytes that the service's process has resident."""
        return psutil.Process(self.stack.pid("label-queue")).memory_info().rss


@contextlib.asynccontextmanager
async def running(
    folder: Path, offset: int, apps: Sequence[str] = ("label-queue",), **settings: Any
) -> AsyncIterator[QueueStack]:
    """The stack on ports of its own; again in the same folder, it finds what it had."""
    options = {"home": folder / "home", "run_file": run_file(folder, apps), "port_offset": offset, "start_timeout": 600}
    async with Stack(StackSettings(**{**options, **settings})).running() as stack:
        secrets = stack.secrets
        limits = httpx2.Limits(max_connections=200, max_keepalive_connections=200)
        async with (
            httpx2.AsyncClient(
                base_url=stack.url("label-queue"),
                headers={"authorization": f"Bearer {stack.token}"},
                timeout=30,
                limits=limits,
                trust_env=False,
            ) as client,
            httpx2.AsyncClient(
                base_url=f"http://127.0.0.1:{stack.ports['label_queue_http']}",
                headers={"dapr-api-token": secrets.dapr_api},
                timeout=30,
                trust_env=False,
            ) as sidecar,
        ):
            yield QueueStack(stack, client, sidecar)


@contextlib.contextmanager
def redis(folder: Path, port: int) -> Iterator[int]:
    """A Redis that is there before the stack is."""
    (folder / "redis").mkdir()
    process = subprocess.Popen(redis_command(find_redis_server(), port, folder / "redis"), stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, "redis-server has ended"
            time.sleep(0.05)
        yield port
    finally:
        process.kill()
        process.wait()


def fill(port: int, count: int) -> None:
    """Put `count` queued tasks into Redis, as a label-queue that is gone would have left them there."""
    document = project()
    now = datetime(2026, 1, 1, tzinfo=UTC)
    with socket.create_connection(("127.0.0.1", port)) as redis:
        answers = redis.makefile("rb")
        writes: list[bytes] = []

        def put(key: str, value: Any) -> None:
            writes.append(_hset(f"label-queue||{key}".encode(), orjson.dumps(value)))

        put("projects", {"names": ["default"]})
        row = {"revision": document.revision, "deleted": False, "document": dict(document.document)}
        put("project:default", row)
        put("segments:default", {"chains": ["filled"]})
        sizes: list[int] = []
        model = leases.asked(selected("SAMPLE", priority=0.0), now)
        record = orjson.dumps(model.model_dump(mode="json", exclude_defaults=True) | {"id": "TASK", "priority": 0.5})
        facts = header(model)[2:]
        for start in range(0, count, SEGMENT):
            headers: list[Any] = []
            for number in range(start, min(start + SEGMENT, count)):
                sample, priority = f"smp_{number:07}", (number * 7919 % 1_000_000) / 1_000_000
                name = task_id("default", sample)
                row = record.replace(b"TASK", name.encode()).replace(b"SAMPLE", sample.encode())
                row = row.replace(b'"priority":0.5', b'"priority":%.6f' % priority)
                writes.append(_hset(f"label-queue||{task_key(name)}".encode(), row))
                headers.append((name, priority, *facts))
            put(f"seg:default:filled:{len(sizes)}", {"headers": headers})
            sizes.append(len(headers))
            _send(redis, answers, writes)
        put("chain:default:filled", {"sizes": sizes})
        _send(redis, answers, writes)


def _hset(key: bytes, value: bytes) -> bytes:
    parts = [b"HSET", key, b"data", value, b"version", b"1"]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def _send(redis: socket.socket, answers: Any, writes: list[bytes]) -> None:
    redis.sendall(b"".join(writes))
    for _ in writes:
        answer: bytes = answers.readline()
        assert answer.startswith(b":"), answer
    writes.clear()


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
