"""REST of labels that go out and come in."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import structlog
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from services.contracts.problem import Problem
from services.label_queue.exports import Cut, in_bulks
from services.label_queue.interchange import format_of
from services.label_queue.interchange.archive import unpacked
from services.label_queue.tasks import Split
from services.runtime.access import Caller, Project, caller_with, needs

if TYPE_CHECKING:
    from services.label_queue.routes import Parts

log = structlog.get_logger()

# The route reads the body itself, by its format.
TAKEN = {"requestBody": {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}}
FormatName = Annotated[str, Query(alias="format")]


def routes(router: APIRouter, parts: "Parts") -> None:
    @router.get("/v1/export")
    async def export(
        project: Project,
        caller: Annotated[Caller, caller_with("viewer")],
        form: FormatName = "jsonl",
        snapshot: str | None = None,
        revision: str | None = None,
    ) -> Response:
        """All accepted labels, or a snapshot's; `revision`, an export's ETag, is refused once labels have changed."""
        document = await parts.tasks.service.projects.need(project)
        schema = await parts.schemas.of(document)
        chosen = format_of(form, document)
        if snapshot is not None:
            labels, tag = await parts.exports.snapshot(project, snapshot)
            source, total = in_bulks(labels), len(labels)
        else:
            tag, total = await parts.exports.revision(project)
            if revision is not None and revision.strip('"') != tag:
                detail = f"The labels are at {tag} by now; take that, or the snapshot of a training run."
                raise Problem(409, "revision-gone", detail)
            source = parts.exports.current(project, caller.may("reviewer"), tag if revision else None)
        headers = {
            "content-disposition": f'attachment; filename="{project}-{chosen.name}.{chosen.suffix}"',
            "etag": f'"{tag}"',
            "x-total-count": str(total),
        }
        body = _logged(parts.exports.write(chosen, document, schema, source))
        return StreamingResponse(body, media_type=chosen.media_type, headers=headers)

    @router.post("/v1/import", dependencies=[needs("operator")], status_code=207, openapi_extra=TAKEN)
    async def imported(
        project: Project, request: Request, split: Split | None = None, form: FormatName = "jsonl"
    ) -> Response:
        """One result a label, as they are written; `split` is for all of them, else each goes where it says."""
        document = await parts.tasks.service.projects.need(project)
        schema = await parts.schemas.of(document)
        chosen = format_of(form, document)
        bundle = unpacked(await request.body(), chosen.document, document.task)
        results = parts.imports.take(document, schema, split, chosen.read(bundle))
        first = await anext(results, None)  # what is wrong with the file as a whole is said before anything else
        return StreamingResponse(_results(first, results), 207, media_type="application/json")


async def _results(
    first: list[dict[str, Any]] | None, rest: AsyncIterator[list[dict[str, Any]]]
) -> AsyncIterator[bytes]:
    yield b'{"results":['
    if first:
        yield orjson.dumps(first)[1:-1]
    try:
        async for rows in rest:
            yield b"," + orjson.dumps(rows)[1:-1]
    except Problem as problem:
        told = {"code": problem.code, "detail": problem.detail}
        yield b"," + orjson.dumps({"status": problem.status, "problem": told})
    yield b"]}"


async def _logged(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """A stream that ends too early breaks off, so that nobody takes it for whole; the log says why."""
    try:
        async for piece in body:
            yield piece
    except Cut as error:
        log.warning("export cut short", reason=str(error))
        raise
