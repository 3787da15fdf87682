"""Steers the site by the module twin: what is wanted is fetched, checked, and said on the site's bus."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
import structlog

from services.contracts.envelope import Message, read, wrap
from services.contracts.events import Content, Event, ModelLoaded, ModelLoadFailed, ProjectUpdated
from services.contracts.ids import sha256
from services.runtime.errors import Retry, Unavailable
from services.runtime.ports import Blobs
from services.runtime.service import Service, transact
from services.runtime.unit import Unit
from services.uplink import twin
from services.uplink.download import Broken, download, where
from services.uplink.forwarding import Forwarding
from services.uplink.hub import Hub

log = structlog.get_logger()

TWIN = "twin"  # the lane: the site's bus, with nothing to carry first
STATUS = "model-status"  # the output of the module, which the deployment's route takes to IoT Hub
ROWS = "twin:rows"
LONGEST_PAUSE = 30.0
Part = twin.WantedModel | twin.WantedProject


class Steering:
    """Between IoT Hub and the site. Ids are the cloud's, so what comes both ways is one fact."""

    def __init__(self, service: Service, forwarding: Forwarding, hub: Hub, far: Blobs, seconds: float) -> None:
        self._service = service
        self._forwarding = forwarding
        self._hub = hub
        self._far = far
        self._seconds = seconds
        self._connected = False
        self._changed = False
        self._error: str | None = None
        self._reported: Mapping[str, Any] | None = None
        self._pause = 0.0
        self._not_before = 0.0

    async def loaded(self, batch: Sequence[Message[ModelLoaded | ModelLoadFailed]], unit: Unit) -> None:
        """Handler: note what infer says of models, and hand it on as always."""
        rows = await _rows(unit)
        for message in batch:
            project = message.event.project
            rows[project] = twin.heard(rows.get(project, twin.no_row()), message.event)
        unit.put(ROWS, {"rows": rows}, guard=True)
        await self._forwarding.hand_on(batch, unit)

    async def work(self) -> None:
        """Look at what is wanted if it has changed, and report what is new. The service calls it again and again."""
        if time.monotonic() < self._not_before:
            return
        trouble: Retry | None = None
        try:
            if not self._connected:
                await self._hub.connect(self._note)
                self._connected = self._changed = True
            if self._changed:
                self._changed = False
                properties = await self._hub.desired()
                try:
                    await self._follow(properties)
                except Retry as error:  # content that waits is reported, too
                    trouble = error
            await self._report()
            if trouble:
                raise trouble
            self._pause = 0.0
        except Retry:
            self._connected, self._changed = trouble is not None, True
            self._pause = min(max(1.0, self._pause * 2), LONGEST_PAUSE)
            self._not_before = time.monotonic() + self._pause
            raise

    async def close(self) -> None:
        await self._hub.close()

    def _note(self) -> None:
        self._changed = True
        self._not_before = 0.0

    async def _follow(self, properties: Mapping[str, Any]) -> None:
        try:
            desired = twin.understood(properties)
        except twin.NotUnderstood as error:
            self._error = str(error)[: twin.MOST_WORDS]
            log.warning("the twin is not understood", reason=self._error)
            return
        self._error = None
        if desired.project:
            try:
                await self._bring(desired.project.name, desired.project)
            except Broken as error:
                self._error = f"project: {error}"[: twin.MOST_WORDS]
                log.warning("the twin's project is not taken", reason=self._error)
        if desired.model:
            await self._follow_model(desired.model, desired.seen)

    async def _follow_model(self, model: twin.WantedModel, seen: int) -> None:
        row = await self._change(model.project, lambda row: twin.wanting(row, model, seen))
        if row["status"] != "fetching":
            return
        try:
            await self._bring(model.project, model)
        except Broken as error:
            reason = str(error)
            log.warning("the twin's model is not taken", version=model.version, reason=reason)
            await self._change(model.project, lambda row: twin.failing(row, reason))
        except Retry as error:
            reason = str(error)
            await self._change(model.project, lambda row: twin.failing(row, reason, "waiting"))
            raise
        else:
            await self._change(model.project, twin.handed)

    async def _bring(self, project: str, part: Part) -> None:
        """Content first, then the events. Raises Broken, or Unavailable."""
        for content in twin.contents(part):
            try:
                async with asyncio.timeout(self._seconds):
                    raw = await self._fetch(content)
            except TimeoutError as error:
                raise Unavailable(f"{where(content)} does not answer within {self._seconds:.0f} s") from error
            if sha256(raw) != content.sha256:
                raise Broken(f"what is at {where(content)} has the sha256 {sha256(raw)}, not {content.sha256}")
            await self._service.blobs.put(twin.kept_as(project, content), raw)
        for event in twin.facts(part):
            await self._say(event)

    async def _fetch(self, content: Content) -> bytes:
        try:
            if content.uri.startswith("blob:"):
                return await self._far.get(content.uri)
            if content.uri.startswith("https://"):
                return await download(content)
        except KeyError as error:
            raise Broken(f"there is nothing at {where(content)}") from error
        raise Broken(f"{where(content)} is neither blob:NAME nor an https url")

    async def _say(self, event: Event) -> None:
        settings, now = self._service.settings, self._service.clock.now()
        raw = wrap(event, siteid=settings.siteid, service=self._service.app_id, now=now)
        message = read(orjson.loads(raw))
        handler = self._forwarding.project if isinstance(event, ProjectUpdated) else self._forwarding.hand_on

        async def work(unit: Unit) -> None:
            await handler([message], unit)  # type: ignore[arg-type]

        await transact(self._service, work, lane=TWIN)

    async def _change(self, project: str, change: Callable[[twin.Row], twin.Row]) -> twin.Row:
        """One project's row, in the store; the new one."""

        async def work(unit: Unit) -> twin.Row:
            rows = await _rows(unit)
            before = rows.get(project, twin.no_row())
            after = change(before)
            if after != before:
                unit.put(ROWS, {"rows": {**rows, project: after}}, guard=True)
            return after

        return await transact(self._service, work)

    async def _report(self) -> None:
        entry = (await self._service.state.get([ROWS])).get(ROWS)
        rows = entry.value["rows"] if entry else {}
        models = {twin.key_of(project): twin.shown(row) for project, row in rows.items()}
        said = {"models": models, "error": self._error}
        if said == self._reported:
            return
        await self._hub.report(said)
        before = self._reported["models"] if self._reported else models
        self._reported = said
        for project, row in models.items():
            if row != before.get(project):
                await self._hub.say(STATUS, {"project": project, "site": self._service.settings.siteid, **row})


async def _rows(unit: Unit) -> dict[str, twin.Row]:
    found: dict[str, Any] = await unit.get(ROWS) or {"rows": {}}
    return dict(found["rows"])
