"""What goes out and what comes in, in terms of no tool. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, get_args

import orjson

from services.contracts.events import Content
from services.contracts.problem import Problem
from services.contracts.tasks import Answer, answer_of
from services.contracts.tasks import Task as Kind

CLASSES: tuple[Kind, ...] = ("image-classification",)
BOXES: tuple[Kind, ...] = ("image-detection",)
IMAGES: tuple[Kind, ...] = (*CLASSES, "image-multi-label", *BOXES)
ALL: tuple[Kind, ...] = get_args(Kind)
SUFFIXES = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp", "image/bmp": ".bmp", "image/gif": ".gif"}
TYPES = {suffix: kind for kind, suffix in SUFFIXES.items()} | {".jpeg": "image/jpeg"}


@dataclass(frozen=True)
class Label:
    """An accepted label; `facts` are the columns of the table form, `raw` the content where a format packs it."""

    sample_id: str
    value: Any
    content: Content
    split: str
    facts: Mapping[str, Any]
    confidence: float | None = None  # of `facts["predicted"]`
    raw: bytes | None = None

    @property
    def file_name(self) -> str:
        """A name for the content that is safe in every folder."""
        return f"{self.sample_id}{SUFFIXES.get(self.content.media_type, '')}"


@dataclass(frozen=True)
class Incoming:
    """A label that was made elsewhere, and its sample: stored content of a known one, or bytes, or a row, or rows.

    The value of a cell is text: JSON where the project's answers are more than a label (`cell`, `of_cell`).
    """

    value: Any
    content: Content | None = None
    sample_id: str | None = None
    raw: bytes | None = None
    media_type: str | None = None
    row: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None
    key: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class Dataset:
    """What a file as a whole must say."""

    project: str
    labels: Sequence[str]
    kind: Kind


@dataclass(frozen=True)
class Bundle:
    """A file that came in for a project's task; of an archive its document, and the other files by name."""

    document: bytes
    files: Mapping[str, bytes] = field(default_factory=dict)
    task: Kind = "image-classification"

    @property
    def answer(self) -> Answer:
        """Which kind of answer is wanted of it."""
        return answer_of(self.task)

    def find(self, name: str) -> bytes | None:
        """A file by its path, or by its name alone if no other has it."""
        if name in self.files:
            return self.files[name]
        last = name.rsplit("/", 1)[-1]
        found = [content for path, content in self.files.items() if path.rsplit("/", 1)[-1] == last]
        return found[0] if len(found) == 1 and last else None


class Writer(Protocol):
    """Writes a dataset piece by piece, holding no more of it than it must."""

    def begin(self) -> Iterable[bytes]: ...

    def add(self, labels: Sequence[Label]) -> Iterable[bytes]: ...

    def end(self) -> Iterable[bytes]: ...


@dataclass(frozen=True)
class Format:
    """A format by name. `document` is how the document's name ends in an archive.

    A writer that packs gets contents, and one that `measures` gets them where there are boxes, which it has in pixels.
    """

    name: str
    media_type: str
    suffix: str
    writer: Any  # Dataset -> Writer
    read: Any  # Bundle -> Iterator[Incoming | Problem]
    kinds: tuple[Kind, ...] = ALL
    packs: bool = False
    measures: bool = False
    document: str | None = None

    def opens(self, task: str) -> bool:
        """Whether its writer wants contents."""
        return self.packs or (self.measures and task in BOXES)


Read = Iterator[Incoming | Problem]


def named(media: str | None, name: str) -> str:
    """A media type, from the file's name if nobody says it. Raises a 422 problem."""
    suffix = "." + name.rsplit(".", 1)[-1].lower() if "." in name else ""
    if media or suffix in TYPES:
        return media or TYPES[suffix]
    raise Problem(
        422, "media-type", f"{name!r:.100} does not end like a picture; it may end in {', '.join(sorted(TYPES))}."
    )


def stored(row: Mapping[str, Any]) -> Content | None:
    """The content that one of our own files names, if all of it is there."""
    known = {name: row.get(name) for name in ("uri", "sha256", "bytes", "media_type")}
    if not all(isinstance(value, str) and value for name, value in known.items() if name != "bytes"):
        return None
    try:
        return Content.model_validate({**known, "bytes": int(known["bytes"] or 0)})
    except (TypeError, ValueError):
        return None


def referred(row: Mapping[str, Any], value: Any, name: str, bundle: Bundle, split: str | None = None) -> Incoming:
    """A label of a sample that is known here, else of a file in the archive. Raises a 422 problem for neither."""
    content, sample = stored(row), row.get("sample_id")
    if content is not None and isinstance(sample, str):
        return Incoming(value, content=content, sample_id=sample, split=split)
    raw = bundle.find(name)
    if raw is None:
        detail = (
            f"{name!r:.200} is no sample here and not in the archive; send a .zip with the files beside the document."
        )
        raise Problem(422, "no-content", detail)
    return Incoming(value, raw=raw, media_type=named(row.get("media_type"), name), split=split)


def cell(value: Any) -> Any:
    """A value as the text of a table's cell; a label is its own text."""
    return value if value is None or isinstance(value, str) else orjson.dumps(value).decode()


def of_cell(text: Any) -> Any:
    """What `cell` was given, if that was more than a label; the text itself if it is nothing of the kind."""
    try:
        return orjson.loads(text) if isinstance(text, str) else text
    except orjson.JSONDecodeError:
        return text


def mapping(value: Any, what: str) -> Mapping[str, Any]:
    """Raises a 422 problem for anything but a JSON object."""
    if not isinstance(value, dict):
        raise Problem(422, "invalid", f"{what} is to be an object, not {type(value).__name__}.")
    return value
