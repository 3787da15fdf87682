"""REST of models: the registry, activation, roll-back, and bringing one's own."""

import asyncio
import base64
import binascii
from typing import Annotated, Any

import orjson
import structlog
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from services.contracts.ids import sha256
from services.contracts.manifest import ModelManifest
from services.contracts.problem import Problem, invalid, not_found
from services.contracts.projects import ProjectDocument
from services.retrain_trigger.loadable import unloadable
from services.retrain_trigger.models import (
    acknowledged,
    compared,
    model_key,
    new_record,
    no_pointer,
    pointer_key,
    previous_of,
    state_of,
    view,
)
from services.retrain_trigger.registry import Registry
from services.retrain_trigger.run_routes import Operator, newest
from services.runtime import http
from services.runtime.access import Project, needs
from services.runtime.http import StrictRoute
from services.runtime.service import transact
from services.runtime.unit import Unit

log = structlog.get_logger()

BROUGHT = "brought"  # in the place of a run's id, in the version of a model that no run has made


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=())


class Blob(_Body):
    """An artefact that lies in the blob store already."""

    uri: str


class Brought(_Body):
    """A user's own model: base64 of the ONNX bytes, or where they are."""

    artefact: str | Blob
    manifest: ModelManifest
    reason: str = Field(default="brought by its user", max_length=500)


class Activation(_Body):
    """Which share of the traffic a version gets, and why."""

    share: float = Field(default=1.0, gt=0, le=1)
    force: bool = False
    reason: str = Field(min_length=1, max_length=500)


class Shadow(_Body):
    """Whether a version scores what comes in beside the champion, without being used, and why."""

    on: bool = True
    reason: str = Field(min_length=1, max_length=500)


class RollBack(_Body):
    """Why the previous version is to serve again."""

    reason: str = Field(default="asked for", min_length=1, max_length=500)


def routes(registry: Registry) -> APIRouter:
    router = APIRouter(route_class=StrictRoute)
    _reading(router, registry)
    _writing(router, registry)
    _shadowing(router, registry)
    _bringing(router, registry)
    return router


def _reading(router: APIRouter, registry: Registry) -> None:
    viewer = [needs("viewer")]

    @router.get("/v1/models", dependencies=viewer)
    async def listed(
        project: Project, limit: Annotated[int, Query(ge=1, le=500)] = 50, cursor: str | None = None
    ) -> dict[str, Any]:
        await registry.service.projects.need(project)
        page, more = newest(await registry.versions(project), limit, http.read_cursor(cursor))
        pointer = await registry.pointer(project)
        return http.page([view(record, pointer) for record in await registry.records(page)], more)

    @router.get("/v1/activation", dependencies=viewer)
    async def activation(project: Project) -> dict[str, Any]:
        """The model that is to serve, as its event says it; for an infer that was away, and for a device's twin."""
        await registry.service.projects.need(project)
        if (event := await registry.activation(project)) is None:
            raise not_found("activated model in project", project)
        return event.model_dump(mode="json")

    @router.get("/v1/models/compare", dependencies=viewer)
    async def compare(project: Project, a: str, b: str) -> dict[str, Any]:
        return compared(await registry.need(project, a), await registry.need(project, b))

    @router.get("/v1/models/{version}", dependencies=viewer)
    async def one(project: Project, version: str) -> dict[str, Any]:
        record, pointer = await registry.need(project, version), await registry.pointer(project)
        before = await registry.record(previous) if (previous := previous_of(pointer)) else None
        acknowledgements = acknowledged(record, pointer, before)
        # Signed, so that they can be put into a device's twin as they are.
        return {**view(record, pointer), **registry.files(record), "acknowledged": acknowledgements}


