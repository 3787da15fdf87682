"""What of a heap of files has been dealt with already: a small SQLite file, so that a restart goes on."""

import sqlite3
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

WHOLE = -1


@dataclass(frozen=True)
class Line:
    """A file as it was (`stamp`), how far it was dealt with (WHOLE: to its end), and a word on what became of it."""

    name: str
    stamp: str
    position: int = WHOLE
    note: str = ""


def stamp(size: int, mtime_ns: int) -> str:
    """Tells a file from what it was before."""
    return f"{size}:{mtime_ns}"


class Ledger:
    """Lines by the file's name; a lost ledger costs work, never samples.

    Threads take turns, `close` too: a task that is cancelled leaves its thread at work, and SQLite does not survive
    being closed under it. Whoever comes after that gets sqlite3.ProgrammingError.
    """

    def __init__(self, path: Path) -> None:
        self._turn = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._base = sqlite3.connect(path, check_same_thread=False)
        self._base.execute("pragma journal_mode=wal")
        self._base.execute("pragma synchronous=normal")
        self._base.execute(
            "create table if not exists lines (name text primary key, stamp text, position int, note text)"
        )

    def get(self, name: str, stamp: str) -> Line | None:
        """The line, if the file is still what it was."""
        with self._turn:
            row = self._base.execute("select * from lines where name = ? and stamp = ?", (name, stamp)).fetchone()
        return Line(*row) if row else None

    def put(self, lines: Iterable[Line]) -> None:
        """Keep the lines, all or none of them."""
        with self._turn, self._base:
            rows = [(line.name, line.stamp, line.position, line.note) for line in lines]
            self._base.executemany("insert or replace into lines values (?, ?, ?, ?)", rows)

    def forget(self, names: Iterable[str]) -> None:
        with self._turn, self._base:
            self._base.executemany("delete from lines where name = ?", [(name,) for name in names])

    def close(self) -> None:
        with self._turn:
            self._base.close()
