"""The projects, as their owner keeps them: made, changed and deleted here, published to all."""

import asyncio
from typing import Any

from pydantic import ValidationError

from services.contracts.envelope import Message
from services.contracts.events import Content, ProjectUpdated
from services.contracts.ids import sha256
from services.contracts.manifest import ModelManifest
from services.contracts.problem import Problem, invalid
from services.contracts.projects import Extractor, ProjectDocument, ProjectSpec, TriggerRule
from services.contracts.tasks import kind_of
from services.retrain_trigger.heads import HeadParams
from services.runtime.http import check_match
from services.runtime.service import Service, transact
from services.runtime.signing import Signer
from services.runtime.unit import Unit


def project_key(name: str) -> str:
    return f"project:{name}"


def etag(document: ProjectDocument) -> str:
    """A project's revision, as If-Match takes it."""
    return f'"{document.revision}"'


class Catalogue:
    """Every write raises the revision; a name that was deleted goes on counting."""

    def __init__(self, service: Service, signer: Signer | None = None) -> None:
        self.service = service
        self._signer = signer or Signer(None)

    async def create(self, spec: ProjectSpec) -> tuple[ProjectDocument, bool]:
        """The project, and whether it is new; the same again is harmless. A 409 problem if it is there otherwise."""
        extractor = await self._extractor(spec)

        async def work(unit: Unit) -> tuple[ProjectDocument, bool]:
            known, revision = await self._known(unit, spec.name)
            if known is None:
                return await self._write(unit, spec, extractor, revision + 1, 1), True
            if _spec(known) != spec:
                detail = f"There is another project {spec.name!r}; change it with PUT and If-Match: {etag(known)}."
                raise Problem(409, "project-exists", detail)
            return known, False

        return await transact(self.service, work)

    async def change(self, spec: ProjectSpec, match: str | None) -> ProjectDocument:
        """Replace a project's document. Problems: 404, 412, 422 for another task, 428."""
        await self.service.projects.need(spec.name)
        extractor = await self._extractor(spec)

        async def work(unit: Unit) -> ProjectDocument:
            known = await self._matching(unit, spec.name, match)
            if spec.task != known.task:
                raise invalid("/task", "fixed", "A project keeps its task; make another project for another one.")
            if _spec(known) == spec:
                return known
            schema_version = known.schema_version + (spec.labels != known.labels)
            return await self._write(unit, spec, extractor, known.revision + 1, schema_version)

        return await transact(self.service, work)

    async def change_trigger(self, name: str, rule: TriggerRule, match: str | None) -> ProjectDocument:
        """Replace a project's retrain rule alone."""

        async def work(unit: Unit) -> ProjectDocument:
            known = await self._matching(unit, name, match)
            spec = _spec(known).model_copy(update={"trigger": rule})
            return await self._write(unit, spec, known.extractor, known.revision + 1, known.schema_version)

        return await transact(self.service, work)

    async def delete(self, name: str, match: str | None) -> None:
        """Publish that a project is no more."""

        async def work(unit: Unit) -> None:
            known = await self._matching(unit, name, match)
            await self._publish(unit, known, known.revision + 1, deleted=True)

        await transact(self.service, work)

    async def _known(self, unit: Unit, name: str) -> tuple[ProjectDocument | None, int]:
        row = await unit.get(project_key(name))
        if row is None:
            return None, 0
        document = None if row["deleted"] else ProjectDocument.model_validate(row["document"])
        return document, row["revision"]

    async def _matching(self, unit: Unit, name: str, match: str | None) -> ProjectDocument:
        known, _ = await self._known(unit, name)
        if known is None:
            await self.service.projects.need(name)
            raise Problem(404, "not-found", f"There is no project {name!r} here.")
        check_match(match, etag(known))
        return known

    async def _write(
        self, unit: Unit, spec: ProjectSpec, extractor: Extractor, revision: int, schema_version: int
    ) -> ProjectDocument:
        fields: dict[str, Any] = {"revision": revision, "schema_version": schema_version, "extractor": extractor}
        document = ProjectDocument.model_validate({**spec.model_dump(), **fields})
        await self._publish(unit, document, revision, deleted=False)
        return document

    async def _publish(self, unit: Unit, document: ProjectDocument, revision: int, *, deleted: bool) -> None:
        event = ProjectUpdated(
            project=document.name, revision=revision, document=document.model_dump(mode="json"), deleted=deleted
        )
        # This service's own copy is kept as every other's: by the event.
        now = self.service.clock.now()
        message = Message(event=event, id="", source=self.service.app_id, time=now, correlationid=document.name)
        await self.service.projects.update([message], unit)
        unit.emit(event, guard=project_key(document.name))

    async def _extractor(self, spec: ProjectSpec) -> Extractor:
        """The bundled feature extractor for the project's input, in the blob store."""
        try:
            HeadParams.model_validate(spec.training)
        except ValidationError as error:
            fault = error.errors()[0]
            raise invalid("/training/" + "/".join(map(str, fault["loc"])), fault["type"], fault["msg"]) from error
        if kind_of(spec.task) != spec.input.kind:
            raise invalid("/task", "input-mismatch", f"The task {spec.task} does not take a {spec.input.kind} input.")
        try:
            content, manifest = await asyncio.to_thread(_built, spec)
        except ValueError as error:
            raise invalid("/input", "no-extractor", str(error)) from error
        described = manifest.model_dump_json().encode()
        blobs = self.service.blobs
        base = f"models/{spec.name}/"
        claim = Content(
            uri=await blobs.put(f"{base}{sha256(described)}.json", described),
            sha256=sha256(described),
            bytes=len(described),
            media_type="application/json",
        )
        return Extractor(
            artefact=Content(
                uri=await blobs.put(f"{base}{manifest.sha256}.onnx", content),
                sha256=manifest.sha256,
                bytes=len(content),
                media_type="application/octet-stream",
            ),
            manifest=self._signer.signed(spec.name, claim),
        )


def _built(spec: ProjectSpec) -> tuple[bytes, ModelManifest]:
    """Raises ValueError for an input that the bundled extractors do not take."""
    from services.retrain_trigger.extractors import extractor

    return extractor(spec.task, spec.input)


def _spec(document: ProjectDocument) -> ProjectSpec:
    return ProjectSpec.model_validate(document.model_dump(include=set(ProjectSpec.model_fields)))
