"""A project: what is learnt, from which labels, and by which rules."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from services.contracts.events import Content
from services.contracts.manifest import InputSpec, Task

ProjectName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SelectionPolicy(_Settings):
    """How samples are chosen, round after round."""

    id: str = "default"
    version: int = 1
    strategy: str = "uncertainty_coverage"
    cold_start: str = "coverage"
    batch: int = Field(default=20, ge=1, le=10_000, description="labels asked for in a round")
    first_batch: int | None = Field(
        default=None, ge=1, le=10_000, description="in rounds without a model; default: batch"
    )
    low_water: int | None = Field(
        default=None, ge=0, description="open tasks below which a round opens; default: batch/2"
    )
    min_pool: int | None = Field(default=None, ge=1, description="samples that a first round waits for; 10 batches")
    settle_seconds: float = Field(default=5.0, ge=0, description="quiet time after which a smaller pool is enough")
    wait_seconds: float = Field(default=60.0, ge=0, description="how long a round waits for a model in training")
    control: int = Field(default=1, ge=0, description="random picks of the whole pool in a round, to compare with")
    audit: int = Field(
        default=1, ge=0, description="random picks among the confident in a round, to find silent errors"
    )
    confident: float = Field(default=0.9, ge=0, le=1, description="confidence from which a sample can be audited")
    budget: int | None = Field(default=None, ge=1, description="labels asked for in all; none: no limit")
    sites: list[str] | None = Field(default=None, description="sites whose samples are asked about; none: all")
    site_budget: int | None = Field(default=None, ge=1, description="labels asked for of each site in all")
    required_labels: int = Field(default=1, ge=1, le=9)
    seed: int = 0


class TriggerRule(_Settings):
    """When a model is trained."""

    n: int = Field(default=20, ge=1, description="new labels that start a run")
    n_min: int = Field(default=1, ge=1, description="new labels that a run by age needs")
    max_age_seconds: float | None = Field(
        default=None, gt=0, description="age of the oldest new label that starts a run"
    )
    error_rate: float | None = Field(
        default=None, gt=0, lt=1, description="audit error, lower 95 % bound, that starts one"
    )
    min_per_class: int = Field(default=15, ge=0, description="accepted labels that every class needs first")
    cooldown_seconds: float = Field(default=0.0, ge=0)


class GateRule(_Settings):
    """When a candidate is promoted."""

    margin: float = Field(default=0.0, ge=0, le=1)
    delta: float = Field(default=0.02, ge=0, le=1)
    class_drop: float = Field(default=0.1, ge=0, le=1)
    floor: float = Field(default=0.1, ge=0, le=1, description="accuracy that a first model needs")


class QualityRule(_Settings):
    """How the annotators' work is measured while they do it."""

    gold_share: float = Field(
        default=0.03, ge=0, le=0.5, description="tasks claimed that are gold samples, as long as there are unseen ones"
    )
    blind_share: float = Field(
        default=0.1, ge=0, le=1, description="tasks whose suggestion is never shown, whatever `suggestions` says"
    )


class Extractor(_Settings):
    """The feature extractor that serves while there is no model, and below every head."""

    artefact: Content
    manifest: Content


class ProjectSpec(_Settings):
    """What whoever makes a project says about it."""

    name: ProjectName
    task: Task
    labels: list[str] = Field(min_length=2, max_length=1000)
    input: InputSpec
    policy: SelectionPolicy = SelectionPolicy()
    trigger: TriggerRule = TriggerRule()
    gate: GateRule = GateRule()
    training: dict[str, float | int | str | bool] = Field(default_factory=dict)
    suggestions: Literal["blind", "reveal_after", "topk", "accept_reject"] = "reveal_after"
    quality: QualityRule = QualityRule()

    @field_validator("labels")
    @classmethod
    def _distinct(cls, labels: list[str]) -> list[str]:
        if len(set(labels)) != len(labels) or not all(label.strip() for label in labels):
            raise ValueError("labels must be distinct and not empty")
        return labels


class ProjectDocument(ProjectSpec):
    """A project as its owner, retrain-trigger, publishes it; the highest revision is true."""

    revision: int
    schema_version: int = 1
    extractor: Extractor
