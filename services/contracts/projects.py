"""A project: what is learnt, from which labels, and by which rules."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from services.contracts import cron
from services.contracts.events import Content, SignedContent
from services.contracts.inputs import InputSpec
from services.contracts.rules import LEDGER, Rule, StreamShare, checked, leaves
from services.contracts.structured_uncertainty import score_name
from services.contracts.tasks import Task, answer_of

ProjectName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class StopRule(_Settings):
    """When more labels no longer help."""

    gain: float = Field(default=0.005, ge=0, le=1, description="gain of the main metric that is worth labels")
    runs: int = Field(default=3, ge=1, le=100, description="judged models in a row that gained less")
    audit_error: float | None = Field(
        default=None, gt=0, lt=1, description="only if the audit's upper 95 % bound is below this as well"
    )
    pause: bool = Field(default=False, description="then open no more rounds by itself")


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
    aggregate: Literal["max", "mean", "sum", "margin"] | None = Field(
        default=None, description="of a sample's labels or boxes, by which it ranks; none: mean of labels, max of boxes"
    )
    confident: float = Field(default=0.9, ge=0, le=1, description="confidence from which a sample can be audited")
    budget: int | None = Field(default=None, ge=1, description="labels asked for in all; none: no limit")
    sites: list[str] | None = Field(default=None, description="sites whose samples are asked about; none: all")
    site_budget: int | None = Field(default=None, ge=1, description="labels asked for of each site in all")
    devices: list[str] | None = Field(default=None, description="devices whose samples are asked about; none: all")
    device_budget: int | None = Field(default=None, ge=1, description="labels asked for of each device in all")
    required_labels: int = Field(default=1, ge=1, le=9)
    seed: int = 0
    where: Rule | None = Field(default=None, description="which samples may be asked about; none: all")
    results: Rule | None = Field(default=None, description="whose predictions are published as InferenceResult")
    weight: float = Field(default=1.0, gt=0, le=1000, description="what a label asked for here weighs in training")
    audit_share: float = Field(
        default=0.0, ge=0, le=1, description="share of all confident predictions that is audited, beside `audit`"
    )
    near_duplicate: float | None = Field(
        default=None, ge=0, le=2, description="cosine distance up to which a sample is like one that was asked about"
    )
    open_per_class: int | None = Field(
        default=None, ge=1, description="open questions of each predicted class; the more valuable stay"
    )
    expire_seconds: float | None = Field(
        default=None, gt=0, description="after which a question that nobody took up is withdrawn"
    )
    stop: StopRule | None = None

    @field_validator("where", "results")
    @classmethod
    def _small(cls, rule: Rule | None) -> Rule | None:
        return checked(rule)

    @field_validator("results")
    @classmethod
    def _of_the_sample(cls, rule: Rule | None) -> Rule | None:
        for name, leaf in leaves(rule) if rule else ():
            if isinstance(leaf, (*LEDGER, StreamShare)):
                raise ValueError(f"{name!r} is about what is asked; results may depend on the sample alone")
        return rule


class DriftRule(_Settings):
    """When what the model is asked about is not what it used to be: by its confidence, window against window."""

    window: int = Field(default=500, ge=50, le=1_000_000, description="samples of the reference, and of each look")
    psi: float = Field(default=0.2, gt=0, description="population stability index above which it counts as drift")
    cooldown_seconds: float = Field(default=3600.0, ge=0, description="between two runs for drift")


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
    schedule: str | None = Field(default=None, description="cron (UTC), @daily, @every 6h: looks for new labels then")
    drift: DriftRule | None = Field(default=None, description="a run when the scores of what comes in have changed")
    debounce_seconds: float = Field(default=0.0, ge=0, description="quiet time that enough labels wait for, or for 2 n")
    min_per_class: int = Field(default=15, ge=0, description="accepted labels that every class needs first")
    cooldown_seconds: float = Field(default=0.0, ge=0)

    @field_validator("schedule")
    @classmethod
    def _cron(cls, schedule: str | None) -> str | None:
        return schedule and cron.checked(schedule)


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


class RolloutRule(_Settings):
    """How a promoted version comes into service, and when it goes out again."""

    share: float = Field(default=1.0, gt=0, le=1, description="of the traffic that it gets while it is watched")
    watch_seconds: float = Field(default=86_400.0, ge=0, description="for which it is watched; 0: not at all")
    error_rise: float = Field(
        default=0.05, ge=0, lt=1, description="of the audit error above the previous version's that rolls it back"
    )


class Extractor(_Settings):
    """The feature extractor that serves while there is no model, and below every head."""

    artefact: Content
    manifest: SignedContent


class ProjectSpec(_Settings):
    """What whoever makes a project says about it."""

    name: ProjectName
    task: Task
    labels: list[str] = Field(min_length=1, max_length=1000)
    input: InputSpec
    policy: SelectionPolicy = SelectionPolicy()
    trigger: TriggerRule = TriggerRule()
    gate: GateRule = GateRule()
    rollout: RolloutRule = RolloutRule()
    training: dict[str, float | int | str | bool] = Field(default_factory=dict)
    suggestions: Literal["blind", "reveal_after", "topk", "accept_reject"] = "reveal_after"
    quality: QualityRule = QualityRule()
    guide: str = Field(default="", max_length=20_000, description="what annotators are told of the labels, as text")

    @field_validator("policy")
    @classmethod
    def _of_the_task(cls, policy: SelectionPolicy, info: ValidationInfo) -> SelectionPolicy:
        score_name(info.data.get("task", "image-classification"), policy.aggregate)
        return policy

    @field_validator("labels")
    @classmethod
    def _distinct(cls, labels: list[str], info: ValidationInfo) -> list[str]:
        if len(set(labels)) != len(labels) or not all(label.strip() for label in labels):
            raise ValueError("labels must be distinct and not empty")
        if len(labels) < 2 and answer_of(info.data.get("task", "image-classification")) == "classification":
            raise ValueError("a classification is between two labels at least")
        return labels


class ProjectDocument(ProjectSpec):
    """A project as its owner, retrain-trigger, publishes it; the highest revision is true."""

    revision: int
    schema_version: int = 1
    extractor: Extractor
