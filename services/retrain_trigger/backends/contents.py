"""Copies of samples and models on this machine's disk, fetched once."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from services.contracts.ids import sha256

AT_A_TIME = 16  # contents fetched at once


class ContentGone(Exception):
    """A content is not in the blob store any more, or is not what its hash says."""


class Contents:
    """A folder of contents by project and name; a name's content never changes."""

    def __init__(self, fetch: Callable[[str], Awaitable[bytes]], folder: Path) -> None:
        self._get = fetch
        self._folder = folder

    def path(self, project: str, name: str) -> Path:
        return self._folder / project / name[-2:] / name

    async def bring(self, project: str, wanted: Sequence[tuple[str, str, str]]) -> dict[str, ContentGone]:
        """Make (name, uri, sha256) lie at `path(project, name)`; returns those that cannot be had."""
        missing = await asyncio.to_thread(self._missing, project, wanted)
        gate = asyncio.Semaphore(AT_A_TIME)
        failed: dict[str, ContentGone] = {}

        async def one(name: str, uri: str, sha: str) -> None:
            async with gate:
                try:
                    await self._fetch(self.path(project, name), uri, sha)
                except ContentGone as error:
                    failed[name] = error

        await asyncio.gather(*(one(*row) for row in missing))
        return failed

    async def forget(self, project: str, names: set[str]) -> None:
        for name in names:
            await asyncio.to_thread(self.path(project, name).unlink, missing_ok=True)

    def _missing(self, project: str, wanted: Sequence[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
        return [row for row in wanted if not self.path(project, row[0]).exists()]

    async def _fetch(self, path: Path, uri: str, sha: str) -> None:
        try:
            content = await self._get(uri)
        except KeyError as error:
            raise ContentGone(f"the content of {path.name} is gone from the blob store") from error
        if sha256(content) != sha:
            raise ContentGone(f"the content of {path.name} is not what its hash says")
        await asyncio.to_thread(_write, path, content)


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all; a lost copy is fetched again, so it need not reach the disk at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{id(content)}")
    draft.write_bytes(content)
    draft.replace(path)
