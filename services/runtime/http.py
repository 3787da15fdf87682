"""REST as every service speaks it: problem+json, strict JSON, bounded bodies, idempotency keys, tokens."""

import asyncio
import base64
import contextlib
import zlib
from collections.abc import Awaitable, Callable, Coroutine
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.contracts.ids import digest, sha256
from services.contracts.problem import MEDIA_TYPE, Fault, Problem
from services.runtime import strict_json, telemetry, tracing
from services.runtime.access import authenticate
from services.runtime.errors import Conflict, Retry
from services.runtime.ports import Put, State

log = structlog.get_logger()

IDEMPOTENCY_TTL = 86_400  # seconds that an Idempotency-Key is remembered
REPLAYABLE = 1 << 20  # bytes of an answer that is kept for replay
SIDECAR_PATHS = ("/events/", "/sensors", "/job/", "/hints/", "/v1.0/")
# Without a token: the sidecar has another, and a trainer's callback is signed.
OPEN_PATHS = ("/healthz", "/readyz", "/events/{topic}", "/sensors", "/job/{name}", "/hints/azureml")
OPEN_PATHS += ("/v1/runs/{run}:callback",)
MOST_ERRORS = 50  # that one answer lists
LONGEST_DETAIL = 1000  # characters


class Refusal(BaseModel):
    """RFC 9457, as every refused request is answered; a fault has pointer, code and message."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: list[dict[str, str]]
    trace_id: str


REFUSALS: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "A refusal: `detail` says what to do about it, `errors` what is wrong with which field.",
        "content": {MEDIA_TYPE: {"schema": Refusal.model_json_schema()}},
    }
}


def problem_response(request: Request, problem: Problem) -> Response:
    """RFC 9457, with the trace to look for in the log."""
    body = {
        "type": f"urn:halfsure:problem:{problem.code}",
        "title": problem.code.replace("-", " "),
        "status": problem.status,
        "detail": problem.detail[:LONGEST_DETAIL],
        "instance": request.url.path,
        "errors": [fault.model_dump() for fault in problem.errors[:MOST_ERRORS]],
        "trace_id": trace_id(request),
    }
    return JSONResponse(body, problem.status, headers=problem.headers, media_type=MEDIA_TYPE)


def trace_id(request: Request) -> str:
    """The caller's trace (W3C traceparent), else one of our own, the same for the whole request."""
    return request.state.trace_id


class StrictRequest(Request):
    """Reads its body strictly, whoever asks for it."""

    async def json(self) -> Any:
        if not hasattr(self, "_value"):
            self._value = read_json(await self.body())
        return self._value


