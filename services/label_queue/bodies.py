"""What may be said to label-queue over REST."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from services.label_queue.tasks import Reveal

Name = Annotated[str, Field(min_length=1, max_length=200)]
Epoch = Annotated[int, Field(ge=1)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ClaimBody(_Body):
    """How many tasks, and for whom if the caller speaks for others.

    `tasks` names the ones that are meant, in place of the best: for whoever hands tasks out by themselves.
    """

    n: Annotated[int, Field(ge=1)] = 1
    annotator: Name | None = None
    labels: list[Name] | None = None
    tasks: Annotated[list[Name], Field(min_length=1, max_length=24)] | None = None


class LeaseBody(_Body):
    """The lease that is meant."""

    epoch: Epoch
    annotator: Name | None = None


class SkipBody(LeaseBody):
    """Why there is no answer, and whether a later round may ask again."""

    reason: Name
    requeue: bool = False


class AnswerBody(LeaseBody):
    """An answer under a lease; `seconds` is how long it took.

    `revises` names an answer of one's own that this takes the place of, as after the suggestion was revealed: both are
    kept, this one counts. An operator who plays annotators of another tool says when that has `shown` the suggestion.
    """

    value: Any
    schema_version: int | None = None
    seconds: Annotated[float, Field(ge=0, le=86_400)] | None = None
    revises: Annotated[str, Field(max_length=60)] | None = None
    shown: Reveal | None = None


class ResolveBody(_Body):
    """A reviewer's label."""

    value: Any


class RetractBody(_Body):
    """Why the label goes, and whether the sample is asked again."""

    why: Annotated[str, Field(max_length=500)] = ""
    requeue: bool = True
