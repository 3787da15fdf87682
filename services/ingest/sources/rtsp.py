"""A camera's stream over RTSP: at most so many frames a second, each a picture."""

import asyncio
import threading
import time
from collections.abc import Callable
from urllib.parse import quote, urlsplit, urlunsplit

from services.ingest.sources.config import Onvif, Rtsp
from services.ingest.sources.door import Door, Reading, Trouble
from services.ingest.sources.frames import NETWORK, frames, opened, picture


async def run(source: Rtsp, door: Door) -> None:
    """Read the stream until it is lost."""
    await stream(source, source.url, door)


async def stream(source: Rtsp | Onvif, url: str, door: Door) -> None:
    """The same for a camera whose address has been found out. Raises Trouble."""
    try:
        address = with_login(url, source.username, source.password)
    except OSError as error:
        raise Trouble(f"password_file {source.password_file} cannot be read: {error.strerror}") from None
    loop, over = asyncio.get_running_loop(), threading.Event()

    def offer(content: bytes) -> None:
        loop.call_soon_threadsafe(door.offer, Reading(content))

    def read() -> None:
        with opened(address, NETWORK, source.timeout_seconds, rtsp_transport=source.transport) as container:
            loop.call_soon_threadsafe(door.connected)
            for frame in frames(container, keyframes=source.keyframes):
                if over.is_set():
                    return
                if frame is None:
                    loop.call_soon_threadsafe(door.status.drop, "broken")
                elif door.due(time.monotonic()):
                    offer(picture(frame, source.format, source.quality))
        raise Trouble("the stream has ended")

    reading = _in_thread(read, f"source-{source.name}")
    try:
        # FFmpeg cannot be interrupted: the thread ends with the next frame, or when the stream is silent for too long.
        await asyncio.shield(reading)
    finally:
        over.set()
        await asyncio.wait([reading])
        if not reading.cancelled():
            reading.exception()


def with_login(url: str, username: str | None, password: str | None) -> str:
    """The address with user and password in it, which is how FFmpeg takes them."""
    if username is None:
        return url
    parts = urlsplit(url)
    login = f"{quote(username, safe='')}:{quote(password or '', safe='')}"
    return urlunsplit(parts._replace(netloc=f"{login}@{parts.netloc.rpartition('@')[2]}"))


def _in_thread(work: Callable[[], None], name: str) -> "asyncio.Future[None]":
    """Run in a thread of its own: a camera would keep one of the pool's few for ever."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if not future.done():
            future.set_exception(error) if error else future.set_result(None)

    def body() -> None:
        error: BaseException | None = None
        try:
            work()
        except BaseException as caught:
            error = caught
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, error)

    threading.Thread(target=body, name=name, daemon=True).start()
    return future
