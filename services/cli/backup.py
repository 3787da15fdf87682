"""One file that a whole stack can be made from again: its state and its bus at one moment, its contents, its tokens.

A tar of `state.rdb` (all keys of Redis at one moment), `blobs/…`, the files of HOME, and last `backup.json`, which has
a hash of all that is before it. Contents are written once and before the records that name them, so what is copied
after the state has all that the state names, but for what was erased meanwhile: that stays erased.
"""

import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

from services.cli import redis_copy
from services.cli.home import Home
from services.cli.redis import find_redis_server

FORMAT = 1
STATE, BLOBS, ENDING = "state.rdb", "blobs/", "backup.json"
# Who may call goes with the rest; what service and sidecar know each other by is made anew.
HOME = ("token", "tokens.json", "model-key.pem", "model-key.pub")
# A workflow goes on by what the scheduler remembers, which is not in the backup: the runs that it stood for begin anew.
LOST = ("*||dapr.internal.*",)


class NoBackup(Exception):
    """There is nothing to back up, the file is no whole backup, or there is no room for it."""


def write(home: Home, redis: tuple[str, int], file: Path) -> dict[str, Any]:
    """Back a running stack up; nothing of it waits. Returns what `backup.json` says. Raises NoBackup, CopyFailed."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as raw:
            with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
                ending = _fill(tar, home, redis)
            raw.flush()
            os.fsync(raw.fileno())
        draft.replace(file)
    except OSError as error:
        raise NoBackup(f"{file} cannot be written: {error}") from error
    finally:
        draft.unlink(missing_ok=True)
    return ending


def _fill(tar: tarfile.TarFile, home: Home, redis: tuple[str, int]) -> dict[str, Any]:
    began, seal, blobs = datetime.now(UTC), hashlib.sha256(), 0
    with tempfile.TemporaryFile(dir=home.path) as state:
        redis_copy.fetch(*redis, into=state)
        size = state.tell()
        state.seek(0)
        _add(tar, seal, STATE, state, size)
    for name in HOME:
        if (path := home.path / name).exists():
            _add(tar, seal, name, io.BytesIO(content := path.read_bytes()), len(content))
    for path in _contents(home.path / BLOBS):
        try:
            with path.open("rb") as content:
                size = os.fstat(content.fileno()).st_size
                _add(tar, seal, BLOBS + path.relative_to(home.path / BLOBS).as_posix(), content, size)
            blobs += 1
        except FileNotFoundError:
            continue  # erased meanwhile
    ending = {
        "format": FORMAT,
        "version": version("halfsure"),
        "at": began.isoformat(),
        "blobs": blobs,
        "sha256": seal.hexdigest(),
    }
    said = json.dumps(ending).encode()
    _add(tar, seal, ENDING, io.BytesIO(said), len(said))
    return ending


def _contents(folder: Path) -> Iterator[Path]:
    """The files that are whole; a name that begins with a dot is a draft."""
    for at, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(at) / name for name in sorted(names) if not name.startswith("."))


def _add(tar: tarfile.TarFile, seal: Any, name: str, content: IO[bytes], size: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o600
    tar.addfile(member, _Sealed(content, seal, name))


class _Sealed(io.RawIOBase):
    """A file whose name and bytes are hashed while it is read."""

    def __init__(self, content: IO[bytes], seal: Any, name: str) -> None:
        self._content, self._seal = content, seal
        seal.update(f"{name}\n".encode())

    def read(self, size: int = -1) -> bytes:
        part = self._content.read(size)
        self._seal.update(part)
        return part


def restore(home: Home, file: Path) -> dict[str, Any]:
    """Make a new stack's home of a backup; it is started as any other. Nothing is left of a file that is refused.

    Returns what `backup.json` says, and how many keys there are. Raises NoBackup, CopyFailed, NoRedis, AlreadyRunning.
    """
    server = find_redis_server()
    home.path.mkdir(parents=True, exist_ok=True, mode=0o700)
    with home.lock(), _unpacked(home, file) as (folder, ending):
        if any((home.path / part).exists() for part in ("redis", "blobs")):
            raise NoBackup(f"{home.path} has the data of a stack already; restore into another --home, or move it away")
        (folder / "redis").mkdir(mode=0o700)
        keys = redis_copy.plant(server, folder / STATE, folder / "redis", LOST)
        (folder / BLOBS).mkdir(exist_ok=True, mode=0o700)
        for part in ("redis", "blobs", *HOME):
            if (folder / part).exists():
                (folder / part).rename(home.path / part)
    return {**ending, "keys": keys}


@contextmanager
def _unpacked(home: Home, file: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The backup's files in a folder beside the data, every byte as it was written; and what `backup.json` says."""
    folder = Path(tempfile.mkdtemp(prefix=".restore-", dir=home.path))
    try:
        yield folder, _unpack(file, folder)
    except (OSError, tarfile.TarError, json.JSONDecodeError) as error:
        raise NoBackup(f"{file} cannot be restored: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unpack(file: Path, folder: Path) -> dict[str, Any]:
    seal, ending, before = hashlib.sha256(), {}, ""
    with tarfile.open(file, mode="r:") as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isreg() and _belongs(member.name) else None
            if content is None:
                raise NoBackup(f"{file} is no backup of halfsure: it has {member.name!r} in it")
            before = seal.hexdigest()
            _place(content, folder / member.name, seal, member.name)
            if member.name == ENDING:
                ending = json.loads((folder / ENDING).read_text())
                break
    if not ending or ending.get("format") != FORMAT or not (folder / STATE).exists():
        raise NoBackup(f"{file} is not a whole backup of format {FORMAT}; a newer halfsure may read it")
    if ending["sha256"] != before:
        raise NoBackup(f"{file} is damaged: its contents do not have the hash that it names")
    return ending


def _belongs(name: str) -> bool:
    return name in (STATE, ENDING, *HOME) or (name.startswith(BLOBS) and ".." not in name.split("/"))


def _place(content: IO[bytes], path: Path, seal: Any, name: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        shutil.copyfileobj(_Sealed(content, seal, name), file, 1 << 20)
