"""Traces (OpenTelemetry): one for each sample, from the request that brought it to the model that it helped to make.

Context (W3C `traceparent`) is copied in and out always. Spans are recorded where the SDK is installed (extra `otel`)
and OTEL_EXPORTER_OTLP_ENDPOINT names a collector; the other OTEL_* variables are the SDK's own.
"""

import asyncio
import contextlib
import re
import secrets
import threading
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import structlog
from fastapi.telemetry import TelemetryConfig
from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict
from starlette.types import ASGIApp, Receive, Scope, Send

from services.contracts.envelope import Message

log = structlog.get_logger()

HEADER = "traceparent"
QUIET = ("/healthz", "/readyz", "/metrics", "/dapr/config", "/dapr/subscribe")  # no business of any sample
EVENTS = "/events/"  # the sidecar's deliveries: `processing` makes their spans
PATIENCE = 2.0  # seconds that a service takes longer to end for a collector that does not answer
_W3C = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_TRACER = trace.get_tracer("halfsure")
_NOWHERE = Context()
_ends: list[Callable[[], None]] = []

M = TypeVar("M", bound=Message[Any])


class TracingSettings(BaseSettings):
    """Whether spans are recorded. All else is read by the SDK."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    endpoint: str = Field(
        default="",
        validation_alias=AliasChoices("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    )
    disabled: bool = Field(default=False, validation_alias="OTEL_SDK_DISABLED")


def configure(app_id: str, site: str) -> None:
    """Record spans if the environment names a collector."""
    settings = TracingSettings()
    if settings.disabled or not settings.endpoint:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        log.warning("no spans are recorded: install halfsure[otel]", missing=error.name)
        return
    about = {"service.name": app_id, "service.namespace": "halfsure", "halfsure.site": site}
    provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
    # Spans wait in a bounded queue for a thread of its own; what does not fit is lost, never waited for.
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    _ends.append(provider.shutdown)
    log.info("spans are recorded", endpoint=settings.endpoint)


async def close() -> None:
    """Hand over what waits for the collector, and wait no longer than PATIENCE for one that is away."""
    while _ends:
        ending = threading.Thread(target=_ends.pop(), daemon=True)
        ending.start()
        await asyncio.to_thread(ending.join, PATIENCE)


def recording() -> bool:
    """Whether anybody looks at spans."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


# Contexts as text.


def current() -> str | None:
    """The traceparent of what is being done now."""
    return _text(trace.get_current_span().get_span_context())


def trace_id(traceparent: str | None) -> str | None:
    """The 32 hex digits of the trace that a traceparent is of."""
    found = _W3C.fullmatch(traceparent) if traceparent else None
    return found.group(1) if found else None


def outgoing() -> dict[str, str]:
    """Headers (or gRPC metadata) of a call. What is done on nobody's behalf is in no trace, the sidecar's neither."""
    found = current()
    if found is None and recording():
        found = _text(_fresh())
    return {HEADER: found} if found else {}


def metadata() -> tuple[tuple[str, str], ...] | None:
    """`outgoing` for a call to the sidecar; nothing while nobody records what it does."""
    return tuple(outgoing().items()) if recording() else None


def _text(found: SpanContext) -> str | None:
    if not found.is_valid:
        return None
    return f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}"


def _read(traceparent: str | None) -> SpanContext | None:
    found = _W3C.fullmatch(traceparent) if traceparent else None
    if found is None:
        return None
    trace_, span, flags = (int(part, 16) for part in found.groups())
    context = SpanContext(trace_, span, is_remote=True, trace_flags=TraceFlags(flags & TraceFlags.SAMPLED))
    return context if context.is_valid else None


def _fresh() -> SpanContext:
    """A trace that nobody records."""
    return SpanContext(secrets.randbits(128) or 1, secrets.randbits(64) or 1, is_remote=False)


def _under(parent: SpanContext | None) -> Context:
    return trace.set_span_in_context(NonRecordingSpan(parent), _NOWHERE) if parent else _NOWHERE


def _links(contexts_: Sequence[SpanContext | None]) -> list[Link]:
    return [Link(context) for context in contexts_ if context and context.is_valid]


# Spans.


@contextlib.contextmanager
def span(
    name: str, parent: str | None = None, links: Sequence[str | None] = (), **attributes: str | int
) -> Iterator[None]:
    """Do something in the trace of `parent`, else of what is done now; `links` are others that it has to do with."""
    below = _read(parent)
    context = _under(below) if below else contexts.get_current()
    linked = _links([_read(link) for link in links]) if recording() else []
    with _TRACER.start_as_current_span(name, context, links=linked, attributes=_named(attributes)):
        yield


