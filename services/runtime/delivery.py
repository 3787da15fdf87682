"""Where the sidecar delivers events, and the shelf of those that could not be handled."""

import binascii
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import orjson
from fastapi import Depends, Query, Request, Response

from services.contracts.envelope import InvalidEnvelope
from services.contracts.problem import Problem, not_found
from services.runtime import http, strict_json
from services.runtime.access import Caller, caller_with
from services.runtime.deadletters import projects_of
from services.runtime.errors import Drop
from services.runtime.inbox import Inbox, Verdict

if TYPE_CHECKING:
    from services.runtime.service import Service

Operator = Annotated[Caller, caller_with("operator")]
NO_OBJECT = "what came is not a JSON object, or is nested too deeply"


def routes(service: "Service") -> None:
    """Add them to the service's API."""

    @service.api.post("/events/{topic}", include_in_schema=False)
    async def receive(topic: str, request: Request) -> Response:
        if not service.from_sidecar(request):
            raise Problem(401, "unauthorized", "Only this service's own sidecar may deliver events.")
        body = await request.body()
        if topic == "dlq":
            return await _shelve(service, body)
        return Response(orjson.dumps(await _deliver(service.inbox, topic, body)), media_type="application/json")

    _shelf(service)


def job_route(service: "Service", work: Callable[[str], Awaitable[None]]) -> None:
    """Have `work` take the scheduler's calls, by the job's name; a call may come twice, and does after a failure."""

    @service.api.post("/job/{name}", include_in_schema=False)
    async def call(name: str, request: Request) -> Response:
        if not service.from_sidecar(request):
            raise Problem(401, "unauthorized", "Only this service's own sidecar may call a job.")
        await work(name)
        return Response(status_code=204)


async def _deliver(inbox: Inbox, topic: str, body: bytes) -> dict[str, Any]:
    """A bulk (`entries`) or a single envelope; whatever it is, the answer is a verdict."""
    entries = _entries(body)
    if entries is None:
        return {"status": (await inbox.receive(topic, [_value(body)]))[0]}
    verdicts = await inbox.receive(topic, [_value(_raw(entry["event"])) for entry in entries])
    pairs = zip(entries, verdicts, strict=True)
    return {"statuses": [_entry_status(entry["entryId"], verdict) for entry, verdict in pairs]}


def _entries(body: bytes) -> list[dict[str, Any]] | None:
    """The entries of a bulk."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return parsed.get("entries") if isinstance(parsed, dict) else None


def _raw(event: Any) -> bytes:
    """An entry's bytes: subscriptions are raw, so the sidecar hands them over as base64, whatever they are."""
    if isinstance(event, str):
        with contextlib.suppress(ValueError):
            return binascii.a2b_base64(event, strict_mode=True)
    return json.dumps(event).encode()


def _value(raw: bytes) -> Any:
    """The JSON value, else the bytes as they are."""
    try:
        return strict_json.loads(raw)
    except strict_json.Unsound:
        return raw


def _entry_status(entry: str, verdict: Verdict) -> dict[str, str]:
    # daprd 1.18 looks a dropped entry up by its place in the whole bulk, also where it has sent a part only (a retry,
    # or others in it were no JSON): it panics, again at each redelivery, or buries another event. The shelf has it.
    return {"entryId": entry, "status": "SUCCESS" if verdict == "DROP" else verdict, "verdict": verdict}


async def _shelve(service: "Service", body: bytes) -> Response:
    """What the broker gave up on: kept, with or without a reason of our own."""
    entries = _entries(body)
    for raw in [body] if entries is None else [_raw(entry["event"]) for entry in entries]:
        event = _value(raw)
        topic, reason = "dlq", NO_OBJECT
        if isinstance(event, dict):
            topic, reason = event.get("topic", topic), "the broker gave up after its retries"
        await service.deadletters.add(str(topic), event, raw, reason)
    statuses = [{"entryId": entry["entryId"], "status": "SUCCESS"} for entry in entries or ()]
    answer = {"status": "SUCCESS"} if entries is None else {"statuses": statuses}
    return Response(orjson.dumps(answer), media_type="application/json")


def _shelf(service: "Service") -> None:
    api = service.api

    async def needed(letter: str, caller: Operator) -> Mapping[str, Any]:
        record = await service.deadletters.get(letter)
        if record is None or not _may_see(caller, record):
            raise not_found("dead letter", letter)
        return record

    @api.get("/v1/deadletters")
    async def deadletters(
        caller: Operator, limit: Annotated[int, Query(ge=1, le=500)] = 50, cursor: str | None = None
    ) -> dict[str, Any]:
        seen = partial(_may_see, caller)
        return http.page(*await service.deadletters.newest(limit, http.read_cursor(cursor), seen))

    @api.post("/v1/deadletters/{letter}/replay")
    async def replay(letter: str, record: Annotated[Mapping[str, Any], Depends(needed)]) -> dict[str, Any]:
        try:
            await service.inbox.replay(record["event"])
        except (InvalidEnvelope, Drop) as error:
            raise Problem(409, "still-refused", f"It is refused as before: {error}") from error
        await service.deadletters.remove(letter)
        return {"id": letter, "replayed": True}

    @api.post("/v1/deadletters/{letter}/discard", dependencies=[Depends(needed)])
    async def discard(letter: str) -> dict[str, Any]:
        await service.deadletters.remove(letter)
        return {"id": letter, "discarded": True}


def _may_see(caller: Caller, record: Mapping[str, Any]) -> bool:
    """A letter of one's own projects; what names none is for whoever may see all."""
    projects = projects_of(record)
    return all(caller.sees(name) for name in projects) if projects else "*" in caller.projects
