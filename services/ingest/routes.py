"""REST of ingest."""

import uuid
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query, Request, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict
from starlette.datastructures import UploadFile

from services.contracts.ids import digest
from services.contracts.problem import Problem, invalid
from services.contracts.projects import ProjectDocument
from services.ingest import admission, index
from services.ingest.admission import Draft, Gate, Inline, Meta
from services.ingest.history import History
from services.ingest.intake import Outcome
from services.ingest.records import answer, view
from services.ingest.samples import Samples
from services.runtime import http
from services.runtime.access import Caller, Project, caller_with, needs

LINES = 1000
KNOWN = {"description": "The sample is known already; its first id"}
GATHERED = {"description": "A point of a stream whose window is not whole yet"}
CACHED = "private, max-age=31536000, immutable"


class Withdrawal(BaseModel):
    """Why a sample must go."""

    model_config = ConfigDict(extra="forbid")

    reason: Literal["privacy", "bad_data", "consent"]


def routes(samples: Samples, history: History) -> APIRouter:
    """All routes, tied to `samples` and `history`."""
    router = APIRouter(route_class=http.StrictRoute)
    _writing(router, samples)
    _reading(router, samples, history)
    return router


def _writing(router: APIRouter, samples: Samples) -> None:
    @router.post(
        "/v1/samples",
        dependencies=[needs("operator")],
        status_code=201,
        responses={200: KNOWN, 202: GATHERED},
        openapi_extra=_taken("application/json", *(f"image/{kind}" for kind in ("png", "jpeg"))),
    )
    async def post(project: Project, request: Request) -> Response:
        document = await samples.service.projects.need(project)
        name = _request_id(request)
        try:
            draft: Draft | Problem = await _draft(samples, samples.gate(document), request)
        except Problem as problem:
            draft = problem
        (outcome,) = await samples.admit(document, [draft], [name])
        if isinstance(outcome, Problem):
            raise outcome
        return answer(outcome, project)

    @router.post(
        "/v1/samples:batch",
        dependencies=[needs("operator")],
        status_code=207,
        openapi_extra=_taken("application/x-ndjson"),
    )
    async def batch(project: Project, request: Request) -> Response:
        document = await samples.service.projects.need(project)
        lines = [line for line in (await request.body()).split(b"\n") if line.strip()]
        if len(lines) > LINES:
            raise invalid("", "too-many", f"A batch may have {LINES} lines, not {len(lines)}.")
        results = await _batch(samples, document, lines, _request_id(request))
        return Response(orjson.dumps({"results": results}), 207, media_type="application/json")

    @router.delete("/v1/samples/{sample}", status_code=202)
    async def withdraw(
        project: Project, sample: str, body: Withdrawal, caller: Annotated[Caller, caller_with("operator")]
    ) -> dict[str, Any]:
        await samples.service.projects.need(project)
        return view(await samples.withdraw(project, sample, caller.subject, body.reason))


def _reading(router: APIRouter, samples: Samples, history: History) -> None:
    viewer = [needs("viewer")]

    @router.get("/v1/samples", dependencies=viewer)
    async def listed(
        project: Project,
        state: Literal["STORED", "BUFFERED", "EXPIRED", "WITHDRAWN"] | None = None,
        tag: str | None = None,
        stream: str | None = None,
        attribute: Annotated[str | None, Query(pattern="^[^=]+=", description="NAME=VALUE")] = None,
        since: Annotated[AwareDatetime | None, Query(alias="from")] = None,
        until: Annotated[AwareDatetime | None, Query(alias="to")] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        cursor: str | None = None,
    ) -> dict[str, Any]:
        await samples.service.projects.need(project)
        name, _, value = (attribute or "").partition("=")
        wanted = index.Filter(state, tag, stream, since, until, (name, value) if name else None)
        found = await index.page(samples.service.state, project, wanted, limit, http.read_cursor(cursor))
        return http.page([view(record) for record in found.items], found.cursor)

    @router.get("/v1/samples/{sample}", dependencies=viewer)
    async def one(project: Project, sample: str) -> dict[str, Any]:
        record = view(await samples.get(project, sample))
        link = f"/v1/samples/{sample}/content?project={project}"
        return {**record, "content_link": link, "predictions": await history.predictions(project, sample)}

    @router.get("/v1/samples/{sample}/content", dependencies=viewer)
    async def content(project: Project, sample: str, request: Request) -> Response:
        record = await samples.shown(project, sample)
        tag = f'"{record["content"]["sha256"]}"'
        headers = {"etag": tag, "cache-control": CACHED, "x-content-type-options": "nosniff"}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        media_type = record["content"]["media_type"]
        return Response(await samples.content(record), headers=headers, media_type=media_type)

    @router.get("/v1/samples/{sample}/history", dependencies=viewer)
    async def story(project: Project, sample: str) -> dict[str, Any]:
        record = await samples.get(project, sample)
        return {"sample_id": sample, "state": record["state"], "events": await history.of(project, record)}

    @router.get("/v1/stats", dependencies=viewer)
    async def stats(project: Project) -> dict[str, Any]:
        await samples.service.projects.need(project)
        return await samples.stats(project)


