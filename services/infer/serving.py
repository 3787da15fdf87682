"""Which model answers for a project: what is loaded is memory, what is wanted is state; a worker joins the two."""

import asyncio
import platform
from collections.abc import Sequence
from typing import Any

import structlog

from services.contracts.events import Content, ModelLoaded, ModelLoadFailed, ModelRegistered, SignedContent
from services.contracts.projects import ProjectDocument
from services.infer.artefacts import Artefacts, Loaded, Unloadable
from services.infer.memory import give_back
from services.infer.rollout import Shelf
from services.infer.settings import InferSettings
from services.infer.wanted import Wanted, source_of
from services.runtime import tracing
from services.runtime.errors import Retry
from services.runtime.service import Service
from services.runtime.unit import TRACE

log = structlog.get_logger()

NONE = "none"
"""The model version of a project that has no model: its extractor answers."""


class ModelNotReady(Retry):
    """The project's model has served before and is not loaded here yet."""


class Serving:
    """The models of all projects on this replica."""

    def __init__(self, service: Service, wanted: Wanted, settings: InferSettings) -> None:
        self._service = service
        self.wanted = wanted
        self._artefacts = Artefacts(service, settings)
        self._kept = settings.kept
        self._shelves: dict[str, Shelf] = {}
        self._loads = False  # since memory was given back

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

    async def bring(self, project: str, version: str) -> Loaded | None:
        """Load a version beside the active one. None if nobody announced it; raises Unloadable."""
        async with self._service.lock(f"load:{project}:{version}"):
            if loaded := self.loaded(project, version):
                return loaded
            source = await self.wanted.known(project, version)
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
            if good := await self.wanted.good(document.name):
                self._shelf(document.name).served_before = True
                await self._bring_in(document.name, [good])

    async def reconcile(self) -> None:
        """Bring in what is wanted, then what was announced; forget projects that are gone."""
        names = [document.name for document in self._service.projects.all()]
        for name, wanted in (await self.wanted.of(names)).items():
            await self._bring_in(name, [wanted, wanted["good"]])
        for gone in set(self._shelves) - set(names):
            del self._shelves[gone]
        while self.wanted.announced:
            await self._prefetch(self.wanted.announced[0])
            self.wanted.announced.pop(0)
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
        await self.wanted.record_good(project, source)
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
        source = source_of(event)
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

    def _hold(self, project: str, loaded: Loaded) -> None:
        held = self._shelf(project).held
        held.pop(loaded.version, None)
        held[loaded.version] = loaded
        while len(held) > self._kept:
            held.pop(next(iter(held)))

    def _shelf(self, project: str) -> Shelf:
        return self._shelves.setdefault(project, Shelf())
