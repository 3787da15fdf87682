"""A recording: taken once, frame by frame at so many of each of its seconds, as fast as ingest takes them."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from services.ingest.sources.config import Video
from services.ingest.sources.door import Door, Reading, Trouble
from services.ingest.sources.frames import LOCAL, frames, opened, picture
from services.runtime.ledger import WHOLE, Ledger, Line, stamp

TOGETHER = 8
READ_SECONDS = 8.0


async def run(source: Video, door: Door) -> None:
    """Take what the ledger does not know as taken, to the end; a recording that was replaced is taken anew.

    A frame's sequence is its time in milliseconds, so that a frame is the same sample however often it is read.
    """
    try:
        about = await asyncio.to_thread(source.path.stat)
    except OSError as error:
        raise Trouble(f"{source.path}: {error.strerror}") from None
    name, seen = str(source.path), stamp(about.st_size, about.st_mtime_ns)
    ledger = await asyncio.to_thread(Ledger, door.notes)
    try:
        known = await asyncio.to_thread(ledger.get, name, seen)
        if known and known.position == WHOLE:
            return
        after = known.position if known else -1
        pictures = _pictures(source, after, about.st_mtime, door)
        door.connected()
        while batch := await asyncio.to_thread(_some, pictures):
            await door.take(batch)
            await asyncio.to_thread(ledger.put, [Line(name, seen, batch[-1].sequence or 0)])
        await asyncio.to_thread(ledger.put, [Line(name, seen)])
    finally:
        ledger.close()


def _pictures(source: Video, after: int, changed: float, door: Door) -> Iterator[Reading]:
    """Readings of the frames after so many milliseconds."""
    with opened(str(source.path), LOCAL, READ_SECONDS) as container:
        began = _began(container.metadata)
        due = float("-inf")
        for frame in frames(container):
            if frame is None:
                door.status.drop("broken")
                continue
            if frame.time is None or frame.time < due:
                continue
            due = max(due, frame.time) if due == float("-inf") else due
            due += 1 / source.rate if source.rate else 0.0
            at = round(frame.time * 1000)
            if at <= after:
                continue
            # A file says when it began, or else when it was last written, which is not much later than its end.
            when = began + timedelta(seconds=frame.time) if began else datetime.fromtimestamp(changed, UTC)
            yield Reading(
                picture(frame, source.format, source.quality),
                captured_at=door.past(when.timestamp()),
                sequence=at,
                attributes={"file": source.path.name, "seconds": round(frame.time, 3)},
            )


def _began(metadata: dict[str, Any]) -> datetime | None:
    """When the recording began, if its maker has said so."""
    try:
        when = datetime.fromisoformat(str(metadata.get("creation_time", "")).replace("Z", "+00:00"))
    except ValueError:
        return None
    return when if when.tzinfo else None


def _some(pictures: Iterator[Reading]) -> list[Reading]:
    return list(islice(pictures, TOGETHER))
