"""Hands events on to the other side: once each, whatever is delivered twice and whoever crashes."""

from collections.abc import Sequence
from typing import Any

from services.contracts.envelope import Message
from services.contracts.events import ProjectUpdated, SampleSelected
from services.runtime.service import Service
from services.runtime.unit import Unit
from services.uplink.carrier import sent_key
from services.uplink.settings import UplinkSettings

DAY = 86_400


class Forwarding:
    """The handlers of both directions; a mark for each event decides who hands it on."""

    def __init__(self, service: Service, settings: UplinkSettings) -> None:
        self._service = service
        self._ttl = settings.remember_days * DAY

    async def hand_on(self, batch: Sequence[Message[Any]], unit: Unit) -> None:
        """Handler: say on the other side what was said on this one."""
        marks = {message.id: f"handed:{message.id}" for message in batch}
        known = await unit.get_many(marks.values())
        for message in batch:
            mark = marks[message.id]
            if mark in known:
                continue
            unit.put(mark, {"type": message.event.type}, guard=True, ttl=self._ttl)
            unit.forward(message, guard=mark)
            if isinstance(message.event, SampleSelected):
                unit.put(sent_key(message.event), {"uri": message.event.content.uri})

    async def project(self, batch: Sequence[Message[ProjectUpdated]], unit: Unit) -> None:
        """Handler: a project is handed on, and kept for the site's services, which ask here for it."""
        await self._service.projects.update(batch, unit)
        await self.hand_on(batch, unit)
