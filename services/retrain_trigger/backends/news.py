"""Word from elsewhere that a job is worth a look. It is only ever a hint: how a job stands is what a look shows."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from services.retrain_trigger.backends import Job


class News:
    """Wakes whoever follows a job."""

    def __init__(self) -> None:
        self._words: dict[str, asyncio.Event] = {}

    def tell(self, run: str) -> None:
        """There is news of a run: whoever follows it looks at once."""
        if run in self._words:
            self._words[run].set()

    def drop(self, run: str) -> None:
        """Nobody follows it any more."""
        self._words.pop(run, None)

    async def follow(self, run: str, look: Callable[[], Awaitable[Job]], patience: float, every: float) -> Job:
        """What `look` shows once the job is over, or has been spoken of, or after `patience` seconds.

        It looks at once, at a word, and every so many seconds.
        """
        clock = asyncio.get_running_loop().time
        deadline, word = clock() + patience, self._words.setdefault(run, asyncio.Event())
        while True:
            told = word.is_set()
            word.clear()
            stands = await look()
            left = deadline - clock()
            if stands.state != "running" or told or left <= 0:
                return stands
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(word.wait(), min(left, every))
