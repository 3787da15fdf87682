"""The tokens file of a state folder: who may call, by the hash of what they hold."""

import fcntl
import hashlib
import json
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from services.cli.home import write_private


class NoSuchToken(Exception):
    """There is no such token in the file, or more than one."""


@dataclass(frozen=True)
class Grant:
    """What a token allows: the role, in these projects (`*`: all), until then, at most so often a second."""

    subject: str
    role: str
    projects: Sequence[str]
    expires_at: datetime | None = None
    rate: float | None = None


class TokensFile:
    """Read and written whole, by one at a time; the services notice a change by themselves."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def rows(self) -> list[dict[str, Any]]:
        return json.loads(self._path.read_text())["tokens"] if self._path.exists() else []

    def make(self, grant: Grant, now: datetime) -> str:
        """A new token: what is returned is nowhere kept, only its hash."""
        token = secrets.token_urlsafe(32)
        row: dict[str, Any] = {
            "sha256": hashlib.sha256(token.encode()).hexdigest(),
            "subject": grant.subject,
            "role": grant.role,
            "projects": list(grant.projects),
            "made_at": now.isoformat(),
        }
        row |= {"expires_at": grant.expires_at.isoformat()} if grant.expires_at else {}
        row |= {"rate": grant.rate} if grant.rate is not None else {}
        with self._turn():
            self._write([*self.rows(), row])
        return token

    def revoke(self, name: str) -> list[dict[str, Any]]:
        """Take away a token by the first digits of its hash, or all of a subject's. Raises NoSuchToken."""
        with self._turn():
            rows = self.rows()
            gone = [row for row in rows if row["subject"] == name]
            gone = gone or [row for row in rows if len(name) >= 6 and row["sha256"].startswith(name)]
            if not gone:
                raise NoSuchToken(f"there is no token of {name!r}; `halfsure token list` shows them")
            self._write([row for row in rows if row not in gone])
        return gone

    def _write(self, rows: Sequence[dict[str, Any]]) -> None:
        write_private(self._path, json.dumps({"tokens": list(rows)}, indent=2) + "\n")

    @contextmanager
    def _turn(self) -> Iterator[None]:
        with self._path.with_name(f".{self._path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
