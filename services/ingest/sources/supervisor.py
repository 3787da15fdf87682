"""Keeps the sources running: each on one replica, connected again after every failure, stopped cleanly."""

import asyncio
import contextlib
import random
from collections.abc import Sequence
from typing import Any

import structlog

from services.contracts.problem import Problem
from services.ingest.intake import Outcome
from services.ingest.samples import Samples
from services.ingest.sources import lease
from services.ingest.sources.config import Source
from services.ingest.sources.door import Door, Trouble
from services.ingest.sources.kinds import MissingLibrary, runner
from services.ingest.sources.pacing import Backoff
from services.ingest.sources.status import Status
from services.runtime.errors import Drop, Retry

log = structlog.get_logger()

DRAIN_SECONDS = 3.0  # that a stop waits for what was read and is not stored yet
CAPTURE_SECONDS = 10.0


class Keeper:
    """One source: holds its lease, and reads it while it does."""

    def __init__(self, samples: Samples, source: Source) -> None:
        self.source = source
        self.status = Status(source)
        self._service = samples.service
        notes = samples.service.settings.state_dir / "sources" / f"{source.name}.sqlite"
        live = source.kind not in ("folder", "video")
        self.door = Door(samples, source, self.status, notes, burst=1.0 if live else max(1.0, source.rate or 1.0))
        self._reading: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._keeping = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """End the connection, store what was read, and leave the source to another replica."""
        await _ended(self._keeping)
        await self._release()
        with contextlib.suppress(Retry):
            await self._renew(0.0)

    async def _keep(self) -> None:
        while True:
            try:
                held = await self._renew(lease.SECONDS)
            except Retry as error:
                # Without the store nothing is stored twice either: the connection may stay.
                log.warning("a source's lease waits", source=self.source.name, reason=str(error))
            else:
                await self._follow(held)
            await asyncio.sleep(lease.SECONDS / 3)

    async def _follow(self, held: bool) -> None:
        if held and self._reading is None:
            self._reading = asyncio.create_task(self._read())
        elif not held and self._reading is not None:
            await self._release()
        if not held:
            self.status.enter("elsewhere", self._service.clock.now(), "another replica of ingest reads it")

    async def _renew(self, seconds: float) -> bool:
        if self.source.kind == "binding":
            return True  # every replica's own sidecar brings messages
        holder, now = str(self._service.outbox.slot), self._service.clock.now()
        return await lease.renew(self._service.state, self.source.name, holder, now, self.status.view(), seconds)

    async def _release(self) -> None:
        await _ended(self._reading)
        self._reading = None
        self.status.enter("stopped", self._service.clock.now())

    async def _read(self) -> None:
        serving = asyncio.create_task(self.door.serve())
        try:
            await self._again_and_again()
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_SECONDS):
                    await self.door.drained()
            await _ended(serving)

    async def _again_and_again(self) -> None:
        """Connect until the source has ended: a recording has, a camera has not."""
        backoff = Backoff(self.source.reconnect.first, self.source.reconnect.longest)
        now = self._service.clock.now
        reason: str | None = None
        while True:
            # Why the last try failed is said until one has worked.
            self.status.enter("connecting", now(), reason)
            self.door.worked = False
            reason, hopeless = await self._once()
            if reason is None or hopeless:
                self.status.enter("ended", now(), reason)
                log.info("a source has ended", source=self.source.name, reason=reason)
                return
            if self.door.worked:
                backoff.reset()
            wait = backoff.wait(random.random())
            self.status.enter("retrying", now(), reason)
            log.warning("a source is tried again", source=self.source.name, reason=reason, seconds=round(wait, 1))
            await asyncio.sleep(wait)
            self.status.reconnecting()

    async def _once(self) -> tuple[str | None, bool]:
        """Why a connection has ended (None: there is nothing more to come), and whether another try is hopeless."""
        try:
            await self._service.projects.named(self.source.project)
            await runner(self.source.kind)(self.source, self.door)
        except MissingLibrary as error:
            return str(error), True
        except (Trouble, Retry, Drop) as error:
            return str(error), False
        except Exception as error:
            log.error("a source failed", source=self.source.name, exc_info=error)
            return f"it failed with {type(error).__name__}; the log says more", False
        return None, False


class SourcesKeeper:
    """All sources of this replica."""

    def __init__(self, samples: Samples, sources: Sequence[Source]) -> None:
        self._service = samples.service
        self.keepers = {source.name: Keeper(samples, source) for source in sources}

    async def start(self) -> None:
        for keeper in self.keepers.values():
            keeper.start()

    async def stop(self) -> None:
        await asyncio.gather(*(keeper.stop() for keeper in self.keepers.values()))

    async def views(self, project: str) -> list[dict[str, Any]]:
        """The sources that feed a project; of those that another replica reads, what it last said of them."""
        mine = [keeper for keeper in self.keepers.values() if keeper.source.project == project]
        away = [lease.key(keeper.source.name) for keeper in mine if keeper.status.state == "elsewhere"]
        records = await self._service.state.get(away)
        return [
            records[key].value["view"] if (key := lease.key(keeper.source.name)) in records else keeper.status.view()
            for keeper in mine
        ]

    async def capture(self, name: str) -> Outcome | Problem:
        """The next frame or row of a live source, now. Raises a 409 or 504 problem."""
        keeper = self.keepers[name]
        if keeper.source.kind in ("folder", "video", "binding"):
            raise Problem(
                409, "not-live", f"{name} is a {keeper.source.kind}; only a live source can be captured from."
            )
        if keeper.status.state != "connected":
            reason = keeper.status.reason or keeper.status.state
            raise Problem(409, "not-connected", f"{name} is not connected here: {reason}.")
        try:
            return await keeper.door.capture(CAPTURE_SECONDS)
        except TimeoutError:
            detail = f"{name} has brought nothing for {CAPTURE_SECONDS:.0f} s; try again."
            raise Problem(504, "nothing-came", detail) from None


async def _ended(task: asyncio.Task[None] | None) -> None:
    if task is None:
        return
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled() and (error := task.exception()):
        log.error("a source's task failed", exc_info=error)
