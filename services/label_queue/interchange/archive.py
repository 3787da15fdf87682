"""Archives: written entry by entry to a stream, read within bounds. Pure."""

import io
import zipfile
import zlib
from collections.abc import Iterable

from services.contracts.problem import Problem
from services.contracts.tasks import Task
from services.label_queue.interchange.label import Bundle

MAGIC = b"PK\x03\x04"
MOST_FILES = 100_000
MOST_BYTES = 512 << 20  # unpacked; a small archive can hold very much
WHEN = (1980, 1, 1, 0, 0, 0)


# What zipfile raises on hostile bytes; tests/unit/test_hostile.py has found them.
UNREADABLE = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, OSError, EOFError, ValueError)


class Sink:
    """A file that is only written to, and gives on what was written."""

    closed = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None: ...

    def close(self) -> None: ...

    def taken(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


class ZipWriter:
    """A zip file as a stream of bytes: equal entries make equal bytes."""

    def __init__(self) -> None:
        self._sink = Sink()
        self._zip = zipfile.ZipFile(self._sink, "w")  # type: ignore[arg-type]

    def put(self, name: str, content: bytes) -> bytes:
        """The bytes that this entry adds; pictures are compressed already, so nothing is."""
        self._zip.writestr(zipfile.ZipInfo(name, WHEN), content)
        return self._sink.taken()

    def end(self) -> bytes:
        self._zip.close()
        return self._sink.taken()


def unpacked(raw: bytes, document: str | None, task: Task = "image-classification") -> Bundle:
    """The file as it is, or an archive's document (the first that ends so) and its other files.

    Raises a 422 problem for a broken archive, too large a one, or one without its document.
    """
    if not raw.startswith(MAGIC):
        return Bundle(raw, task=task)
    files: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            # Not is_dir(), which an entry without a name breaks.
            entries = [entry for entry in archive.infolist() if not entry.filename.endswith("/")]
            if len(entries) > MOST_FILES or sum(entry.file_size for entry in entries) > MOST_BYTES:
                raise Problem(
                    422, "too-large", f"An archive may hold {MOST_FILES} files of {MOST_BYTES >> 20} MiB in all."
                )
            if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries):
                raise Problem(422, "compression", "An archive's files are stored or deflated; repack this one so.")
            for entry in entries:
                files[entry.filename] = archive.read(entry)
    except UNREADABLE as error:
        raise Problem(422, "broken-archive", f"This is no archive that can be read: {error}.") from error
    if document is None:
        return Bundle(b"", files, task)
    name = first(sorted(files, key=lambda path: (path.count("/"), path)), document)
    return Bundle(files.pop(name), files, task)


def first(names: Iterable[str], suffix: str) -> str:
    """Raises a 422 problem if no name ends so."""
    found = next((name for name in names if name.endswith(suffix)), None)
    if found is None:
        raise Problem(422, "no-document", f"There is no {suffix} in this archive.")
    return found