class StrictRoute(APIRoute):
    """A route that wants a token before it reads, refuses NaN and broken JSON, and honours Idempotency-Key on POST."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        # An event from the sidecar is let in by another token, and gets a verdict whatever it holds.
        if self.path in OPEN_PATHS:
            return handle

        async def strict(request: Request) -> Response:
            await authenticate(request)
            request = StrictRequest(request.scope, request.receive)
            kind = request.headers.get("content-type", "").lower()
            if "json" in kind and "ndjson" not in kind and await request.body():
                await request.json()
            if request.method == "POST" and (key := request.headers.get("idempotency-key")):
                return await _once(request, key, handle)
            return await handle(request)

        return strict


def read_json(body: bytes) -> Any:
    """The value. Raises a 400 problem for what is not JSON, and a 422 one for NaN and Infinity."""
    try:
        return strict_json.loads(body)
    except strict_json.NotFinite as error:
        fault = Fault(pointer="", code="not-finite", message=f"{error}")
        raise Problem(422, "invalid", f"The body cannot be taken: {error}.", errors=[fault]) from error
    except strict_json.Unsound as error:
        raise Problem(400, "malformed", f"The body cannot be read: {error}.") from error


async def _once(request: Request, key: str, handle: Callable[[Request], Awaitable[Response]]) -> Response:
    caller = await authenticate(request)
    state: State = request.app.state.service.state
    record_key = f"idem:{digest(caller.subject, request.url.path, request.url.query, key)}"
    lock: asyncio.Lock = request.app.state.service.lock(record_key)
    async with lock:
        body_hash = sha256(await request.body())
        entry = (await state.get([record_key])).get(record_key)
        if entry and entry.value["body"] != body_hash:
            raise Problem(409, "idempotency-key-reused", "This Idempotency-Key came with another body before.")
        if entry:
            kept = entry.value
            headers = {**kept["headers"], "idempotent-replay": "true"}
            return Response(base64.b64decode(kept["answer"]), kept["status"], headers=headers)
        response = await handle(request)
        if response.status_code < 500 and hasattr(response, "body") and len(response.body) <= REPLAYABLE:
            record = {
                "body": body_hash,
                "status": response.status_code,
                "headers": {k: v for k, v in response.headers.items() if k in ("content-type", "location")},
                "answer": base64.b64encode(bytes(response.body)).decode(),
            }
            await state.commit([Put(record_key, record, ttl=IDEMPOTENCY_TTL)])
        return response


class BodyLimit:
    """413 before a body over the limit is read; counts what comes without a length."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(SIDECAR_PATHS):
            await self._app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"")
        if length.isdigit() and int(length) > self._limit:
            await self._refuse(scope, receive, send)
            return
        seen = 0
        started = False

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._limit:
                raise _TooLarge
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                telemetry.REQUESTS.labels(scope["method"], str(message["status"])).inc()
            await send(message)

        try:
            await self._app(scope, counted, watched)
        except _TooLarge:
            if not started:
                await self._refuse(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        problem = Problem(413, "too-large", f"A body may have {self._limit} bytes at most.")
        await problem_response(request, problem)(scope, receive, send)


class _TooLarge(BaseException):
    """Passes through the handlers below, which catch Exception."""


def _faults(error: RequestValidationError) -> list[Fault]:
    return [
        Fault(
            pointer=_pointer(fault, error.body), code=fault["type"], message=fault["msg"].removeprefix("Value error, ")
        )
        for fault in error.errors()
    ]


def _pointer(fault: Any, body: Any) -> str:
    """RFC 6901. pydantic also names the member of a union that it took, which is nowhere in the body."""
    where, *path = fault["loc"]
    parts: list[Any] = []
    for index, part in enumerate(path):
        missing = fault["type"] == "missing" and index == len(path) - 1
        if where == "body" and isinstance(body, dict | list) and not missing:
            there = part in body if isinstance(body, dict) else isinstance(part, int) and part < len(body)
            if not there:
                continue
            body = body[part]
        parts.append(part)
    return "/" + "/".join(str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def install(app: FastAPI, max_body: int) -> None:
    """Make every answer of `app`, the failures too, one that the contract knows."""
    app.router.route_class = StrictRoute

    @app.exception_handler(Problem)
    async def refused(request: Request, problem: Problem) -> Response:
        return problem_response(request, problem)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        faults = _faults(error)
        cursor = any(fault.code == "json_invalid" for fault in faults)
        what = "; ".join(f"{fault.pointer}: {fault.message}" for fault in faults[:5])
        return problem_response(
            request,
            Problem(400 if cursor else 422, "malformed" if cursor else "invalid", what, errors=faults),
        )

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        codes = {400: "malformed", 404: "not-found", 405: "method-not-allowed"}
        headers = dict(error.headers or {})
        code = codes.get(error.status_code, "refused")
        detail = str(error.detail)
        if error.status_code in codes and detail == HTTPStatus(error.status_code).phrase:
            detail = f"There is no {request.method} {request.url.path} here; GET /v1/openapi.json lists the routes."
        return problem_response(request, Problem(error.status_code, code, detail, headers=headers))

    @app.exception_handler(Conflict)
    async def conflict(request: Request, error: Conflict) -> Response:
        return problem_response(request, Problem(409, "conflict", f"{error} Read it again and retry."))

    @app.exception_handler(Retry)
    async def unavailable(request: Request, error: Retry) -> Response:
        return problem_response(request, Problem(503, "unavailable", str(error), headers={"retry-after": "1"}))

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=499)  # nobody reads it, and nothing is wrong here

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        trace = trace_id(request)
        log.error("request failed", path=request.url.path, trace_id=trace, exc_info=error)
        detail = f"Something went wrong in here; the log has it under trace {trace}."
        return problem_response(request, Problem(500, "internal", detail))

    app.add_middleware(BodyLimit, limit=max_body)
    app.add_middleware(tracing.Traced)  # the last is the outermost


def page(rows: list[Any], cursor: str | None) -> dict[str, Any]:
    """A list's answer: rows, and where to go on if there is more."""
    return {"items": rows, "cursor": cursor and base64.urlsafe_b64encode(_checked(cursor.encode())).decode()}


def read_cursor(cursor: str | None) -> str | None:
    """Raises a 400 for a cursor that no list here gave out."""
    if cursor is None:
        return None
    with contextlib.suppress(ValueError):
        raw = base64.b64decode(cursor, altchars=b"-_", validate=True)
        if raw == _checked(raw[4:]):
            return raw[4:].decode()
    raise Problem(400, "bad-cursor", "This cursor is none that a list gave out.")


def _checked(raw: bytes) -> bytes:
    """With a checksum in front: against mistakes, not against malice."""
    return zlib.crc32(raw).to_bytes(4, "big") + raw


def check_match(if_match: str | None, current: str) -> None:
    """A write says which version it replaces, by its ETag: 428 without If-Match, 412 when that is not `current`."""
    if if_match is None:
        raise Problem(428, "if-match-required", f"Send If-Match: {current}, the ETag that GET gave, to replace it.")
    if if_match.strip().removeprefix("W/") not in (current, "*"):
        raise Problem(412, "stale", f"It is at {current} by now; read it and try again.", headers={"etag": current})