def _taken(*kinds: str) -> dict[str, Any]:
    """The body for the OpenAPI: the routes read it themselves, because a sample comes in many forms."""
    schema = Inline.model_json_schema()
    claim = schema.pop("$defs")["Claim"]
    schema["properties"]["content"] = {"anyOf": [claim, {"type": "null"}]}
    schemas = {kind: {"type": "string", "format": "binary"} for kind in kinds} | {"application/json": schema}
    return {"requestBody": {"content": {kind: {"schema": schemas[kind]} for kind in kinds}}}


def _request_id(request: Request) -> str:
    """The same for a request that is sent again under the same Idempotency-Key."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return f"req_{uuid.uuid4().hex[:26]}"
    return f"req_{digest(request.headers.get('authorization', ''), request.url.path, request.url.query, key)}"


async def _draft(samples: Samples, gate: Gate, request: Request) -> Draft:
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _multipart(gate, request)
    body = await request.body()
    if kind == "application/json":
        return await samples.drafted(gate, admission.parsed(Inline, http.read_json(body)))
    if not body:
        raise Problem(400, "malformed", "The body is empty.")
    meta = admission.parsed(Meta, admission.from_headers(request.headers))
    return gate.draft(body, kind, meta)


async def _multipart(gate: Gate, request: Request) -> Draft:
    async with request.form(max_files=1, max_fields=1) as form:
        unknown = set(form) - {"file", "meta"}
        if unknown:
            raise invalid(f"/{min(unknown)}", "extra-forbidden", "The fields of the form are file and meta.")
        file, text = form.get("file"), form.get("meta")
        if not isinstance(file, UploadFile):
            raise Problem(400, "malformed", "The form has no file.")
        if isinstance(text, UploadFile):
            raise Problem(400, "malformed", "meta is a JSON field, not a file.")
        meta = admission.parsed(Meta, http.read_json(text.encode()) if text else {})
        return gate.draft(await file.read(), file.content_type or "", meta)


async def _batch(
    samples: Samples, document: ProjectDocument, lines: list[bytes], request_id: str
) -> list[dict[str, Any]]:
    gate = samples.gate(document)
    drafts: list[Draft | Problem] = []
    for line in lines:
        try:
            drafts.append(await samples.drafted(gate, admission.parsed(Inline, http.read_json(line))))
        except Problem as problem:
            drafts.append(problem)
    names = [f"{request_id}.{number}" for number in range(len(lines))]
    outcomes = await samples.admit(document, drafts, names)
    return [_result(number, outcome) for number, outcome in enumerate(outcomes)]


def _result(number: int, outcome: Outcome | Problem) -> dict[str, Any]:
    if isinstance(outcome, Problem):
        errors = [fault.model_dump() for fault in outcome.errors]
        refused = {"code": outcome.code, "detail": outcome.detail, "errors": errors}
        return {"line": number, "status": outcome.status, "problem": refused}
    record = outcome.record
    shown = {name: record[name] for name in ("sample_id", "state", "points", "of") if name in record}
    if not outcome.gathering:
        shown["sha256"] = record["content"]["sha256"]
    return {"line": number, "status": outcome.status, **shown, "duplicate": outcome.duplicate}
