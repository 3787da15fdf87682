"""A watched folder: each file is taken once it is whole, and never twice.

What was taken is noted in a ledger, by size and time of change; without its ledger the source sends again what is
there, and ingest finds that it knows it. A file that changes is taken again.
"""

import asyncio
import os
import stat as modes
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import structlog
from watchfiles import Change, awatch

from services.contracts import files
from services.contracts.ids import sha256
from services.contracts.problem import Problem
from services.ingest.intake import Outcome
from services.ingest.sources.config import Folder
from services.ingest.sources.door import Door, Reading, Trouble
from services.ingest.sources.settling import Settling
from services.runtime.ledger import Ledger, Line, stamp

log = structlog.get_logger()

TOGETHER, TOGETHER_BYTES = 100, 16 << 20
LOOK_AGAIN_SECONDS = 60.0
"""Between looks at the whole folder, for changes that were not reported (a full queue of the kernel, a share)."""


async def run(source: Folder, door: Door) -> None:
    """Watch until the folder is gone."""
    if not await asyncio.to_thread(source.path.is_dir):
        raise Trouble(f"there is no folder {source.path}")
    ledger = await asyncio.to_thread(Ledger, door.notes)
    try:
        await _Watch(source, door, ledger).run()
    finally:
        ledger.close()