def _writing(router: APIRouter, registry: Registry) -> None:
    service = registry.service

    @router.post("/v1/models/{version}:activate", status_code=202)
    async def activate(project: Project, version: str, body: Activation, caller: Operator) -> dict[str, Any]:
        if body.force and not caller.may("admin"):
            raise Problem(403, "forbidden", "Only an admin can activate a model against the gate.")
        await registry.need(project, version)

        async def work(unit: Unit) -> dict[str, Any]:
            record = await unit.get(model_key(version)) or {}
            pointer = await unit.get(pointer_key(project)) or no_pointer()
            state = state_of(record, pointer)
            if state == "REJECTED" and not body.force:
                why = "; ".join(record["gate"]["reasons"])
                raise Problem(409, "gate-failed", f"The gate has refused this model: {why}")
            if state == "ACTIVE" and pointer.get("share", 1.0) == body.share:
                return {"version": version, "activation_epoch": pointer["epoch"], "state": state}
            epoch = registry.activate(unit, record, pointer, reason=body.reason, share=body.share)
            return {"version": version, "activation_epoch": epoch, "state": "ACTIVE"}

        answer = await transact(service, work)
        log.info("activated by hand", project=project, by=caller.subject, forced=body.force, **answer)
        return answer

    @router.post("/v1/models:rollback", status_code=202)
    async def roll_back(project: Project, body: RollBack, caller: Operator) -> dict[str, Any]:
        await service.projects.need(project)

        async def work(unit: Unit) -> dict[str, Any]:
            epoch = await registry.roll_back(unit, project, body.reason)
            pointer = await unit.get(pointer_key(project)) or no_pointer()
            return {"version": pointer["version"], "activation_epoch": epoch}

        answer = await transact(service, work)
        log.info("rolled back by hand", project=project, by=caller.subject, **answer)
        return answer


def _shadowing(router: APIRouter, registry: Registry) -> None:
    service = registry.service

    @router.post("/v1/models/{version}:shadow", status_code=202)
    async def shadow(project: Project, version: str, body: Shadow, caller: Operator) -> dict[str, Any]:
        record = await registry.need(project, version)
        if record.get("gone"):
            raise Problem(409, "artefact-gone", f"The artefact of {version} was removed by retention.")

        async def work(unit: Unit) -> dict[str, Any]:
            pointer = await unit.get(pointer_key(project)) or no_pointer()
            wanted = version if body.on else None
            if not body.on and pointer.get("shadow") != version:
                return {"shadow": pointer.get("shadow"), "activation_epoch": pointer["epoch"]}
            epoch = await registry.shadow(unit, project, wanted, body.reason)
            return {"shadow": wanted, "activation_epoch": epoch}

        answer = await transact(service, work)
        log.info("shadow by hand", project=project, by=caller.subject, **answer)
        return answer


def _bringing(router: APIRouter, registry: Registry) -> None:
    service = registry.service

    @router.post("/v1/models", status_code=201, responses={200: {"description": "It was here already"}})
    async def bring(project: Project, body: Brought, caller: Operator) -> Response:
        document = await service.projects.need(project)
        content = await _content(registry, project, body.artefact)
        await _check(content, body.manifest, document)
        version, artefact, manifest = await registry.package(project, BROUGHT, content, body.manifest)
        lineage = {"run": None, "by": caller.subject, "reason": body.reason}
        at = service.clock.now().isoformat()
        record = new_record(project, version, artefact, manifest, at=at, lineage=lineage)

        async def work(unit: Unit) -> bool:
            known = await unit.get(model_key(version))
            await registry.register(unit, record)
            pointer = await unit.get(pointer_key(project)) or no_pointer()
            if pointer["version"] is None:
                registry.activate(unit, record, pointer, reason=f"the first model, {body.reason}")
            return known is None

        new = await transact(service, work)
        shown = view(await registry.need(project, version), await registry.pointer(project))
        headers = {"location": f"/v1/models/{version}?project={project}"}
        return Response(orjson.dumps(shown), 201 if new else 200, headers=headers, media_type="application/json")


async def _content(registry: Registry, project: str, artefact: str | Blob) -> bytes:
    """The ONNX bytes. A blob is taken from the project's own part of the store only."""
    if isinstance(artefact, Blob):
        name = artefact.uri.partition(":")[2]
        if not name.startswith(f"models/{project}/"):
            raise invalid("/artefact/uri", "foreign", f"Only what lies below models/{project}/ can be taken.")
        try:
            return await registry.service.blobs.get(artefact.uri)
        except (KeyError, ValueError) as error:
            raise invalid("/artefact/uri", "not-found", "There is no such blob.") from error
    try:
        return base64.b64decode(artefact, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("/artefact", "not-base64", f"The artefact is not base64: {error}") from error


async def _check(content: bytes, manifest: ModelManifest, document: ProjectDocument) -> None:
    """Raises a 422 problem unless the model is what its manifest says, and fits the project."""
    if sha256(content) != manifest.sha256:
        raise invalid("/manifest/sha256", "mismatch", "The artefact's bytes have another sha256.")
    if manifest.task != document.task:
        raise invalid("/manifest/task", "mismatch", f"The project's task is {document.task}.")
    if sorted(manifest.labels) != sorted(document.labels):
        raise invalid("/manifest/labels", "mismatch", f"The project's labels are {', '.join(document.labels)}.")
    if fault := await asyncio.to_thread(unloadable, content, manifest):
        raise invalid("/artefact", "not-loadable", fault)
