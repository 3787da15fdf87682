"""The job files of the local training backend; what a run may know is all in them."""

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from services.contracts.inputs import Name
from services.contracts.manifest import ModelManifest
from services.contracts.tasks import Task, answer_of
from services.contracts.values import BadValue, checked
from services.retrain_trigger.heads import HeadParams


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelRef(_Frozen):
    """An ONNX file and its manifest; `version` names a champion."""

    path: Path
    manifest: ModelManifest
    version: str | None = None


class SampleRef(_Frozen):
    """A sample's content on this machine."""

    sample_id: str
    path: Path
    media_type: str


class LabelledRef(SampleRef):
    """A sample with the answer that was accepted for it (`contracts/values.py`); `weight` counts in training only."""

    label: str | list[str] | dict[str, Any]
    weight: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] = 1.0


def _known(task: Task, labels: tuple[str, ...], samples: tuple[LabelledRef, ...]) -> None:
    if len(set(labels)) != len(labels):
        raise ValueError("a label is listed twice")
    if len(labels) < 2 and answer_of(task) == "classification":
        raise ValueError("a classification is between at least 2 labels")
    for sample in samples:
        try:
            checked(sample.label, task, labels)
        except BadValue as error:
            where = f"sample {sample.sample_id} has a label{error.pointer} that is not in the schema"
            raise ValueError(f"{where}: {error}") from None


def _disjoint(first: tuple[SampleRef, ...], second: tuple[SampleRef, ...], what: str) -> None:
    both = {sample.sample_id for sample in first} & {sample.sample_id for sample in second}
    if both:
        raise ValueError(f"{len(both)} samples are in {what}, {min(both)} for one")


class Job(_Frozen):
    """One training run; evaluation samples are in no other list, so that nothing leaks into the gate."""

    run_id: str
    task: Task
    labels: Annotated[tuple[Name, ...], Field(min_length=1)]
    extractor: ModelRef
    champion: ModelRef | None = None
    samples: tuple[LabelledRef, ...]
    evaluation: tuple[LabelledRef, ...] = ()
    unlabelled: tuple[SampleRef, ...] = ()
    params: HeadParams = HeadParams()
    out_dir: Path

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        if self.task != self.extractor.manifest.task:
            raise ValueError(f"the extractor is for {self.extractor.manifest.task}, not for {self.task}")
        if self.extractor.manifest.outputs.embedding is None:
            raise ValueError("the extractor gives no embedding")
        if self.champion is not None and self.champion.manifest.is_extractor:
            raise ValueError("the champion gives no probabilities")
        _known(self.task, self.labels, (*self.samples, *self.evaluation))
        _disjoint(self.samples, self.evaluation, "training and evaluation")
        _disjoint(self.unlabelled, self.evaluation, "the unlabelled pool and evaluation")
        return self


class Subset(_Frozen):
    """The first `labels` samples of a curve, by id."""

    labels: Annotated[int, Field(ge=1)]
    ids: tuple[str, ...]


class CurveJob(_Frozen):
    """The main metric over growing subsets of samples whose answers are all known."""

    task: Task = "image-classification"
    labels: Annotated[tuple[Name, ...], Field(min_length=1)]
    extractor: ModelRef
    samples: Annotated[tuple[LabelledRef, ...], Field(min_length=1)]
    test: Annotated[tuple[LabelledRef, ...], Field(min_length=1)]
    subsets: tuple[Subset, ...] = ()
    params: HeadParams = HeadParams()

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        _known(self.task, self.labels, (*self.samples, *self.test))
        _disjoint(self.samples, self.test, "training and test")
        ids = {sample.sample_id for sample in self.samples}
        for subset in self.subsets:
            if not ids.issuperset(subset.ids):
                raise ValueError(f"the subset of {subset.labels} names a sample that is not listed")
        return self
