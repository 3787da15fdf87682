"""REST of label-queue."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Header, Query, Request, Response

from services.contracts.ids import task_id
from services.contracts.problem import Problem, invalid, not_found
from services.label_queue import exchange, views
from services.label_queue.answers import Answers, Submission
from services.label_queue.bodies import AnswerBody, ClaimBody, LeaseBody, Name, ResolveBody, RetractBody, SkipBody
from services.label_queue.claims import Ask, Claims
from services.label_queue.exports import Exports
from services.label_queue.imports import Imports
from services.label_queue.quality import Quality
from services.label_queue.queue import Queue
from services.label_queue.schemas import Schema, SchemaChange, Schemas, etag
from services.label_queue.store import Tasks
from services.label_queue.suggestions import SHOWN_BEFORE, reveal
from services.label_queue.tasks import State, Task
from services.runtime import http
from services.runtime.access import Caller, Project, caller_with, needs

ByAnnotator = Annotated[Caller, caller_with("annotator")]
ByReviewer = Annotated[Caller, caller_with("reviewer")]
CACHED = "private, max-age=31536000, immutable"


@dataclass(frozen=True)
class Parts:
    """What the routes are tied to."""

    tasks: Tasks
    queue: Queue
    claims: Claims
    answers: Answers
    schemas: Schemas
    imports: Imports
    exports: Exports
    quality: Quality


def routes(parts: Parts) -> APIRouter:
    """All routes, tied to `parts`."""
    router = APIRouter(route_class=http.StrictRoute)
    for add in (_leasing, _answering, _reading, _contents, _measures, _schemas, exchange.routes):
        add(router, parts)
    return router


def speaker(caller: Caller, named: str | None) -> str:
    """The token's subject; whoever an operator names. Raises a 403 for an annotator who names another."""
    if named is None or named == caller.subject:
        return caller.subject
    if not caller.may("operator"):
        raise Problem(403, "forbidden", "Only an operator may act for another annotator.")
    return named


def _leasing(router: APIRouter, parts: Parts) -> None:
    @router.post("/v1/tasks:claim", responses={204: {"description": "None is free; X-Queue says how many wait"}})
    async def claim(project: Project, caller: ByAnnotator, body: ClaimBody) -> Response:
        document = await parts.tasks.service.projects.need(project)
        schema = await parts.schemas.of(document)
        limit = parts.claims.settings.max_leases
        if body.n > limit:
            raise invalid("/n", "too-many", f"At most {limit} tasks can be claimed at a time.")
        for at, label in enumerate(body.labels or []):
            schema.known(label, f"/labels/{at}")
        if body.labels and document.suggestions not in SHOWN_BEFORE:
            raise invalid("/labels", "hidden", "This project does not show suggestions before the answer.")
        who, terms = speaker(caller, body.annotator), (document.quality, document.policy.required_labels)
        if body.tasks and not caller.may("operator"):
            raise Problem(403, "forbidden", "Only an operator may choose which tasks are claimed.")
        claimed = await parts.claims.claim(Ask(project, who, body.n, *terms, body.labels, body.tasks))
        if not claimed:
            book = await parts.tasks.book(project)
            counts = views.stats(book, "")
            return Response(status_code=204, headers={"x-queue": "queued={queued}; leased={leased}".format(**counts)})
        rows = [views.to_label(task, schema, reveal(document, task, who)) for task in claimed]
        return _json({"tasks": rows})

    @router.post("/v1/tasks/{task}:heartbeat")
    async def heartbeat(project: Project, task: str, caller: ByAnnotator, body: LeaseBody) -> dict[str, Any]:
        kept = await parts.claims.heartbeat(project, task, speaker(caller, body.annotator), body.epoch)
        return {"id": kept.id, "state": kept.state, "lease": views.lease(kept)}

    @router.post("/v1/tasks/{task}:release")
    async def release(project: Project, task: str, caller: ByAnnotator, body: LeaseBody) -> dict[str, Any]:
        freed = await parts.claims.release(project, task, speaker(caller, body.annotator), body.epoch)
        return {"id": freed.id, "state": freed.state, "lease": None}

    @router.post("/v1/tasks/{task}:skip")
    async def skip(project: Project, task: str, caller: ByAnnotator, body: SkipBody) -> dict[str, Any]:
        how = {"reason": body.reason, "may_return": body.requeue}
        closed = await parts.claims.skip(project, task, speaker(caller, body.annotator), body.epoch, **how)
        return {"id": closed.id, "state": closed.state, "reason": closed.skip_reason, "lease": None}


