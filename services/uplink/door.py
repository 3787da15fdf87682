"""The way up for content: open in its windows, or for a while after a forced flush, and so wide per second."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import prometheus_client

from services.contracts.envelope import Message
from services.contracts.events import BufferFlushRequested
from services.runtime.service import Service
from services.runtime.unit import Unit
from services.uplink.opening import Bucket, is_open, opens
from services.uplink.settings import UplinkSettings

FLUSH = "flush"  # until when a forced flush holds; a restart does not shorten it

SENT = prometheus_client.Counter("halfsure_uplink_content_bytes_total", "Bytes of content sent to the cloud")


class Door:
    """What content passes on its way up."""

    def __init__(self, service: Service, settings: UplinkSettings) -> None:
        self._service = service
        self._windows = settings.windows
        self._rate = settings.bytes_per_second
        self._burst = settings.burst_seconds
        self._flush_for = timedelta(seconds=settings.flush_seconds)
        self._forced: datetime | None = None
        self._bucket: Bucket | None = None

    async def load(self) -> None:
        entry = (await self._service.state.get([FLUSH])).get(FLUSH)
        if entry:
            self._forced = datetime.fromisoformat(entry.value["until"])

    async def flush(self, batch: Sequence[Message[BufferFlushRequested]], unit: Unit) -> None:
        """BufferFlushRequested: outside of the windows only a forced one changes anything."""
        forced = [message.time + self._flush_for for message in batch if message.event.force]
        if not forced:
            return
        if record := await unit.get(FLUSH):
            forced.append(datetime.fromisoformat(record["until"]))
        until = max(forced)
        unit.put(FLUSH, {"until": until.isoformat()}, guard=True)
        unit.then(lambda: self._open_until(until))

    def lets(self, size: int) -> bool:
        """Whether a content of `size` bytes may go now; if so, its bytes are counted."""
        now = self._service.clock.now()
        if not self._open(now) or not self._bucket_of(now).take(size, now):
            return False
        SENT.inc(size)
        return True

    def view(self) -> dict[str, Any]:
        """Whether it is open, when it opens, and the bytes a second it is wide."""
        now = self._service.clock.now()
        shut = not self._open(now)
        opening = opens(self._windows, now) if shut else None
        return {"open": not shut, "opens": opening.isoformat() if opening else None, "bytes_per_second": self._rate}

    def _open(self, now: datetime) -> bool:
        return is_open(self._windows, now) or (self._forced is not None and now < self._forced)

    def _bucket_of(self, now: datetime) -> Bucket:
        rate = self._rate or float("inf")
        if self._bucket is None:
            self._bucket = Bucket(rate, rate * self._burst, rate * self._burst, now)
        return self._bucket

    def _open_until(self, until: datetime) -> None:
        self._forced = until