def mark(name: str, parent: str | None, link: str | None = None, **attributes: str | int) -> str | None:
    """Note in the trace of `parent` that something happened; the traceparent of what follows from it.

    The span links to `link`, by default what is done now.
    """
    below = _read(parent) if recording() else None
    if below is None:
        return parent
    other = _read(link) if link else trace.get_current_span().get_span_context()
    links = _links([other]) if other and other.trace_id != below.trace_id else []
    noted = _TRACER.start_span(name, _under(below), links=links, attributes=_named(attributes))
    noted.end()
    return _text(noted.get_span_context())


def apart(number: int) -> list[str | None]:
    """Traceparents for so many samples of one request: its own for one, a trace each for many."""
    if number == 1 and (found := current()):
        return [found]
    if not recording():
        return [_text(_fresh()) for _ in range(number)]
    request = _links([trace.get_current_span().get_span_context()])
    roots = [_TRACER.start_span("sample", _NOWHERE, links=request) for _ in range(number)]
    for root in roots:
        root.end()
    return [_text(root.get_span_context()) for root in roots]


def note(**attributes: str | int) -> None:
    """Say more of what is done now."""
    trace.get_current_span().set_attributes(_named(attributes))


@contextlib.contextmanager
def processing(batch: Sequence[M]) -> Iterator[Sequence[M]]:
    """A handler's work on a batch of one type: a span in each message's own trace, and one that links to them all.

    Yields the messages with the traceparent that what follows from them shall have. A batch of one has one span.
    """
    if not recording():
        yield batch
        return
    name = f"process {batch[0].event.type.removeprefix('io.halfsure.').rpartition('.')[0]}"
    delivery = trace.get_current_span().get_span_context()
    origins = [_read(message.traceparent) for message in batch]
    together: Any = contextlib.nullcontext()
    if len(batch) > 1:
        attributes = {"messaging.batch.message_count": len(batch), "messaging.operation.type": "process"}
        # In no trace of its own samples, nor in that of the delivery, whose sender may not record.
        links = _links([delivery, *origins])
        together = _TRACER.start_as_current_span(name, _NOWHERE, SpanKind.CONSUMER, attributes, links)
    with together as whole:
        links = _links([whole.get_span_context() if whole else delivery])
        spans = [
            _TRACER.start_span(name, _under(origin), SpanKind.CONSUMER, _about(message), links)
            for message, origin in zip(batch, origins, strict=True)
        ]
        followed = [
            replace(message, traceparent=_text(own.get_span_context()) or message.traceparent)
            for message, own in zip(batch, spans, strict=True)
        ]
        alone = contextlib.nullcontext() if whole else trace.use_span(spans[0], record_exception=False)
        try:
            with alone:
                yield followed
        except Exception as error:
            for own in spans:
                own.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"[:200]))
            raise
        finally:
            for own in spans:
                own.end()


@contextlib.contextmanager
def publishing(topic: str, origins: Callable[[], Sequence[str | None]]) -> Iterator[None]:
    """A bulk on its way to the broker, linked to the traces of its events."""
    if not recording():
        yield
        return
    links = _links([_read(origin) for origin in origins()])
    with _TRACER.start_as_current_span(f"publish {topic}", _NOWHERE, kind=SpanKind.PRODUCER, links=links):
        yield


def _about(message: Message[Any]) -> dict[str, str]:
    return {
        "messaging.operation.type": "process",
        "messaging.destination.name": message.event.topic,
        "cloudevents.event_id": message.id,
        "cloudevents.event_type": message.event.type,
        "cloudevents.event_source": message.source,
        "cloudevents.event_subject": message.event.subject,
        "halfsure.project": message.event.project,
    }


def _named(attributes: dict[str, str | int]) -> dict[str, str | int]:
    return {f"halfsure.{name}": value for name, value in attributes.items()}


# At the rims: requests and log lines.


def excluded(scope: MutableMapping[str, Any]) -> bool:
    """Requests without a span of their own."""
    return scope["path"] in QUIET or scope["path"].startswith(EVENTS)


# FastAPI's own spans of requests; metrics are Prometheus', and failures in the log.
REQUESTS: TelemetryConfig = {"metrics": False, "logs": False, "operation_spans": False, "exclude": excluded}


class Traced:
    """Every request is in a trace: the caller's, else a new one. Its id is in `scope["state"]`, for problems."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        found = trace.get_current_span().get_span_context()
        token = None
        if not found.is_valid or excluded(scope):
            found = _read(_header(scope)) or _fresh()
            token = contexts.attach(_under(found))
        scope.setdefault("state", {})["trace_id"] = f"{found.trace_id:032x}"
        try:
            await self._app(scope, receive, send)
        finally:
            if token:
                contexts.detach(token)


def _header(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"traceparent":
            return value.decode("latin-1")
    return None


def logged(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """structlog: a line says which trace and span it is of."""
    found = trace.get_current_span().get_span_context()
    if found.is_valid:
        line.setdefault("trace_id", f"{found.trace_id:032x}")
        line.setdefault("span_id", f"{found.span_id:016x}")
    return line
