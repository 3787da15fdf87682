"""The module twin, as values: what IoT Hub wants of this site, and what the site says of it.

Desired: `model` {project, version, activation_epoch, artefact, manifest} and `project` {name, revision, document}.
Reported: `models`, for each project {active, previous, status, error, version_seen}, and `error`.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.contracts.events import (
    Content,
    Event,
    ModelActivated,
    ModelLoaded,
    ModelLoadFailed,
    ModelRegistered,
    ProjectUpdated,
    SignedContent,
)
from services.contracts.projects import ProjectDocument, ProjectName

Row = dict[str, Any]
MOST_WORDS = 500  # characters of an error; IoT Hub refuses values of more than 4 KB


class NotUnderstood(Exception):
    """What the twin wants does not fit; the message says where."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WantedModel(_Part):
    """The model that a project is to serve; the highest epoch is true, whichever way it comes."""

    project: ProjectName
    version: str = Field(min_length=1)
    activation_epoch: int = Field(ge=1)
    artefact: Content
    manifest: SignedContent


class WantedProject(_Part):
    """A project as its owner has it; the highest revision is true."""

    name: ProjectName
    revision: int = Field(ge=1)
    document: Mapping[str, Any]


class Desired(BaseModel):
    """The desired properties."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: WantedModel | None = None
    project: WantedProject | None = None
    seen: int = Field(default=0, alias="$version")


def understood(properties: Mapping[str, Any]) -> Desired:
    """The desired properties as values. Raises NotUnderstood."""
    try:
        desired = Desired.model_validate(properties)
        if desired.project:
            document = ProjectDocument.model_validate(desired.project.document)
            if (document.name, document.revision) != (desired.project.name, desired.project.revision):
                raise NotUnderstood("project: its document has another name, or another revision")
        return desired
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
        raise NotUnderstood("; ".join(faults)) from error


def contents(part: WantedModel | WantedProject) -> list[Content]:
    """What has to be on the site first."""
    if isinstance(part, WantedModel):
        return [part.artefact, part.manifest]
    extractor = ProjectDocument.model_validate(part.document).extractor
    return [extractor.artefact, extractor.manifest]


def kept_as(project: str, content: Content) -> str:
    """The blob's name on the site: that which it has in the cloud, or one by its hash."""
    scheme, _, name = content.uri.partition(":")
    return name if scheme == "blob" else f"models/{project}/{content.sha256}"


def facts(part: WantedModel | WantedProject) -> list[Event]:
    """What the cloud would say, with the very keys and so the ids that it would give."""
    if isinstance(part, WantedProject):
        document = ProjectDocument.model_validate(part.document)
        artefact, manifest = (_here(part.name, content) for content in contents(part))
        extractor = document.extractor.model_copy(update={"artefact": artefact, "manifest": manifest})
        whole = document.model_copy(update={"extractor": extractor}).model_dump(mode="json")
        return [ProjectUpdated(project=part.name, revision=part.revision, document=whole)]
    files: dict[str, Any] = {
        "artefact": _here(part.project, part.artefact),
        "manifest": _here(part.project, part.manifest),
    }
    of = {"project": part.project, "version": part.version}
    activated = ModelActivated(**of, activation_epoch=part.activation_epoch, reason="module twin", **files)
    return [ModelRegistered(**of, **files), activated]


def _here(project: str, content: Content) -> Content:
    return content.model_copy(update={"uri": f"blob:{kept_as(project, content)}"})


def no_row() -> Row:
    """A project that nobody has wanted or loaded anything for."""
    return {
        "active": None,
        "previous": None,
        "epoch": 0,
        "wanted": None,
        "status": "none",
        "error": None,
        "version_seen": 0,
    }


def wanting(row: Row, model: WantedModel, seen: int) -> Row:
    """The twin wants a model: `serving` if it is there, `behind` if a later one is, else `fetching`."""
    row = {**row, "version_seen": seen}
    if row["wanted"] == [model.version, model.activation_epoch] and row["status"] in ("serving", "failed"):
        return row
    row |= {"wanted": [model.version, model.activation_epoch], "error": None, "status": "fetching"}
    if row["epoch"] > model.activation_epoch:
        said = f"epoch {model.activation_epoch} is behind the {row['epoch']} that serves {row['active']}"
        return {**row, "status": "behind", "error": said}
    return {**row, "status": "serving"} if row["active"] == model.version else row


def failing(row: Row, reason: str, status: str = "failed") -> Row:
    """What is wanted cannot be had, for good (`failed`) or yet (`waiting`); what serves goes on."""
    return {**row, "status": status, "error": reason[:MOST_WORDS]}


def handed(row: Row) -> Row:
    """The site's services have been told."""
    return {**row, "status": "loading", "error": None} if row["status"] in ("fetching", "waiting") else row


def heard(row: Row, event: ModelLoaded | ModelLoadFailed) -> Row:
    """What infer says of a version; it tries one in advance, as epoch 0, before it is to serve."""
    mine = row["wanted"] is not None and row["wanted"][0] == event.version
    if isinstance(event, ModelLoadFailed):
        return failing(row, event.error or "infer could not load it") if mine else row
    if event.activation_epoch == 0 or event.activation_epoch < row["epoch"]:
        return row
    if event.version != row["active"]:
        row = {**row, "previous": row["active"], "active": event.version}
    row = {**row, "epoch": event.activation_epoch}
    if mine:
        return {**row, "status": "serving", "error": None}
    if row["wanted"] is None or row["wanted"][1] < event.activation_epoch:
        return {**row, "status": "serving", "error": None}
    return row


def shown(row: Row) -> Row:
    """What is reported of a project."""
    return {name: row[name] for name in ("active", "previous", "status", "error", "version_seen")}


def key_of(project: str) -> str:
    """A project's name as a key of a twin, which may have no dot."""
    return project.replace(".", "%2E")
