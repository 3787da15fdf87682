"""What Label Studio has told of and nobody has looked at yet."""

import asyncio

MOST = 10_000  # tasks that wait to be looked at; beyond that, all are


class News:
    """What there is to look at: some tasks, or (None) all of them."""

    def __init__(self) -> None:
        self._tasks: set[int] | None = set()
        self._some = asyncio.Event()

    def tell(self, tasks: set[int] | None) -> None:
        if tasks is None or self._tasks is None or len(self._tasks) > MOST:
            self._tasks = None
        else:
            self._tasks |= tasks
        self._some.set()

    async def wait(self, seconds: float) -> set[int] | None:
        """The tasks that there is news of; None, after so many seconds too, means all."""
        try:
            async with asyncio.timeout(seconds):
                await self._some.wait()
        except TimeoutError:
            return None
        tasks, self._tasks = self._tasks, set()
        self._some.clear()
        return tasks