def _answering(router: APIRouter, parts: Parts) -> None:
    @router.post(
        "/v1/tasks/{task}/annotations", status_code=201, responses={200: {"description": "It was here already"}}
    )
    async def annotate(project: Project, task: str, caller: ByAnnotator, body: AnswerBody) -> Response:
        document = await parts.tasks.service.projects.need(project)
        schema = await parts.schemas.of(document)
        who = speaker(caller, body.annotator)
        if body.shown and not caller.may("operator"):
            raise Problem(403, "forbidden", "Only an operator may say what was shown elsewhere.")
        more = (body.seconds, body.revises, body.shown)
        value, check = schema_check(schema, body)
        given = Submission(task, who, body.epoch, value, schema.version, *more)
        after, answer, new = await parts.answers.submit(document, given, check)
        return _json(views.answered(after, answer), 201 if new else 200)

    @router.delete("/v1/annotations/{annotation}")
    async def undo(
        project: Project, annotation: str, caller: ByAnnotator, annotator: Name | None = None
    ) -> dict[str, Any]:
        document = await parts.tasks.service.projects.need(project)
        who = speaker(caller, annotator)
        task = await parts.answers.undo(project, annotation, who, others=caller.may("reviewer"))
        schema = await parts.schemas.of(document)
        mine = task.lease is not None and task.lease.holder == who
        shown = views.to_label(task, schema, reveal(document, task, who)) if mine else None
        return {"id": annotation, "undone": True, "state": task.state, "task": shown}

    @router.post("/v1/tasks/{task}:unskip")
    async def unskip(project: Project, task: str, caller: ByAnnotator, body: LeaseBody) -> dict[str, Any]:
        """A skip is taken back: the task is the caller's again, under the epoch of the lease that comes back."""
        await parts.tasks.service.projects.need(project)
        again = await parts.answers.unskip(project, task, speaker(caller, body.annotator), body.epoch)
        return {"id": again.id, "state": again.state, "lease": views.lease(again)}

    @router.post("/v1/tasks/{task}:resolve")
    async def resolve(project: Project, task: str, caller: ByReviewer, body: ResolveBody) -> dict[str, Any]:
        schema = await parts.schemas.of(await parts.tasks.service.projects.need(project))
        value = schema.check(body.value)
        return views.full(await parts.answers.resolve(project, task, caller.subject, value, schema.version))

    @router.post("/v1/samples/{sample}/label:retract", dependencies=[needs("reviewer")])
    async def retract(project: Project, sample: str, body: RetractBody | None = None) -> dict[str, Any]:
        await parts.tasks.service.projects.need(project)
        body = body or RetractBody()
        return views.full(await parts.answers.retract(project, sample, body.why, body.requeue))


def schema_check(schema: Schema, body: AnswerBody) -> tuple[Any, Callable[[], Any]]:
    """The answer in its one form, if it is one, and what a new answer must pass; one given before has passed it."""

    def check() -> Any:
        return schema.check(body.value, body.schema_version)

    try:
        return schema.check(body.value), check
    except Problem:
        return body.value, check


def _reading(router: APIRouter, parts: Parts) -> None:
    @router.get("/v1/tasks")
    async def listed(
        project: Project,
        caller: Annotated[Caller, caller_with("viewer")],
        state: Annotated[list[str] | None, Query()] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        cursor: str | None = None,
    ) -> dict[str, Any]:
        await parts.tasks.service.projects.need(project)
        await parts.tasks.refresh(project)
        book = await parts.tasks.book(project)
        states, sees_gold = _states(state), caller.may("reviewer")
        names, more = book.page(states, http.read_cursor(cursor), limit, gold=not sees_gold)
        found = await parts.tasks.many(names)
        if not sees_gold:
            found = await parts.tasks.seen_by(caller.subject, found)
        # A record may be further on than the book of this replica, and a probe has a state of its own.
        found = [task for task in found if task.state in states]
        if not sees_gold:
            return http.page([views.plain(task) for task in found], more)
        hints = await _hints(parts, project, found)
        return http.page([views.full(task, hints.get(task.id)) for task in found], more)

    @router.get("/v1/tasks/{task}")
    async def one(project: Project, task: str, caller: Annotated[Caller, caller_with("viewer")]) -> dict[str, Any]:
        await parts.tasks.service.projects.need(project)
        found = await parts.tasks.many([task])
        if not caller.may("reviewer"):
            found = await parts.tasks.seen_by(caller.subject, found)
        if not found or found[0].project != project:
            raise not_found("task", task)
        if not caller.may("reviewer"):
            return views.plain(found[0])
        return views.full(found[0], (await _hints(parts, project, found)).get(task))

    @router.get("/v1/samples/{sample}", dependencies=[needs("viewer")])
    async def sample_(project: Project, sample: str) -> dict[str, Any]:
        """The content of a sample that there is a task of; ingest asks for those that never passed it."""
        found = await parts.tasks.many([task_id(project, sample)])
        if not found or found[0].content is None or found[0].withdrawn:
            raise not_found("sample", sample)
        return {"sample_id": sample, "state": found[0].state, "content": found[0].content.model_dump()}


