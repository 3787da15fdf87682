"""Which model answers for a project: what is wanted is state, what is loaded is memory, a worker joins the two."""

import asyncio
import platform
from collections.abc import Sequence
from typing import Any

import structlog

from services.contracts.envelope import Message
from services.contracts.events import (
    Content,
    ModelActivation,
    ModelLoaded,
    ModelLoadFailed,
    ModelRegistered,
    SignedContent,
)
from services.contracts.projects import ProjectDocument
from services.infer.artefacts import Artefacts, Loaded, Unloadable
from services.infer.memory import give_back
from services.infer.rollout import Shelf
from services.infer.settings import InferSettings
from services.runtime import tracing
from services.runtime.errors import Retry
from services.runtime.service import Service, transact
from services.runtime.unit import TRACE, Unit

log = structlog.get_logger()

NONE = "none"
"""The model version of a project that has no model: its extractor answers."""


class ModelNotReady(Retry):
    """The project's model has served before and is not loaded here yet."""


class Serving:
    """The models of all projects on this replica."""

    def __init__(self, service: Service, settings: InferSettings) -> None:
        self._service = service
        self._artefacts = Artefacts(service, settings)
        self._kept = settings.kept
        self._shelves: dict[str, Shelf] = {}
        self._announced: list[ModelRegistered] = []
        self._loads = False  # since memory was given back

    # What the model events want; nothing is loaded in a handler.

    async def register(self, batch: Sequence[Message[ModelRegistered]], unit: Unit) -> None:
        """Handler: remember where a version is, and prefetch it."""
        keys = {message.id: version_key(message.event.project, message.event.version) for message in batch}
        known = await unit.get_many([*keys.values(), *(versions_key(message.event.project) for message in batch)])
        for message in batch:
            event = message.event
            await self._service.projects.of_event(event)
            if keys[message.id] not in known:
                unit.put(keys[message.id], {"version": event.version, **_source(event)})
                await _list(unit, event.project, event.version)
                unit.then(lambda event=event: self._announced.append(event))

    async def activate(self, batch: Sequence[Message[ModelActivation]], unit: Unit) -> None:
        """Handler: the highest epoch is wanted from now on; the worker brings it in."""
        await unit.get_many(active_key(message.event.project) for message in batch)
        for message in batch:
            event = message.event
            await self._service.projects.of_event(event)
            key = active_key(event.project)
            wanted = await unit.get(key)
            if wanted and wanted["epoch"] >= event.activation_epoch:
                continue
            source = {"version": event.version, **_source(event)}
            good = wanted["good"] if wanted else None
            record = {**source, "epoch": event.activation_epoch, **_rollout(event), "good": good}
            unit.put(key, record, guard=True, origin=message.origin)
            unit.put(version_key(event.project, event.version), source)
            await _list(unit, event.project, event.version)

    # Who answers.

    async def scorer(self, document: ProjectDocument, sample_id: str) -> Loaded:
        """The model that answers for a sample, or the extractor while there is none.

        Raises ModelNotReady after a failed start.
        """
        shelf = self._shelf(document.name)
        if (loaded := shelf.answering(sample_id)) is not None:
            return loaded
        if shelf.served_before:
            raise ModelNotReady()
        return await self.extractor(document)

    async def extractor(self, document: ProjectDocument) -> Loaded:
        """The project's extractor, loaded when it is first needed. Raises ModelNotReady if it cannot be."""
        wanted = document.extractor
        shelf = self._shelf(document.name)
        if shelf.extractor is not None and shelf.extractor.sha256 == wanted.artefact.sha256:
            return shelf.extractor
        async with self._service.lock(f"extractor:{document.name}"):
            if shelf.extractor is None or shelf.extractor.sha256 != wanted.artefact.sha256:
                try:
                    shelf.extractor = await self._artefacts.load(document.name, NONE, wanted.artefact, wanted.manifest)
                except Unloadable as error:
                    raise ModelNotReady(f"The extractor of {document.name!r} cannot be loaded: {error}") from error
        return shelf.extractor

    def active(self, project: str) -> Loaded | None:
        return self._shelf(project).active

    def loaded(self, project: str, version: str) -> Loaded | None:
        """The version if it is in memory."""
        shelf = self._shelf(project)
        return next((one for one in shelf.serving if one.version == version), None) or shelf.held.get(version)

    def shelf(self, project: str) -> Shelf:
        """For those who report what is loaded."""
        return self._shelf(project)

    async def known(self, project: str, version: str) -> dict[str, Any] | None:
        """Where a version is, if it was ever announced."""
        key = version_key(project, version)
        entry = (await self._service.state.get([key])).get(key)
        return entry.value if entry else None

    async def bring(self, project: str, version: str) -> Loaded | None:
        """Load a version beside the active one. None if nobody announced it; raises Unloadable."""
        async with self._service.lock(f"load:{project}:{version}"):
            if loaded := self.loaded(project, version):
                return loaded
            source = await self.known(project, version)
            if source is None:
                return None
            loaded = await self._load(project, source)
            self._hold(project, loaded)
            return loaded

    def drop(self, project: str, version: str) -> None:
        """Let go of a version that is held beside the active one."""
        self._shelf(project).held.pop(version, None)

    # The worker.

    async def start(self) -> None:
        """Serve what was served before the restart."""
        for document in self._service.projects.all():
            wanted = await self._wanted(document.name)
            if wanted and wanted["good"]:
                self._shelf(document.name).served_before = True
                await self._bring_in(document.name, [wanted["good"]])

    async def reconcile(self) -> None:
        """Bring in what is wanted, then what was announced; forget projects that are gone."""
        names = [document.name for document in self._service.projects.all()]
        entries = await self._service.state.get([active_key(name) for name in names])
        for name in names:
            if entry := entries.get(active_key(name)):
                await self._bring_in(name, [entry.value, entry.value["good"]])
        for gone in set(self._shelves) - set(names):
            del self._shelves[gone]
        while self._announced:
            await self._prefetch(self._announced[0])
            self._announced.pop(0)
        if self._loads:
            self._loads = False
            await asyncio.to_thread(give_back)

    def unready(self) -> str | None:
        """Readiness: a project whose model served before must have one again."""
        names = [name for name, shelf in self._shelves.items() if shelf.served_before and shelf.active is None]
        return f"no model is loaded for {', '.join(sorted(names))}" if names else None

    async def _bring_in(self, project: str, sources: Sequence[dict[str, Any] | None]) -> None:
        """The first of `sources` that is newer than what serves and loads; with back-off while the store is down."""
        shelf, now = self._shelf(project), asyncio.get_running_loop().time()
        if now < shelf.not_before:
            return
        try:
            for source in sources:
                if source is None or source["epoch"] <= shelf.epoch or source["epoch"] in shelf.failed:
                    continue
                with tracing.span("load model", source.get(TRACE), project=project, version=source["version"]):
                    if await self._try(project, source):
                        return
        except Exception as error:
            shelf.tries += 1
            shelf.not_before = now + min(0.2 * 2**shelf.tries, 30.0)
            log.error("model not loaded, will try again", project=project, exc_info=error)
        else:
            shelf.tries = 0

    async def _try(self, project: str, source: dict[str, Any]) -> bool:
        """Load and swap; on failure say so, and leave what serves."""
        shelf, epoch = self._shelf(project), source["epoch"]
        try:
            loaded = self.loaded(project, source["version"]) or await self._load(project, source)
        except Unloadable as error:
            shelf.failed.add(epoch)
            shelf.served_before = shelf.active is not None  # else the extractor answers, as before any model
            log.warning("model not loaded", project=project, version=source["version"], reason=str(error))
            await self._tell(ModelLoadFailed, project, source, epoch, error=str(error))
            return False
        rest, shadow = await self._beside(project, source)
        if epoch > shelf.epoch:
            before = shelf.serving
            shelf.active, shelf.epoch, shelf.served_before = loaded, epoch, True
            shelf.rest, shelf.shadow = rest, shadow
            shelf.share = source.get("share", 1.0) if rest is not None else 1.0
            for one in before:
                self._hold(project, one)
            for one in shelf.serving:
                shelf.held.pop(one.version, None)
            log.info("model swapped", project=project, version=loaded.version, epoch=epoch, share=shelf.share)
        await self._record_good(project, source)
        await self._tell(ModelLoaded, project, source, epoch, provider=loaded.provider)
        return True

    async def _beside(self, project: str, source: dict[str, Any]) -> tuple[Loaded | None, Loaded | None]:
        """The version that has the rest of the traffic, and the shadow; without them the new one serves alone."""
        found: list[Loaded | None] = []
        wanted = (source.get("previous") if source.get("share", 1.0) < 1.0 else None, source.get("shadow"))
        for version in wanted:
            loaded = None
            if version is not None and version != source["version"]:
                try:
                    loaded = await self.bring(project, version)
                except Unloadable as error:
                    log.warning("not served beside", project=project, version=version, reason=str(error))
            found.append(loaded)
        return found[0], found[1]

    async def _prefetch(self, event: ModelRegistered) -> None:
        source = {"version": event.version, **_source(event)}
        try:
            loaded = await self.bring(event.project, event.version)
        except Unloadable as error:
            await self._tell(ModelLoadFailed, event.project, source, 0, error=str(error))
            return
        if loaded is not None:
            await self._tell(ModelLoaded, event.project, source, 0, provider=loaded.provider)

    async def _load(self, project: str, source: dict[str, Any]) -> Loaded:
        artefact = Content.model_validate(source["artefact"])
        manifest = SignedContent.model_validate(source["manifest"])
        self._loads = True
        return await self._artefacts.load(project, source["version"], artefact, manifest)

    async def _record_good(self, project: str, source: dict[str, Any]) -> None:
        """Remember what a restart has to serve."""
        names = ("version", "epoch", "artefact", "manifest", "previous", "share", "shadow")
        good = {name: source[name] for name in names if name in source}

        async def work(unit: Unit) -> None:
            record = await unit.get(active_key(project))
            if record and (record["good"] is None or record["good"]["epoch"] < source["epoch"]):
                unit.put(active_key(project), {**record, "good": good}, guard=True)

        await transact(self._service, work)

    async def _tell(
        self,
        kind: type[ModelLoaded] | type[ModelLoadFailed],
        project: str,
        source: dict[str, Any],
        epoch: int,
        **more: str,
    ) -> None:
        unit = await self._service.unit()
        unit.emit(
            kind(
                project=project,
                site=self._service.settings.siteid,
                instance=f"{platform.node()}-{self._service.outbox.slot}",
                version=source["version"],
                activation_epoch=epoch,
                sha256=source["artefact"]["sha256"],
                **more,
            )
        )
        await unit.commit()

    async def _wanted(self, project: str) -> dict[str, Any] | None:
        entry = (await self._service.state.get([active_key(project)])).get(active_key(project))
        return entry.value if entry else None

    def _hold(self, project: str, loaded: Loaded) -> None:
        held = self._shelf(project).held
        held.pop(loaded.version, None)
        held[loaded.version] = loaded
        while len(held) > self._kept:
            held.pop(next(iter(held)))

    def _shelf(self, project: str) -> Shelf:
        return self._shelves.setdefault(project, Shelf())


def active_key(project: str) -> str:
    return f"act:{project}"


def version_key(project: str, version: str) -> str:
    return f"mdl:{project}:{version}"


def versions_key(project: str) -> str:
    """All versions that were ever announced, in one record: who erases looks for what each of them has said."""
    return f"mdls:{project}"


async def _list(unit: Unit, project: str, version: str) -> None:
    known = (await unit.get(versions_key(project)) or {"of": []})["of"]
    if version not in known:
        unit.put(versions_key(project), {"of": [*known, version]}, guard=True)


def _source(event: ModelRegistered | ModelActivation) -> dict[str, Any]:
    return {"artefact": event.artefact.model_dump(), "manifest": event.manifest.model_dump()}


def _rollout(event: ModelActivation) -> dict[str, Any]:
    """Who has the rest of the traffic, which share the version itself has, and which one is only listened to."""
    return {"previous": event.previous, "share": event.rollout.get("share", 1.0), "shadow": event.shadow}