class _Watch:
    def __init__(self, source: Folder, door: Door, ledger: Ledger) -> None:
        self._source = source
        self._door = door
        self._ledger = ledger
        self._settling = Settling(source.settle_seconds)

    async def run(self) -> None:
        tick = max(50, min(int(self._source.settle_seconds * 500), 1000))
        changes = awatch(
            self._source.path,
            watch_filter=None,
            debounce=tick,
            rust_timeout=tick,
            yield_on_timeout=True,
            recursive=self._source.recursive,
            force_polling=self._source.poll or None,
            ignore_permission_denied=True,
        )
        clock, looked = time.monotonic, float("-inf")
        async for changed in changes:
            if clock() - looked > LOOK_AGAIN_SECONDS:
                await asyncio.to_thread(self._look_at_all, clock())
                looked = clock()
                self._door.connected()
            await asyncio.to_thread(self._look_at, changed, clock())
            while batch := await asyncio.to_thread(self._batch, clock()):
                await self._take(batch)
        raise Trouble(f"{self._source.path} is not watched any more")

    def _look_at_all(self, now: float) -> None:
        if not self._source.path.is_dir():
            raise Trouble(f"the folder {self._source.path} is gone")
        self._look(self._below(self._source.path), now)

    def _below(self, folder: Path) -> list[Path]:
        return sorted(folder.glob("**/*" if self._source.recursive else "*"))

    def _look(self, paths: Iterable[Path], now: float) -> None:
        """Note files that are of interest; one that the ledger knows as it is, is none."""
        for path in paths:
            if files.holds_samples(path, self._source.texts):
                seen = _stamp(str(path))
                known = seen is not None and self._ledger.get(str(path), seen) is not None
                self._settling.look(str(path), None if known else seen, now)

    def _look_at(self, changed: Iterable[tuple[Change, str]], now: float) -> None:
        """What was reported; a new folder is looked through, for it may have been filled before it was watched."""
        paths = [Path(path) for _, path in changed]
        folders = [path for path in paths if self._source.recursive and path.is_dir() and not path.is_symlink()]
        self._look([*paths, *(below for folder in folders for below in self._below(folder))], now)

    def _batch(self, now: float) -> list[tuple[str, str]]:
        """Files that may be taken now, with their stamps; what has changed since it was seen rests on."""
        found: list[tuple[str, str]] = []
        size = 0
        for path in self._settling.rested(now):
            seen = _stamp(path)
            self._settling.look(path, seen, now)
            if seen is None or not self._settling.is_rested(path, now):
                continue
            size += int(seen.split(":")[0])
            if found and (size > TOGETHER_BYTES or files.is_table(Path(path)) or files.is_table(Path(found[0][0]))):
                break
            found.append((path, seen))
            if len(found) == TOGETHER:
                break
        return found

    async def _take(self, batch: Sequence[tuple[str, str]]) -> None:
        for path, _ in batch:
            self._settling.take(path)
        if files.is_table(Path(batch[0][0])):
            line = await self._table(*batch[0])
            lines = [line] if line else []
        else:
            lines = await self._pictures(batch)
        await asyncio.to_thread(self._ledger.put, lines)
        if self._source.after == "delete":
            await asyncio.to_thread(self._delete, lines)

    async def _pictures(self, batch: Sequence[tuple[str, str]]) -> list[Line]:
        lines, readings, read = [], [], []
        for path, seen in batch:
            reading = await asyncio.to_thread(self._read, path, seen)
            if isinstance(reading, str):
                self._door.refuse("unreadable", f"{path}: {reading}")
                lines.append(Line(path, seen, note=reading))
            elif reading is not None:
                readings.append(reading)
                read.append((path, seen))
        outcomes = await self._door.take(readings) if readings else []
        return lines + [Line(*file, note=_note(outcome)) for file, outcome in zip(read, outcomes, strict=True)]

    def _read(self, path: str, seen: str) -> Reading | str | None:
        """The file, or why it cannot be read; None if it has changed since it was seen, and is looked at again."""
        try:
            # Never over a link that was put in its place: it could lead out of the folder.
            number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(number, "rb") as file:
                about = os.fstat(number)
                if stamp(about.st_size, about.st_mtime_ns) != seen:
                    self._settling.look(path, _stamp(path), time.monotonic())
                    return None
                if about.st_size > self._door.max_bytes:
                    return f"it has {about.st_size} bytes, more than {self._door.max_bytes}"
                content = file.read(self._door.max_bytes + 1)
        except OSError as error:
            return error.strerror or type(error).__name__
        return Reading(content, captured_at=self._door.past(about.st_mtime), attributes=self._named(path))

    def _named(self, path: str) -> dict[str, Any]:
        return {"file": os.path.relpath(path, self._source.path)[-512:]}

    async def _table(self, path: str, seen: str) -> Line | None:
        """A table row by row: a row's key is the file's hash and its number, so that half a file is no trouble."""
        reading = await asyncio.to_thread(self._read, path, seen)
        if reading is None:
            return None
        if isinstance(reading, str):
            self._door.refuse("unreadable", f"{path}: {reading}")
            return Line(path, seen, note=reading)
        content, when = reading.content or b"", reading.captured_at
        name, refused = sha256(content), 0
        try:
            rows = enumerate(files.rows(Path(path).suffix, content.decode("utf-8-sig").splitlines(keepends=True)))
            for part in _parts(rows, TOGETHER):
                readings = [
                    Reading(row=row, key=f"{name}:{number}", captured_at=when, attributes=self._named(path))
                    for number, row in part
                ]
                refused += sum(isinstance(outcome, Problem) for outcome in await self._door.take(readings))
        except ValueError as error:
            self._door.refuse("unreadable", f"{path}: {error}")
            return Line(path, seen, note=str(error))
        return Line(path, seen, note=f"{refused} rows refused" if refused else "")

    def _delete(self, lines: Sequence[Line]) -> None:
        """What is stored, and is still what was stored."""
        for line in lines:
            if not line.note and _stamp(line.name) == line.stamp:
                os.unlink(line.name)
        self._ledger.forget([line.name for line in lines if not line.note])


def _stamp(path: str) -> str | None:
    """Of a regular file; None for anything else, links too."""
    try:
        about = os.lstat(path)
    except OSError:
        return None
    return stamp(about.st_size, about.st_mtime_ns) if modes.S_ISREG(about.st_mode) else None


def _note(outcome: Outcome | Problem) -> str:
    return f"{outcome.code}: {outcome}" if isinstance(outcome, Problem) else ""


def _parts(rows: Iterator[Any], size: int) -> Iterator[list[Any]]:
    part: list[Any] = []
    for row in rows:
        part.append(row)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part
