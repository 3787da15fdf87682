"""The ports over Dapr: state and bulk publish by gRPC to the sidecar, peers by service invocation."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import orjson
import structlog
from dapr.aio.clients import DaprClient
from dapr.clients.health import DaprHealth
from dapr.conf import settings as dapr_settings
from dapr.proto import api_v1, common_v1
from dapr.proto.runtime.v1.dapr_pb2_grpc import DaprStub
from grpc import StatusCode
from grpc.aio import AioRpcError

from services.contracts.envelope import CONTENT_TYPE
from services.contracts.problem import MEDIA_TYPE
from services.runtime import tracing
from services.runtime.blobs import AzureBlobs, blob_store
from services.runtime.errors import Conflict, Unavailable
from services.runtime.jobs import DaprJobs
from services.runtime.memory import SystemClock
from services.runtime.ports import CREATE, Answer, Call, Entry, Op, Outgoing, Ports, Put
from services.runtime.settings import RuntimeSettings
from services.runtime.workflow import DaprWorkflows

log = structlog.get_logger()

MAX_MESSAGE = 64 << 20  # bytes; the sidecar is started with the same limit
BULK_EVENTS = 500
BULK_BYTES = 2 << 20  # under daprd's default body limit of 4 MiB
# Service Bus takes a batch whole or not at all, and 256 KiB at most (standard tier); daprd sends 128 KiB unless told.
SERVICE_BUS = "pubsub.azure.servicebus.topics"
SERVICE_BUS_BATCH = 240_000
SERVICE_BUS_HEADERS = 512  # that each event has in a batch: 250 were measured without a trace, 360 with one
TOO_LARGE = "too large"

# What the stores say of a stale etag: gRPC ABORTED, or for transactions an INTERNAL with these words.
STALE_WORDS = (
    "etag",
    "failed to set key",
    "possible conflict",
    "duplicate key",
    "already exists",
    "no item was updated",
)


async def connect() -> DaprClient:
    """A client of this service's sidecar, once it can reach its components (60 s at most)."""
    await asyncio.to_thread(DaprHealth.wait_for_sidecar)
    return DaprClient(max_grpc_message_length=MAX_MESSAGE)


class Kinds:
    """What the components behind their names are: where stores and brokers differ, the adapter must know."""

    def __init__(self, client: DaprClient) -> None:
        self._client = client
        self._kinds: dict[str, str] | None = None

    async def of(self, name: str) -> str:
        """The type, such as `state.redis`; empty if there is no such component."""
        if self._kinds is None:
            metadata = await self._client.get_metadata()
            self._kinds = {item.name: item.type for item in metadata.registered_components}
        return self._kinds.get(name, "")


class DaprState:
    """State through the sidecar: bulk reads and transactions."""

    def __init__(self, client: DaprClient, store: str) -> None:
        self._kinds = Kinds(client)
        # The SDK's transaction has no write options, which create-only needs, and its wrappers around each key and
        # event cost more than the rest of a call: so its own stub is used here.
        self._stub: DaprStub = client._stub
        self._store = store

    async def get(self, keys: Sequence[str]) -> dict[str, Entry]:
        if not keys:
            return {}
        request = api_v1.GetBulkStateRequest(store_name=self._store, keys=keys, parallelism=16)
        try:
            answer = await self._stub.GetBulkState(request, metadata=tracing.metadata())
        except AioRpcError as error:
            raise Unavailable(f"state store: {error.details()}") from error
        failed = [item for item in answer.items if item.error]
        if failed:
            raise Unavailable(f"state store: {failed[0].error}")
        return {item.key: Entry(orjson.loads(item.data), item.etag) for item in answer.items if item.data}

    async def commit(self, ops: Sequence[Op]) -> None:
        if not ops:
            return
        request = api_v1.ExecuteStateTransactionRequest(storeName=self._store)
        redis = await self._kinds.of(self._store) == "state.redis"
        for op in ops:
            _add(request, op, redis)
        try:
            await self._stub.ExecuteStateTransaction(request, metadata=tracing.metadata())
        except AioRpcError as error:
            details = (error.details() or "").lower()
            if error.code() == StatusCode.ABORTED or any(words in details for words in STALE_WORDS):
                raise Conflict([op.key for op in ops if isinstance(op, Put) and op.etag]) from error
            raise Unavailable(f"state store: {error.details()}") from error


def _add(request: Any, op: Op, redis: bool) -> None:
    # Filled in place: messages that are made first and then passed on are copied.
    if not isinstance(op, Put):
        request.operations.add(operationType="delete").request.key = op.key
        return
    item = request.operations.add(operationType="upsert").request
    item.key, item.value = op.key, orjson.dumps(op.value)
    if op.ttl:
        item.metadata["ttlInSeconds"] = str(op.ttl)
    if op.etag == CREATE and redis:
        # In a transaction Redis honours first-write only against an etag, and lets any through for a new key.
        item.etag.value = "-1"
    elif op.etag:
        if op.etag != CREATE:
            item.etag.value = op.etag
        item.options.concurrency = common_v1.StateOptions.CONCURRENCY_FIRST_WRITE


