"""One origin: each service's public REST under /api/APP-ID/v1, handed on by the sidecar, and nothing else."""

import re
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import AsyncExitStack

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse

from services.contracts.problem import Problem, not_found
from services.runtime.access import authenticate
from services.runtime.ports import Call
from services.runtime.service import Service

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
# RFC 9110, 7.6.1, and what is meant for this hop only: the sidecar's headers, where we are, who the browser is.
HOP = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection"),
        *("te", "trailer", "transfer-encoding", "upgrade"),
        *("cookie", "date", "expect", "forwarded", "host", "server", "set-cookie"),
    }
)
HOP_PREFIXES = ("dapr-", "x-forwarded-", "sec-", "x-daprc")
# What a path may consist of: no segment that is empty or dots, no encoded slash, backslash, dot, percent or control.
PLAIN = r"[A-Za-z0-9._~!$'()*,;:@=+-]"
ENCODED = r"%(?!2[EeFf5]|5[Cc]|[01][0-9A-Fa-f]|7[Ff])[0-9A-Fa-f]{2}"
TARGET = re.compile(rf"/v1(?:/(?!\.{{1,2}}(?:/|$))(?:{PLAIN}|{ENCODED})+)+")
QUERY = re.compile(r"[!\"$-~]*")
# What a service stores for somebody (a sample's bytes) is never a page of this origin.
INERT = (("content-security-policy", "default-src 'none'; sandbox"), ("x-content-type-options", "nosniff"))


def target_of(raw_path: bytes, query: bytes, app_id: str) -> str | None:
    """Path and query for the service, as the caller has encoded them; None if it is no public route's."""
    path = raw_path.decode("latin-1").removeprefix(f"/api/{app_id}")
    asked = query.decode("latin-1")
    if not TARGET.fullmatch(path) or not QUERY.fullmatch(asked):
        return None
    return f"{path}?{asked}" if asked else path


def passed_on(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The headers that are not of this hop; those that `connection` names are."""
    pairs = [(name.lower(), value) for name, value in headers]
    named = {part.strip().lower() for name, value in pairs if name == "connection" for part in value.split(",")}
    dropped = HOP | named
    return [(name, value) for name, value in pairs if name not in dropped and not name.startswith(HOP_PREFIXES)]


async def body_of(request: Request) -> AsyncIterator[bytes] | None:
    """The request's body as it comes, None if there is none."""
    if request.headers.get("content-length", "0") == "0" and "transfer-encoding" not in request.headers:
        return None
    return (chunk async for chunk in request.stream() if chunk)


def routes(service: Service, app_ids: Collection[str]) -> APIRouter:
    """Every method on every public route of `app_ids`."""
    router = APIRouter(include_in_schema=False)

    # The token is looked at before anything is handed on: without one the sidecar would speak for the caller.
    @router.api_route("/api/{app_id}/{path:path}", methods=METHODS, dependencies=[Depends(authenticate)])
    async def forward(app_id: str, request: Request) -> Response:
        if app_id not in app_ids:
            raise not_found("service", app_id)
        raw_path = request.scope.get("raw_path") or b""
        target = target_of(raw_path.partition(b"?")[0], request.scope["query_string"], app_id)
        if target is None:
            raise Problem(404, "not-found", f"Only /api/{app_id}/v1/... is served here, with a plain path.")
        call = Call(request.method, target, passed_on(request.headers.items()), await body_of(request))
        stack = AsyncExitStack()
        try:
            answer = await stack.enter_async_context(service.peers.call(app_id, call))
        except BaseException:
            await stack.aclose()
            raise

        async def body() -> AsyncIterator[bytes]:
            async with stack:
                async for chunk in answer.body:
                    yield chunk

        response = StreamingResponse(body(), answer.status)
        pairs = [*passed_on(answer.headers), *INERT]
        response.raw_headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]
        return response

    return router
