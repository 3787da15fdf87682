"""Content in a local folder. Whoever comes while a thread is at the disk shares the next trip."""

import asyncio
import contextlib
import ctypes
import errno
import os
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Generic, TypeVar

from services.runtime.errors import Unavailable

# From so many new files on, one flush of the file system costs less than one for each file.
FLUSH_TOGETHER = 8
NOTHING_THERE = (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG)

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """What a disk says that is full, or broken, as our Unavailable."""
    try:
        yield
    except OSError as error:
        raise Unavailable(f"blob store: {error}") from error


class FolderBlobs:
    """Files below one folder; uris are `blob:NAME`, so the folder may move."""

    def __init__(self, root: Path) -> None:
        self._root = str(root.resolve())
        self._writing = Together(self._write)
        self._reading = Together(self._read)

    async def put(self, name: str, content: bytes) -> str:
        path = self._path(name)
        with _translated():
            await self._writing.one((path, content))
        return f"blob:{name}"

    async def put_all(self, contents: Sequence[tuple[str, bytes]]) -> list[str]:
        items = [(self._path(name), content) for name, content in contents]
        with _translated():
            await self._writing.all(items)
        return [f"blob:{name}" for name, _ in contents]

    async def get_all(self, uris: Sequence[str]) -> list[bytes | None]:
        paths: dict[str, str] = {}
        for uri in uris:
            with contextlib.suppress(ValueError):
                paths[uri] = self._path(uri.removeprefix("blob:"))
        with _translated():
            contents = dict(zip(paths, await self._reading.all([*paths.values()], NOTHING_THERE), strict=True))
        return [contents.get(uri) for uri in uris]

    async def get(self, uri: str) -> bytes:
        path = self._path(uri.removeprefix("blob:"))
        with _translated():
            try:
                return await self._reading.one(path)
            except OSError as error:
                if error.errno in NOTHING_THERE:
                    raise KeyError(uri) from error
                raise

    async def holds(self, uri: str, content: bytes) -> bool:
        try:
            return await self.get(uri) == content
        except KeyError:
            return False

    async def replace(self, uri: str, content: bytes) -> None:
        path = self._path(uri.removeprefix("blob:"))
        draft = f"{os.path.dirname(path)}/.{os.path.basename(path)}.{uuid.uuid4().hex}"
        with _translated():
            await asyncio.to_thread(_write_file, draft, content, flush=True)
            await asyncio.to_thread(os.replace, draft, path)

    async def delete(self, uri: str) -> None:
        path = Path(self._path(uri.removeprefix("blob:")))
        with _translated():
            await asyncio.to_thread(path.unlink, missing_ok=True)

    def _path(self, name: str) -> str:
        """Raises ValueError for a name that leads out of the folder, be it over a link."""
        path = os.path.normpath(os.path.join(self._root, name))
        if "\0" in name or not path.startswith(self._root + os.sep) or self._leaves_by_link(path):
            raise ValueError(f"blob name {name!r} leaves the store")
        return path

    def _leaves_by_link(self, path: str) -> bool:
        # Much less to look at than os.path.realpath, which starts at / every time.
        at = self._root
        for part in path[len(self._root) + 1 :].split(os.sep):
            at = f"{at}{os.sep}{part}"
            if os.path.islink(at):
                return not os.path.realpath(path).startswith(self._root + os.sep)
        return False

    def _write(self, items: Sequence[tuple[str, bytes]]) -> "list[OSError | None]":
        """Content is on disk before its name is there."""
        mark = uuid.uuid4().hex
        drafts: list[tuple[int, str, str]] = []
        answers: list[OSError | None] = [None] * len(items)
        together = len(items) >= FLUSH_TOGETHER and _sync_file_system is not None
        for at, (path, content) in enumerate(items):
            draft = f"{os.path.dirname(path)}/.{os.path.basename(path)}.{mark}.{at}"
            try:
                if not _is_there(path, len(content)):
                    _write_file(draft, content, flush=not together)
                    drafts.append((at, draft, path))
            except OSError as error:
                answers[at] = error
        try:
            if together and drafts:
                _flush_file_system(self._root)
            for _, draft, path in drafts:
                os.replace(draft, path)
        except OSError as error:
            for at, draft, _ in drafts:
                answers[at] = error
                with contextlib.suppress(OSError):
                    os.unlink(draft)
        return answers

    @staticmethod
    def _read(paths: Sequence[str]) -> list[bytes | OSError]:
        return [_read_file(path) for path in paths]


class Together(Generic[Asked, Answer]):
    """Runs `work` in a thread over all that was asked for since it last began."""

    def __init__(self, work: Callable[[Sequence[Asked]], "list[Answer | OSError]"]) -> None:
        self._work = work
        self._waiting: list[tuple[Sequence[Asked], asyncio.Future[list[Answer | OSError]]]] = []
        self._going: asyncio.Task[None] | None = None

    async def one(self, item: Asked) -> Answer:
        """The answer for one item. Raises its OSError."""
        (answer,) = await self._asked([item])
        if isinstance(answer, OSError):
            raise answer
        return answer

    async def all(self, items: Sequence[Asked], nothing: Collection[int] = ()) -> list[Answer | None]:
        """The answers, None where the error is one of `nothing`. Raises the first other OSError."""
        answers = await self._asked(items) if items else []
        for answer in answers:
            if isinstance(answer, OSError) and answer.errno not in nothing:
                raise answer
        return [None if isinstance(answer, OSError) else answer for answer in answers]

    async def _asked(self, items: Sequence[Asked]) -> "list[Answer | OSError]":
        future: asyncio.Future[list[Answer | OSError]] = asyncio.get_running_loop().create_future()
        self._waiting.append((items, future))
        if self._going is None or self._going.done():
            self._going = asyncio.create_task(self._go())
        return await future

    async def _go(self) -> None:
        while self._waiting:
            taken, self._waiting = self._waiting, []
            try:
                answers = iter(await asyncio.to_thread(self._work, [item for items, _ in taken for item in items]))
            except BaseException as error:
                for _, future in taken:
                    if not future.done():
                        future.set_exception(RuntimeError(f"the folder was not reached: {error!r}"))
                if not isinstance(error, Exception):
                    raise
                continue
            for items, future in taken:
                answered = list(islice(answers, len(items)))
                if not future.done():
                    future.set_result(answered)


def _is_there(path: str, size: int) -> bool:
    try:
        return os.stat(path).st_size == size
    except FileNotFoundError:
        return False


def _write_file(path: str, content: bytes, *, flush: bool) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        descriptor = os.open(path, flags, 0o666)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        descriptor = os.open(path, flags, 0o666)
    try:
        with open(descriptor, "wb", buffering=0) as file:
            view = memoryview(content)
            while view:
                view = view[file.write(view) :]
            if flush:
                os.fsync(descriptor)
    except OSError:
        os.unlink(path)
        raise


def _read_file(path: str) -> bytes | OSError:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.readall()
    except OSError as error:
        return error


_sync_file_system = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None) if os.name == "posix" else None


def _flush_file_system(folder: str) -> None:
    assert _sync_file_system is not None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if _sync_file_system(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), folder)
    finally:
        os.close(descriptor)
