"""The state folder of a stack: its lock, its secrets and the record of what runs."""

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

from services.runtime.signing import make_keys


class AlreadyRunning(Exception):
    """Another supervisor holds the state folder."""


@dataclass(frozen=True)
class Secrets:
    """The tokens of one home: the operator's, and the two between service and sidecar."""

    admin: str
    app_api: str
    dapr_api: str


class Home:
    """A state folder; everything a stack leaves on disk is in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def tokens_file(self) -> Path:
        return self.path / "tokens.json"

    @property
    def record_file(self) -> Path:
        return self.path / "stack.json"

    @property
    def model_keys(self) -> tuple[Path, Path]:
        """The private key that models are signed with, and the public one; a folder older than them has none."""
        return self.path / "model-key.pem", self.path / "model-key.pub"

    def create(self, places: Sequence[str] = ("",)) -> None:
        """Make the folder and its parts, and those of each place in it; only the owner may look in.

        A new folder gets a key that its models are signed with; in an old one there are models without a signature.
        """
        if not (self.path / "state").exists() and not self.model_keys[0].exists():
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            for path, key in zip(self.model_keys, make_keys(), strict=True):
                write_private(path, key.decode())
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        parts = ["logs", "scheduler", "state"]
        parts += [part for name in places for part in (name, *(f"{name}/{own}" for own in ("redis", "blobs", ".dapr")))]
        for part in parts:
            (self.path / part.strip("/")).mkdir(exist_ok=True, mode=0o700)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Be the folder's only supervisor (until death, by the kernel); AlreadyRunning names the other."""
        with (self.path / "lock").open("a+") as handle:
            if not _lock_soon(handle):
                handle.seek(0)
                pid = handle.read().strip() or "unknown"
                raise AlreadyRunning(
                    f"a stack already runs in {self.path} (pid {pid}); `halfsure status` shows it,"
                    " `halfsure down` stops it, and --home starts another elsewhere"
                )
            handle.truncate(0)
            handle.write(str(os.getpid()))
            handle.flush()
            try:
                yield
            finally:
                handle.truncate(0)

    def supervisor_pid(self) -> int | None:
        """The pid of the supervisor that holds the folder, if one does."""
        if not self.is_locked():
            return None
        text = (self.path / "lock").read_text().strip()
        return int(text) if text.isdigit() else None

    def is_locked(self) -> bool:
        """Whether a supervisor is alive in this folder."""
        try:
            with (self.path / "lock").open("r+") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def secrets(self) -> Secrets:
        """The tokens, made at first use and kept for the owner's eyes only."""
        admin = self._secret("token")
        token = {
            "sha256": hashlib.sha256(admin.encode()).hexdigest(),
            "subject": "operator",
            "role": "admin",
            "projects": ["*"],
        }
        if not self.tokens_file.exists():
            write_private(self.tokens_file, json.dumps({"tokens": [token]}, indent=2) + "\n")
        return Secrets(admin, self._secret("app-api-token"), self._secret("dapr-api-token"))

    def _secret(self, name: str) -> str:
        path = self.path / name
        if not path.exists():
            write_private(path, secrets.token_urlsafe(32) + "\n")
        return path.read_text().strip()

    def record(self) -> dict[str, Any]:
        """What the supervisor last wrote about its processes; empty when there is nothing."""
        try:
            return json.loads(self.record_file.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}

    def write_record(self, record: dict[str, Any]) -> None:
        write_private(self.record_file, json.dumps(record, indent=2) + "\n")


def _lock_soon(handle: IO[str]) -> bool:
    """Take the lock; not at the first failure given up, since `status` and `down` hold it for an instant."""
    for _ in range(5):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)
        else:
            return True
    return False


def write_private(path: Path, text: str) -> None:
    """Write the file at once, readable by its owner only."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as handle:
        handle.write(text)
    temporary.replace(path)


def same_process(pid: int, started_at: float) -> psutil.Process | None:
    """The process of that pid if it is the one started then (pids are reused), else None."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE or abs(process.create_time() - started_at) > 5.0:
            return None
    except psutil.Error:
        return None
    return process
