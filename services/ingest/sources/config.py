"""What a source is told: one model a kind, read from the YAML or TOML file that HALFSURE_INGEST_SOURCES names."""

import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from services.contracts.events import Trigger
from services.contracts.projects import ProjectName
from services.ingest.admission import Tag

OWN_PATHS = {"sensors", "events", "healthz", "readyz", "metrics", "v1"}
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(\*?)\}")


class SourcesProblem(ValueError):
    """The file of sources cannot be used; the message names the field."""


def _address(*schemes: str) -> AfterValidator:
    def check(url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in schemes or not parts.hostname:
            raise ValueError(f"this must be an address like {schemes[0]}://camera.local:1234/path")
        if parts.username or parts.password:
            raise ValueError("leave user and password out of the address; say them with username and password_file")
        return url

    return AfterValidator(check)


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("this must be an absolute path")
    return path


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Reconnect(_Part):
    """How long is waited after a failure: twice as long each time, from `first` to `longest`."""

    first: float = Field(default=1.0, gt=0, le=60, description="seconds")
    longest: float = Field(default=60.0, gt=0, le=3600, description="seconds")


class Common(_Part):
    """What every source has."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    project: ProjectName = "default"
    stream_id: str | None = Field(default=None, min_length=1, max_length=256, description="default: the name")
    device_id: str | None = Field(default=None, min_length=1, max_length=128, description="where the samples are made")
    tags: list[Tag] = Field(default_factory=list, max_length=32)
    trigger: Trigger = "policy"
    rate: float | None = Field(default=None, gt=0, le=1000, description="samples a second at most; none: no cap")
    reconnect: Reconnect = Reconnect()

    @property
    def stream(self) -> str:
        return self.stream_id or self.name

    @property
    def place(self) -> str:
        """Where it connects; never with a secret in it."""
        raise NotImplementedError


class _Login(_Part):
    username: str | None = Field(default=None, min_length=1)
    password_file: Path | None = Field(default=None, description="a file that holds the password and nothing else")

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.username is None) != (self.password_file is None):
            raise ValueError("username and password_file go together")
        return self

    @property
    def password(self) -> str | None:
        """Read when it is needed, so that a changed one holds from the next connection on. Raises OSError."""
        return self.password_file.read_text().strip() if self.password_file else None


class _Frames(_Part):
    format: Literal["jpeg", "png"] = "jpeg"
    quality: int = Field(default=90, ge=1, le=100, description="of JPEG")


class _Camera(_Frames, _Login):
    transport: Literal["tcp", "udp"] = "tcp"
    timeout_seconds: float = Field(default=5.0, gt=0, le=8, description="silence after which a stream counts as lost")
    keyframes: bool = Field(default=False, description="decode key frames only: much less work, fewer frames")


class Folder(Common):
    """A folder that files are put into."""

    kind: Literal["folder"]
    path: AbsolutePath
    recursive: bool = True
    texts: bool = Field(default=False, description="take texts (.txt .md), not pictures and tables")
    settle_seconds: float = Field(
        default=1.0, ge=0.05, le=3600, description="a file is whole when it has rested so long"
    )
    after: Literal["keep", "delete"] = "keep"
    poll: bool = Field(default=False, description="look again and again: for network shares, that report no changes")

    @property
    def place(self) -> str:
        return str(self.path)


class Rtsp(Common, _Camera):
    """A camera's stream."""

    kind: Literal["rtsp"]
    url: Annotated[str, _address("rtsp", "rtsps")]
    rate: float | None = Field(default=1.0, gt=0, le=1000, description="frames a second at most")

    @property
    def place(self) -> str:
        return self.url


class Video(Common, _Frames):
    """A recording, taken once from beginning to end."""

    kind: Literal["video"]
    path: AbsolutePath
    rate: float | None = Field(default=1.0, gt=0, le=1000, description="frames of each second of the recording")

    @property
    def place(self) -> str:
        return str(self.path)


class OpcUa(Common, _Login):
    """Tags of an OPC UA server: a row of a table whenever one of them changes."""

    kind: Literal["opcua"]
    url: Annotated[str, _address("opc.tcp")]
    nodes: dict[str, str] = Field(min_length=1, max_length=500, description="the project's column: the tag's node id")
    period_seconds: float = Field(default=0.5, ge=0.01, le=3600, description="how often the server sends what changed")
    timeout_seconds: float = Field(default=5.0, gt=0, le=60)
    security: str | None = Field(
        default=None, description="Policy,Mode,certificate,key[,server certificate], as asyncua takes it"
    )

    @property
    def place(self) -> str:
        return self.url


class Onvif(Common, _Camera):
    """A camera that is asked for its stream: found in the network, or at the address of its device service."""

    kind: Literal["onvif"]
    endpoint: str | None = Field(default=None, min_length=1, description="urn:uuid:... as the camera announces it")
    scope: str | None = Field(default=None, min_length=1, description="part of a scope that it announces, as a name")
    url: Annotated[str, _address("http", "https")] | None = Field(default=None, description="device service: no search")
    interface: IPv4Address | None = Field(default=None, description="own address in the network that is searched")
    search_seconds: float = Field(default=3.0, gt=0, le=60)
    profile: str | None = Field(default=None, description="token or name of the media profile; default: the first")
    rate: float | None = Field(default=1.0, gt=0, le=1000, description="frames a second at most")

    @property
    def place(self) -> str:
        return self.url or self.endpoint or f"any camera{f' with {self.scope}' if self.scope else ''}"


class Binding(Common):
    """A Dapr input binding: whatever a component brings, each message a sample."""

    kind: Literal["binding"]
    component: str = Field(pattern=r"^[a-z][a-z0-9-]{0,62}$", description="name of the component in the profile")

    @model_validator(mode="after")
    def _free(self) -> Self:
        if self.component in OWN_PATHS:
            raise ValueError(f"component {self.component!r} is a path of ingest's own; name the component otherwise")
        return self

    @property
    def place(self) -> str:
        return f"dapr:{self.component}"


Source = Annotated[Folder | Rtsp | Video | OpcUa | Onvif | Binding, Field(discriminator="kind")]


class Sources(_Part):
    """The whole file."""

    sources: list[Source] = Field(max_length=500)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        for what in ("name", "component"):
            counts = Counter(getattr(source, what) for source in self.sources if hasattr(source, what))
            if twice := [name for name, count in counts.items() if count > 1]:
                raise ValueError(f"two sources have the {what} {twice[0]!r}; each needs its own")
        return self


def read(path: Path, environment: Mapping[str, str]) -> tuple[Source, ...]:
    """The sources of a file; `${NAME}` in it is a variable, `${NAME*}` the only one whose name begins so.

    Raises SourcesProblem with a sentence that names the file and the field.
    """
    try:
        text = path.read_text()
        raw = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    except OSError as error:
        raise SourcesProblem(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise SourcesProblem(f"{path} is neither YAML nor TOML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, Mapping):
        raise SourcesProblem(f"{path} must have a list `sources`")
    try:
        return tuple(Sources.model_validate(_filled(raw, environment)).sources)
    except KeyError as error:
        raise SourcesProblem(f"{path}: {error.args[0]}") from None
    except ValidationError as error:
        raise SourcesProblem(f"{path}: {'; '.join(_faults(error, raw))}") from None


def _filled(value: Any, environment: Mapping[str, str]) -> Any:
    """Raises KeyError with a sentence."""
    if isinstance(value, Mapping):
        return {name: _filled(part, environment) for name, part in value.items()}
    if isinstance(value, list):
        return [_filled(part, environment) for part in value]
    if not isinstance(value, str):
        return value
    return _VARIABLE.sub(lambda found: _variable(found[1], bool(found[2]), environment), value)


def _variable(name: str, begins: bool, environment: Mapping[str, str]) -> str:
    names = [one for one in environment if one.startswith(name)] if begins else [name]
    if len(names) != 1 or names[0] not in environment:
        found = f"; there are {', '.join(sorted(names))}" if begins and names else ""
        kind = "is not the beginning of exactly one variable" if begins else "is not a variable"
        raise KeyError(f"${{{name}{'*' * begins}}}: {name} {kind} of the environment{found}")
    return environment[names[0]]


def _faults(error: ValidationError, raw: Mapping[str, Any]) -> Iterator[str]:
    """`source 2 (gate): rate: Input should be greater than 0`, fault by fault."""
    for fault in error.errors():
        place = list(fault["loc"])
        where = []
        if len(place) > 1 and place[0] == "sources" and isinstance(place[1], int):
            row = raw["sources"][place[1]]
            name = row.get("name") if isinstance(row, Mapping) else None
            where.append(f"source {place[1] + 1}{f' ({name})' if name else ''}")
            # The third part is the kind, which tells the models apart and is no field.
            place = place[3:] if len(place) > 2 else []
        where += [".".join(map(str, place))] if place else []
        yield ": ".join([*where, fault["msg"].removeprefix("Value error, ")])