class DaprPublisher:
    """Whole envelopes, published in bulk."""

    def __init__(self, client: DaprClient, pubsub: str) -> None:
        self._stub: DaprStub = client._stub
        self._kinds = Kinds(client)
        self._pubsub = pubsub

    async def publish(self, events: Sequence[Outgoing]) -> list[Outgoing]:
        failed: list[Outgoing] = []
        trouble: Unavailable | None = None
        by_topic: dict[str, list[Outgoing]] = {}
        for event in events:
            by_topic.setdefault(event.topic, []).append(event)
        service_bus = await self._kinds.of(self._pubsub) == SERVICE_BUS
        for topic, outgoing in by_topic.items():
            limits = (SERVICE_BUS_BATCH, SERVICE_BUS_HEADERS) if service_bus else (BULK_BYTES, 0)
            for chunk in _chunks(outgoing, *limits):
                try:
                    failed += await self._bulk(topic, chunk, service_bus)
                except Unavailable as error:  # one topic's trouble is not the others'
                    log.warning("not published", topic=topic, reason=str(error))
                    failed += chunk
                    trouble = error
        if trouble and len(failed) == len(events):
            raise trouble
        return failed

    async def _bulk(self, topic: str, chunk: Sequence[Outgoing], service_bus: bool) -> list[Outgoing]:
        request = api_v1.BulkPublishRequest(pubsub_name=self._pubsub, topic=topic)
        for at, event in enumerate(chunk):
            entry = request.entries.add(entry_id=str(at), event=event.envelope, content_type=CONTENT_TYPE)
            if service_bus:  # what its duplicate detection goes by; daprd sets none
                entry.metadata["MessageId"] = orjson.loads(event.envelope)["id"]
        if service_bus:
            request.metadata["maxBulkPubBytes"] = str(SERVICE_BUS_BATCH)
        try:
            with tracing.publishing(topic, lambda: [orjson.loads(e.envelope).get("traceparent") for e in chunk]):
                answer = await self._stub.BulkPublishEvent(request, metadata=tracing.metadata())
        except AioRpcError as error:
            # daprd writes envelopes anew, and text with many escapes grows.
            if len(chunk) > 1 and TOO_LARGE in (error.details() or ""):
                half = len(chunk) // 2
                parts = [await self._bulk(topic, part, service_bus) for part in (chunk[:half], chunk[half:])]
                return [event for part in parts for event in part]
            raise Unavailable(f"broker: {error.details()}") from error
        return [chunk[int(entry.entry_id)] for entry in answer.failedEntries]


def _chunks(outgoing: Sequence[Outgoing], most: int, headers: int) -> list[list[Outgoing]]:
    """In order, each of `most` bytes at most, counting `headers` bytes beside each event."""
    chunks: list[list[Outgoing]] = [[]]
    size = 0
    for event in outgoing:
        bytes_ = len(event.envelope) + headers
        if chunks[-1] and (len(chunks[-1]) >= BULK_EVENTS or size + bytes_ > most):
            chunks.append([])
            size = 0
        chunks[-1].append(event)
        size += bytes_
    return chunks


class DaprPeers:
    """The other services through the sidecar's service invocation."""

    def __init__(self) -> None:
        token = dapr_settings.DAPR_API_TOKEN
        self._headers = {"dapr-api-token": token} if token else {}
        endpoint = dapr_settings.DAPR_HTTP_ENDPOINT or f"http://127.0.0.1:{dapr_settings.DAPR_HTTP_PORT}"
        self._base = httpx2.URL(f"{endpoint}/v1.0/invoke")
        self._http = httpx2.AsyncClient(
            base_url=self._base, headers=self._headers, timeout=10, limits=httpx2.Limits(max_connections=None)
        )

    async def get(self, app_id: str, path: str, params: Mapping[str, str]) -> Any:
        try:
            answer = await self._http.get(
                f"/{app_id}/method/{path.lstrip('/')}", params=dict(params), headers=tracing.outgoing()
            )
        except httpx2.HTTPError as error:
            raise Unavailable(f"{app_id}: {error}") from error
        if answer.status_code in (404, 410):
            raise KeyError(path)
        if answer.status_code >= 400:
            raise Unavailable(f"{app_id} answered {answer.status_code} to GET {path}")
        return answer.json()

    @asynccontextmanager
    async def call(self, app_id: str, call: Call) -> AsyncIterator[Answer]:
        # The bytes of the path stay as they are: whoever checked them has checked what is sent.
        url = self._base.copy_with(raw_path=f"{self._base.path}/{app_id}/method{call.target}".encode("ascii"))
        headers = [*call.headers, *self._headers.items()]
        request = httpx2.Request(call.method, url, headers=headers, content=call.body)
        request.extensions = {"timeout": httpx2.Timeout(60, connect=5).as_dict()}
        try:
            answer = await self._http.send(request, stream=True)
        except httpx2.HTTPError as error:
            raise Unavailable(f"{app_id} does not answer: {error}") from error
        try:
            if answer.status_code >= 500 and not answer.headers.get("content-type", "").startswith(MEDIA_TYPE):
                # The sidecar's own words; a service says what is wrong as problem+json.
                raise Unavailable(f"{app_id} does not answer; it is probably being started again.")
            pairs = [(name.lower(), value) for name, value in answer.headers.multi_items()]
            yield Answer(answer.status_code, pairs, answer.aiter_raw())
        finally:
            await answer.aclose()

    async def close(self) -> None:
        await self._http.aclose()


async def connect_dapr(settings: RuntimeSettings) -> tuple[Ports, Callable[[], Awaitable[None]]]:
    """The real ports of a service, and how to let go of them."""
    client = await connect()
    blobs = blob_store(settings.blobs)
    peers = DaprPeers()
    ports = Ports(
        state=DaprState(client, settings.statestore),
        publisher=DaprPublisher(client, settings.pubsub),
        blobs=blobs,
        clock=SystemClock(),
        peers=peers,
        workflows=DaprWorkflows(),
        reasons={"blobs": blobs.reason} if isinstance(blobs, AzureBlobs) else {},
        jobs=DaprJobs(client),
        bus=lambda name: DaprPublisher(client, name),
    )

    async def close() -> None:
        await peers.close()
        await client.close()
        if isinstance(blobs, AzureBlobs):
            await blobs.close()

    return ports, close