def _contents(router: APIRouter, parts: Parts) -> None:
    @router.get("/v1/tasks/{task}/content")
    async def content(project: Project, task: str, request: Request, caller: ByAnnotator) -> Response:
        """The sample's bytes, wherever the queue runs: an annotator needs no other service to see what is asked."""
        await parts.tasks.service.projects.need(project)
        found = await parts.tasks.many([task])
        if not caller.may("reviewer"):
            found = await parts.tasks.seen_by(caller.subject, found)
        if not found or found[0].project != project:
            raise not_found("task", task)
        claim = found[0].content
        if found[0].withdrawn or claim is None:
            raise Problem(410, "gone", "The sample was withdrawn, and its content with it.")
        headers = {"etag": f'"{claim.sha256}"', "cache-control": CACHED, "x-content-type-options": "nosniff"}
        if headers["etag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        try:
            raw = await parts.tasks.service.blobs.get(claim.uri)
        except KeyError as error:
            raise Problem(410, "gone", "The sample's content is not in the store any more.") from error
        return Response(raw, headers=headers, media_type=claim.media_type)


def _measures(router: APIRouter, parts: Parts) -> None:
    @router.get("/v1/stats", dependencies=[needs("viewer")])
    async def stats(project: Project) -> dict[str, Any]:
        await parts.tasks.service.projects.need(project)
        await parts.tasks.refresh(project)
        return views.stats(await parts.tasks.book(project), await parts.queue.active_version(project))

    @router.get("/v1/agreement", dependencies=[needs("viewer")])
    async def agreement(project: Project) -> dict[str, Any]:
        document = await parts.tasks.service.projects.need(project)
        return (await parts.quality.of(document.name)).agreement

    @router.get("/v1/pace", dependencies=[needs("viewer")])
    async def pace(project: Project) -> dict[str, Any]:
        await parts.tasks.service.projects.need(project)
        return await parts.quality.pace(project)

    @router.get("/v1/annotators")
    async def annotators(project: Project, caller: ByAnnotator) -> dict[str, Any]:
        await parts.tasks.service.projects.need(project)
        rows = (await parts.quality.of(project)).annotators
        return {"items": [row for name, row in rows.items() if caller.may("reviewer") or name == caller.subject]}


def _schemas(router: APIRouter, parts: Parts) -> None:
    def visible(caller: Caller, name: str) -> None:
        if not caller.sees(name):
            raise not_found("project", name)

    @router.get("/v1/schemas/{name}")
    async def schema(name: str, caller: Annotated[Caller, caller_with("viewer")]) -> Response:
        visible(caller, name)
        now = await parts.schemas.of(await parts.tasks.service.projects.need(name))
        shown = {"task": now.task, "labels": list(now.labels), "version": now.version}
        return _json(shown, headers={"etag": etag(now)})

    @router.put("/v1/schemas/{name}", status_code=201)
    async def put(
        name: str,
        body: SchemaChange,
        caller: Annotated[Caller, caller_with("operator")],
        if_match: Annotated[str | None, Header()] = None,
    ) -> Response:
        visible(caller, name)
        now = await parts.schemas.put(await parts.tasks.service.projects.need(name), body, if_match)
        shown = {"task": now.task, "labels": list(now.labels), "version": now.version, "on_change": now.on_change}
        return _json(shown, 201, headers={"etag": etag(now)})


async def _hints(parts: Parts, project: str, tasks: Sequence[Task]) -> Mapping[str, Any]:
    """Suggested answers, for tasks in dispute."""
    disputed = any(task.state == State.DISPUTED for task in tasks)
    return (await parts.quality.of(project)).disputed if disputed else {}


def _states(wanted: list[str] | None) -> set[State]:
    try:
        return {State(name.upper()) for name in wanted} if wanted else set(State)
    except ValueError as error:
        raise Problem(400, "bad-state", f"The states are {', '.join(State)}.") from error


def _json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), status, headers=headers, media_type="application/json")
