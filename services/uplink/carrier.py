"""A publisher that brings content to the other side before it says anything about it."""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

import orjson
import structlog

from services.contracts.envelope import read
from services.contracts.events import Content, Event, SampleUploaded, SampleWithdrawn
from services.contracts.ids import sha256
from services.runtime.errors import Retry
from services.runtime.ports import Blobs, Outgoing, Publisher
from services.runtime.service import Service
from services.uplink.door import Door
from services.uplink.settings import UplinkSettings
from services.uplink.traffic import blob_name, contents, samples_of

log = structlog.get_logger()

KNOWN = 10_000  # contents remembered as carried, so that a model's next event does not carry it again


class Lost(Exception):
    """This content can never be carried."""


class Carrier:
    """Between an outbox and a broker: blobs go from the first of `ends` to the second, checked, and then the event
    goes. The door says when; what went through it is told to the site."""

    def __init__(
        self,
        service: Service,
        publisher: Publisher,
        ends: tuple[Blobs, Blobs],
        settings: UplinkSettings,
        door: Door | None = None,
    ) -> None:
        self._service = service
        self._publisher = publisher
        self._source, self._target = ends
        self._door = door
        self._seconds = settings.blob_seconds
        self._turns = asyncio.Semaphore(settings.at_once)
        self._carried: OrderedDict[str, None] = OrderedDict()

    async def publish(self, events: Sequence[Outgoing]) -> list[Outgoing]:
        """As any publisher. An event whose content is gone for good goes to the shelf instead."""
        fates = await asyncio.gather(*(self._bring(event) for event in events))
        ready = [event for event, fate in zip(events, fates, strict=True) if fate == "ready"]
        waiting = [event for event, fate in zip(events, fates, strict=True) if fate == "waiting"]
        try:
            return waiting + (await self._publisher.publish(ready) if ready else [])
        except Retry:
            if len(ready) == len(events):
                raise
            return waiting + ready

    async def _bring(self, outgoing: Outgoing) -> str:
        """`ready`, `waiting` (the other side does not answer) or `lost`."""
        envelope = orjson.loads(outgoing.envelope)
        event = read(envelope).event
        try:
            async with self._turns, asyncio.timeout(self._seconds):
                for content in contents(event):
                    if not await self._carry(content, event):
                        return "waiting"
                await self._erase(event)
        except (Lost, ValueError) as error:
            await self._service.deadletters.add(outgoing.topic, envelope, outgoing.envelope, str(error))
            log.warning("an event stays here", topic=outgoing.topic, reason=str(error))
            return "lost"
        except (Retry, TimeoutError, OSError) as error:
            log.warning("content waits", uri=[content.uri for content in contents(event)], reason=str(error))
            return "waiting"
        return "ready"

    async def _carry(self, content: Content, event: Event) -> bool:
        """Whether it is on the other side; if not, the door is closed."""
        if content.uri in self._carried:
            return True
        if self._door and not self._door.lets(content.bytes):
            return False
        try:
            raw = await self._source.get(content.uri)
        except KeyError as error:
            if await self._is_there(content):
                return True
            raise Lost(f"there is nothing at {content.uri}") from error
        if sha256(raw) != content.sha256:
            raise Lost(f"what is at {content.uri} has the sha256 {sha256(raw)}, not {content.sha256}")
        await self._target.put(blob_name(content.uri), raw)
        if not await self._target.holds(content.uri, raw):
            raise Lost(f"the other side has something else at {content.uri}")
        if self._door and content in samples_of(event):
            await self._tell(event, content)
        self._remember(content.uri)
        return True

    async def _is_there(self, content: Content) -> bool:
        """Whether it was carried before, and let go here since."""
        try:
            return sha256(await self._target.get(content.uri)) == content.sha256
        except KeyError:
            return False

    async def _tell(self, event: Event, content: Content) -> None:
        """The site's ingest may let go of a sample's content from now on."""
        unit = await self._service.unit()
        unit.emit(SampleUploaded(project=event.project, sample_id=event.subject, content=content))
        await unit.commit()

    async def _erase(self, event: Event) -> None:
        """What was withdrawn is taken back from the other side too."""
        if not isinstance(event, SampleWithdrawn) or not event.erase_content:
            return
        key = sent_key(event)
        if entry := (await self._service.state.get([key])).get(key):
            await self._target.delete(entry.value["uri"])
            self._carried.pop(entry.value["uri"], None)

    def _remember(self, uri: str) -> None:
        self._carried[uri] = None
        if len(self._carried) > KNOWN:
            self._carried.popitem(last=False)


def sent_key(event: Event) -> str:
    """Where it is kept what content of a sample has left the site."""
    return f"sent:{event.project}:{event.subject}"
