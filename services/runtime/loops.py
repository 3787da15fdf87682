"""Work that goes on, whatever happens to one try of it."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from services.runtime.errors import Retry

log = structlog.get_logger()


async def patiently(start: Callable[[], Awaitable[None]]) -> None:
    """The store may need a moment after its sidecar says that it is up."""
    for attempt in range(30):
        try:
            return await start()
        except Retry as error:
            log.warning("waiting to start", reason=str(error), attempt=attempt)
            await asyncio.sleep(min(0.1 * 2**attempt, 2.0))
    await start()


async def forever(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    """Do `work` again and again; a failure is logged and tried again."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
        except Retry as error:
            log.warning("will try again", work=work.__qualname__, reason=str(error))
        except Exception as error:
            log.error("background work failed", work=work.__qualname__, exc_info=error)
