"""Files -> batches of samples, and what became of each: a run that was stopped goes on, a second one sends nothing."""

import base64
import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from services.cli.rest import Refused, Rest
from services.contracts import files
from services.contracts.ids import sha256
from services.runtime.ledger import WHOLE, Ledger, Line, stamp

LINES = 500  # of a batch; ingest takes 1,000
BYTES = 8 << 20  # of a batch, about; a file that is larger goes alone
TOO_LARGE = 413


class NothingToSend(Exception):
    """The path holds no samples; the message says what is looked for."""


@dataclass(frozen=True)
class File:
    """A file as it is now."""

    path: Path
    name: str  # below the folder that was named
    size: int
    stamp: str
    when: datetime

    @property
    def key(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class Piece:
    """One sample on its way: a line of a batch. `position` is its row, WHOLE for the last of its file."""

    file: File
    position: int
    line: bytes
    row: int | None = None

    @property
    def place(self) -> str:
        return self.file.name if self.row is None else f"{self.file.name}, row {self.row + 1}"


@dataclass
class Tally:
    """What has become of the files and their samples."""

    new: int = 0
    known: int = 0
    gathering: int = 0  # points that came before their window was whole
    files: int = 0
    skipped: int = 0
    refused_before: int = 0
    bytes: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Rows:
    """What the rows of a table are: samples, named by a column or by their number, or the points of a stream."""

    key_column: str | None = None
    points: bool = False
    sequence_column: str | None = None

    def line(self, row: dict[str, Any], number: int, table: str, said: dict[str, Any]) -> dict[str, Any]:
        """What is sent of the row; `table` is the name of its file's content. Raises ValueError."""
        if self.points:
            return {
                **said,
                "stream_id": said["stream_id"] or table,
                "sequence": self._sequence(row, number),
                "row": row,
            }
        # A row's own key, else the file's hash and the row's number: the same row is the same sample.
        key = _taken(row, self.key_column, number) if self.key_column is not None else f"{table}:{number}"
        return {**said, "row": row, "key": key}

    def _sequence(self, row: dict[str, Any], number: int) -> int:
        if self.sequence_column is None:
            return number
        text = _taken(row, self.sequence_column, number)
        if not text.isdecimal():
            raise ValueError(f"row {number + 1}: {self.sequence_column} is {text!r:.40}, not a number from 0 on")
        return int(text)


def _taken(row: dict[str, Any], column: str, number: int) -> str:
    """The column's text, which is no input then."""
    if row.get(column) in (None, ""):
        raise ValueError(f"row {number + 1} has no {column}")
    return str(row.pop(column))


def found(path: Path, texts: bool = False) -> list[File]:
    """The files below a folder that may hold samples, or the one file. Raises NothingToSend."""
    if not path.exists():
        raise NothingToSend(f"there is no {path}")
    root = path.resolve()
    below = sorted(root.rglob("*")) if root.is_dir() else [root]
    known = [one for one in below if files.holds_samples(one, texts) and one.is_file() and not one.is_symlink()]
    if not known:
        looked = ", ".join(files.suffixes(texts))
        raise NothingToSend(f"{path} holds nothing that is a sample; looked for {looked}")
    return [_file(one, root) for one in known]


def _file(path: Path, root: Path) -> File:
    about = path.stat()
    when = min(datetime.fromtimestamp(about.st_mtime, UTC), datetime.now(UTC))
    name = str(path.relative_to(root)) if path != root else path.name
    return File(path, name, about.st_size, stamp(about.st_size, about.st_mtime_ns), when)


def pieces(file: File, after: int, said: dict[str, Any], rows: Rows) -> Iterator[Piece]:
    """The samples of a file behind row `after`. Raises ValueError for a table that cannot be read, and OSError."""
    content = file.path.read_bytes()
    meta = {**said, "captured_at": file.when.isoformat(), "attributes": {"file": file.name[-512:]}}
    if not files.is_table(file.path):
        body = {"data": base64.b64encode(content).decode(), "media_type": files.CONTENTS[file.path.suffix.lower()]}
        yield Piece(file, WHOLE, json.dumps({**meta, **body}).encode())
        return
    table = sha256(content)
    for number, row in enumerate(files.rows(file.path.suffix, content.decode("utf-8-sig").splitlines(keepends=True))):
        if number > after:
            yield Piece(file, number, json.dumps(rows.line(row, number, table, meta)).encode(), number)


class Upload:
    """Sends what the ledger does not know as sent."""

    def __init__(self, rest: Rest, ledger: Ledger, said: dict[str, Any], rows: Rows) -> None:
        self._rest = rest
        self._ledger = ledger
        self._said = said
        self._rows = rows
        self.tally = Tally()

    async def send(self, files: Sequence[File], moved: Callable[[Tally], None]) -> Tally:
        """All of them, in batches; `moved` is told after each. Raises ConnectionError and Refused."""
        batch: list[Piece] = []
        size = 0
        for file in files:
            for piece in self._of(file):
                if batch and (len(batch) == LINES or size + len(piece.line) > BYTES):
                    await self._batch(batch)
                    moved(self.tally)
                    batch, size = [], 0
                batch.append(piece)
                size += len(piece.line)
            moved(self.tally)
        if batch:
            await self._batch(batch)
        moved(self.tally)
        return self.tally

    def _of(self, file: File) -> Iterator[Piece]:
        line = self._ledger.get(file.key, file.stamp)
        if line and line.position == WHOLE:
            self.tally.skipped += 1
            self.tally.refused_before += bool(line.note)
            self.tally.bytes += file.size
            return
        try:
            yield from _last_marked(pieces(file, line.position if line else -1, self._said, self._rows))
        except (ValueError, OSError) as error:
            self._refuse(file.name, str(error))
            self._done([Line(file.key, file.stamp, WHOLE, str(error))], [file])

    async def _batch(self, batch: Sequence[Piece]) -> None:
        """One request; what is too large for ingest is halved until the one that is too large stands alone."""
        content = b"\n".join(piece.line for piece in batch)
        headers = {"content-type": "application/x-ndjson"}
        try:
            answer = await self._rest.post("ingest", "/v1/samples:batch", content=content, headers=headers)
        except Refused as refused:
            if refused.status != TOO_LARGE:
                raise
            if len(batch) > 1:
                await self._batch(batch[: len(batch) // 2])
                await self._batch(batch[len(batch) // 2 :])
                return
            answer = {
                "results": [{"status": TOO_LARGE, "problem": {"detail": refused.body.get("detail", "too large")}}]
            }
        self._note(batch, answer["results"])

    def _note(self, batch: Sequence[Piece], results: Sequence[dict[str, Any]]) -> None:
        lines: dict[str, Line] = {}
        whole = []
        for piece, result in zip(batch, results, strict=True):
            note = lines[piece.file.key].note if piece.file.key in lines else ""
            if result["status"] >= 400:
                note = result["problem"]["detail"]
                self._refuse(piece.place, note)
            elif result.get("state") == "GATHERING":
                self.tally.gathering += 1
            elif result["status"] in (201, 202):
                self.tally.new += 1
            else:
                self.tally.known += 1
            lines[piece.file.key] = Line(piece.file.key, piece.file.stamp, piece.position, note)
            if piece.position == WHOLE:
                whole.append(piece.file)
        self._done(lines.values(), whole)

    def _done(self, lines: Iterable[Line], whole: Sequence[File]) -> None:
        self._ledger.put(lines)
        self.tally.files += len(whole)
        self.tally.bytes += sum(file.size for file in whole)

    def _refuse(self, place: str, why: str) -> None:
        self.tally.refused.append((place, why))


def _last_marked(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """The same, the last one with position WHOLE: with it its file is dealt with."""
    before: Piece | None = None
    for piece in pieces:
        if before is not None:
            yield before
        before = piece
    if before is not None:
        yield Piece(before.file, WHOLE, before.line, before.row)


@contextlib.contextmanager
def ledger_at(path: Path, again: bool) -> Iterator[Ledger]:
    """The ledger of one ingest and project; `again`: an empty one."""
    if again:
        for part in path.parent.glob(f"{path.name}*"):
            part.unlink()
    ledger = Ledger(path)
    try:
        yield ledger
    finally:
        ledger.close()
