"""What a backend reports of a model: every number that the gate goes by is there, or the run has failed. Pure."""

from collections.abc import Mapping
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.contracts.tasks import Answer, Task, answer_of
from services.retrain_trigger.backends import BadOutcome

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)]
Count = Annotated[int, Field(ge=0, strict=True)]


Finite = Annotated[float, Field(allow_inf_nan=False, strict=True)]
Spread = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]


class _Loose(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Class(_Loose):
    """How many samples, or boxes, of a class there are."""

    n: Count
    recall: Share | None = None


class Scored(_Loose):
    """One model on the pinned set; each kind of task has its main metric beside it."""

    per_class: dict[str, Class] = Field(min_length=1)


class Classifier(Scored):
    metric: Literal["accuracy"] = "accuracy"
    accuracy: Share


class MultiLabel(Scored):
    metric: Literal["jaccard"]
    jaccard: Share


class Detector(Scored):
    metric: Literal["map50"]
    map50: Share


class Counts(_Loose):
    """Two classifiers on the same samples."""

    n: Count
    candidate_only_correct: Count
    champion_only_correct: Count


class Difference(_Loose):
    """Two other models on the same samples: how far apart, and how sure that is."""

    n: Count
    difference: Finite
    deviation: Spread


class Paired(Counts):
    """The same for the whole set, which is not empty, and for each class."""

    n: Annotated[int, Field(ge=1, strict=True)]
    per_class: dict[str, Counts]


class PairedDifference(Difference):
    """The same for the whole set, which is not empty, and for each class."""

    n: Annotated[int, Field(ge=1, strict=True)]
    per_class: dict[str, Difference]


Models = TypeVar("Models", bound=Scored)
Pairs = TypeVar("Pairs", Paired, PairedDifference)


class Metrics(_Loose, Generic[Models, Pairs]):
    """What a trainer reports when there is an evaluation set."""

    candidate: Models
    champion: Models | None = None
    paired: Pairs | None = None


REPORTS: Mapping[Answer, type[Metrics[Any, Any]]] = {
    "classification": Metrics[Classifier, Paired],
    "multi-label": Metrics[MultiLabel, PairedDifference],
    "detection": Metrics[Detector, PairedDifference],
}


def checked(
    result: Mapping[str, Any], snapshot: Mapping[str, Any], champion: str | None, task: Task
) -> Mapping[str, Any] | None:
    """The metrics of a result; None where the snapshot has no evaluation set. Raises BadOutcome.

    Nothing that is missing is taken for 0: a run without its metric has failed, as has one that judged on other samples
    than the snapshot's, or without the champion where there is one.
    """
    if result.get("evaluation_sha256") != snapshot["evaluation_sha256"]:
        raise BadOutcome("the model was judged on another evaluation set than the snapshot's")
    size, metrics = snapshot["counts"]["evaluation"], result.get("metrics")
    if not size:
        return None
    try:
        found = REPORTS[answer_of(task)].model_validate(metrics)
    except ValidationError as error:
        fault = error.errors()[0]
        where = "/".join(["metrics", *map(str, fault["loc"])])
        raise BadOutcome(f"the backend reports no usable {where}: {fault['msg']}") from error
    if champion and (found.champion is None or found.paired is None):
        raise BadOutcome(f"the backend has not compared its model with the champion {champion}")
    if found.paired and found.paired.n != size:
        raise BadOutcome(f"the backend has compared on {found.paired.n} samples; the evaluation set has {size}")
    return metrics
