"""What crosses between a site and the cloud: which facts go which way, and which content goes with them."""

from services.contracts.events import (
    Content,
    Event,
    LabelAccepted,
    LabelRetracted,
    ModelActivated,
    ModelActivation,
    ModelLoaded,
    ModelLoadFailed,
    ModelRegistered,
    ModelRejected,
    ModelRolledBack,
    ProjectUpdated,
    SampleEvicted,
    SampleReranked,
    SampleSelected,
    SampleWithdrawn,
    ScoresSummarised,
    TaskSkipped,
)
from services.contracts.projects import ProjectDocument

UP: tuple[type[Event], ...] = (
    SampleSelected,
    SampleReranked,
    SampleEvicted,
    SampleWithdrawn,
    ModelLoaded,
    ModelLoadFailed,
    ScoresSummarised,
)
"""A sample leaves the site when it is asked about, and never otherwise."""

DOWN: tuple[type[Event], ...] = (
    ProjectUpdated,
    LabelAccepted,
    LabelRetracted,
    TaskSkipped,
    ModelRegistered,
    ModelActivated,
    ModelRolledBack,
    ModelRejected,
)


def contents(event: Event) -> list[Content]:
    """The content that whoever hears the event on the other side will want to read.

    A label's content is not among it: the site has it already, or never needs it.
    """
    if isinstance(event, SampleSelected):
        return [event.content]
    if isinstance(event, ModelRegistered | ModelActivation):
        return [event.artefact, event.manifest]
    if isinstance(event, ProjectUpdated) and not event.deleted:
        extractor = ProjectDocument.model_validate(event.document).extractor
        return [extractor.artefact, extractor.manifest]
    return []


def samples_of(event: Event) -> list[Content]:
    """What of that is a sample's content, which ingest may let go once it is in the cloud."""
    return [event.content] if isinstance(event, SampleSelected) else []


def blob_name(uri: str) -> str:
    """`blob:NAME` -> NAME, which is the same in every store. Raises ValueError for any other uri."""
    scheme, _, name = uri.partition(":")
    if scheme != "blob" or not name:
        raise ValueError(f"{uri!r} is not the uri of a blob")
    return name
