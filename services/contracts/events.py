"""What has happened, as facts that never change: one class a type, each on its topic."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

Trigger = Literal["policy", "manual", "audit", "control", "backfill"]
TrainingReason = Literal["count", "schedule", "error_rate", "drift", "manual"]
TaskState = Literal["queued", "leased", "released", "expired", "skipped"]
RunState = Literal["started", "succeeded", "failed", "cancelled"]

EVENT_TYPES: dict[str, type["Event"]] = {}


class Event(BaseModel):
    """A fact in one project. Readers tolerate fields they do not know; writers only ever add optional ones."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, protected_namespaces=())

    topic: ClassVar[str]
    type: ClassVar[str]

    project: str

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if kind := cls.__dict__.get("type"):
            EVENT_TYPES[kind] = cls

    @property
    def key(self) -> str:
        """The business key: two events of a type with the same key are the same fact."""
        raise TypeError(f"{type(self).__name__} has no idempotency key")

    @property
    def subject(self) -> str:
        """The id of the aggregate that the fact is about."""
        raise TypeError(f"{type(self).__name__} has no subject")

    @property
    def correlation(self) -> str:
        """The sample or run that the whole story is about."""
        return self.subject


class Content(BaseModel):
    """A claim check: where the bytes are and what they hash to, never the bytes."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    uri: str
    sha256: str
    bytes: int
    media_type: str


class SignedContent(Content):
    """A manifest's claim check, with the registry's signature (runtime/signing.py) where it has a key."""

    model_config = ConfigDict(frozen=True, extra="ignore", from_attributes=True)  # any claim is one without it

    signature: str | None = None


class PolicyRef(BaseModel):
    """The policy document, and the version of it, that a decision was made under."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    version: int


class OfSample(Event):
    """A fact about one sample."""

    sample_id: str

    @property
    def subject(self) -> str:
        return self.sample_id


class SampleIngested(OfSample):
    """A sample's content is stored and may be scored."""

    topic = "sample-ingested"
    type = "io.halfsure.sample.ingested.v1"

    content: Content
    captured_at: AwareDatetime
    stream_id: str | None = None
    sequence: int | None = None
    attributes: Mapping[str, Any] = Field(default_factory=dict)
    tags: Sequence[str] = ()
    trigger: Trigger = "policy"

    @property
    def key(self) -> str:
        return self.sample_id


class SampleRejected(Event):
    """A request to ingest was refused."""

    topic = "sample-rejected"
    type = "io.halfsure.sample.rejected.v1"

    request_id: str
    reason: Literal["duplicate", "too_large", "type", "schema", "policy", "quota"]
    of_sample_id: str | None = None

    @property
    def key(self) -> str:
        return self.request_id

    @property
    def subject(self) -> str:
        return self.of_sample_id or self.request_id


class Top(BaseModel):
    """What a model says first: its most probable label, and how sure it is of its whole answer.

    `value` is that answer (`contracts/values.py`) where it is more than the label; `label` is empty where it has none.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    label: str
    confidence: float
    value: Any = None

    @property
    def answer(self) -> Any:
        """The answer as an annotator would give it."""
        return self.label if self.value is None else self.value


class Detection(BaseModel):
    """A box that a detector has found, in fractions of the picture from its upper left corner."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    label: str
    confidence: float
    x: float
    y: float
    width: float
    height: float


class Ref(BaseModel):
    """One row of a block of raw bytes in the blob store."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    uri: str
    row: int
    dim: int
    dtype: Literal["float32", "float16"] = "float32"


class SampleScored(OfSample):
    """A model version, or the feature extractor while there is none, has looked at a sample."""

    topic = "sample-scored"
    type = "io.halfsure.sample.scored.v1"

    model_version: str
    task: str
    content: Content
    labels: Sequence[str] = ()
    probabilities: Sequence[float] = ()  # of the labels: of one of them, or of each for itself; none of a detector
    detections: Sequence[Detection] = ()
    top: Top | None = None
    scores: Mapping[str, float] = Field(default_factory=dict)
    embedding_ref: Ref | None = None
    ood_score: float | None = None
    latency_ms: float = 0.0
    provider: str = ""
    rescore_id: str | None = None
    captured_at: AwareDatetime | None = None
    stream_id: str | None = None
    attributes: Mapping[str, Any] = Field(default_factory=dict)
    tags: Sequence[str] = ()

    @property
    def key(self) -> str:
        return f"{self.sample_id}|{self.model_version}"


class SampleScoringFailed(OfSample):
    """A sample could not be scored; it goes to a person."""

    topic = "sample-scoring-failed"
    type = "io.halfsure.sample.scoring_failed.v1"

    model_version: str
    content: Content
    error: str
    detail: str = ""
    retryable: bool = False
    rescore_id: str | None = None

    @property
    def key(self) -> str:
        return f"{self.sample_id}|{self.model_version}"


class SampleSelected(OfSample):
    """A label is worth asking for."""

    topic = "sample-selected"
    type = "io.halfsure.sample.selected.v1"

    round_id: str
    content: Content
    priority: float = Field(ge=0, le=1)
    reasons: Sequence[str]
    policy: PolicyRef
    strategy: str
    seed: int
    required_labels: int = 1
    trigger: Trigger = "policy"
    is_audit: bool = False
    weight: float = 1.0
    prelabel: Top | None = None
    model_version: str = "none"

    @property
    def key(self) -> str:
        return f"{self.sample_id}|{self.round_id}"


class SampleDiscarded(OfSample):
    """A sample will not be asked about under this policy version."""

    topic = "sample-discarded"
    type = "io.halfsure.sample.discarded.v1"

    policy: PolicyRef
    rules: Mapping[str, bool] = Field(default_factory=dict)
    reasons: Mapping[str, str] = Field(default_factory=dict)

    @property
    def key(self) -> str:
        return f"{self.sample_id}|{self.policy.id}@{self.policy.version}"


class OfQuestion(OfSample):
    """A fact about a question that is open."""

    topic = "question"

    round_id: str


class SampleReranked(OfQuestion):
    """A newer model has another opinion of how urgent a question is."""

    type = "io.halfsure.sample.reranked.v1"

    priority: float = Field(ge=0, le=1)
    reasons: Sequence[str] = ()
    prelabel: Top | None = None
    model_version: str

    @property
    def key(self) -> str:
        return f"{self.sample_id}|{self.round_id}|{self.model_version}"


class SampleEvicted(OfQuestion):
    """A question is to be withdrawn, unless somebody is at it: a better one takes its place, or nobody came."""

    type = "io.halfsure.sample.evicted.v1"

    why: Literal["evicted", "expired"]
    attempt: int = 0

    @property
    def key(self) -> str:
        return f"{self.sample_id}|{self.round_id}|{self.attempt}"


class InferenceResult(OfSample):
    """A prediction that the policy publishes, for whoever wants results."""

    topic = "inference-result"
    type = "io.halfsure.inference.result.v1"

    model_version: str
    policy: PolicyRef
    content: Content
    top: Top | None = None
    scores: Mapping[str, float] = Field(default_factory=dict)
    captured_at: AwareDatetime | None = None
    stream_id: str | None = None
    attributes: Mapping[str, Any] = Field(default_factory=dict)
    tags: Sequence[str] = ()

    @property
    def key(self) -> str:
        return f"{self.sample_id}|{self.model_version}|{self.policy.id}@{self.policy.version}"


class SampleWithdrawn(OfSample):
    """A sample must be forgotten."""

    topic = "sample-withdrawn"
    type = "io.halfsure.sample.withdrawn.v1"

    who: str
    why: Literal["privacy", "bad_data", "consent"]
    erase_content: bool = True

    @property
    def key(self) -> str:
        return self.sample_id


class SampleExpired(OfSample):
    """A sample's content is gone: its site needed the room."""

    topic = "sample-expired"
    type = "io.halfsure.sample.expired.v1"

    reason: Literal["uploaded", "discarded", "unscored", "value", "ttl"]
    bytes: int = 0

    @property
    def key(self) -> str:
        return self.sample_id


class SampleUploaded(OfSample):
    """A checked copy of a sample's content is in the cloud's store."""

    topic = "sample-uploaded"
    type = "io.halfsure.sample.uploaded.v1"

    content: Content

    @property
    def key(self) -> str:
        return self.sample_id


class BufferFlushRequested(Event):
    """What waits at a site is to go up now; with `force`, outside of the uplink's windows too."""

    topic = "buffer"
    type = "io.halfsure.buffer.flush_requested.v1"

    request_id: str
    force: bool = False

    @property
    def key(self) -> str:
        return self.request_id

    @property
    def subject(self) -> str:
        return self.request_id


class TaskEvent(OfSample):
    """A task in the label queue has changed hands."""

    topic = "task"

    task_id: str
    lease_epoch: int
    annotator: str | None = None
    lease_until: AwareDatetime | None = None
    reason: str | None = None

    @property
    def key(self) -> str:
        return f"{self.task_id}|{self.lease_epoch}"

    @property
    def subject(self) -> str:
        return self.task_id

    @property
    def correlation(self) -> str:
        return self.sample_id


class TaskQueued(TaskEvent):
    """A task waits for an annotator."""

    type = "io.halfsure.task.queued.v1"


class TaskLeased(TaskEvent):
    """An annotator holds a task."""

    type = "io.halfsure.task.leased.v1"


class TaskReleased(TaskEvent):
    """An annotator gave a task back."""

    type = "io.halfsure.task.released.v1"


class TaskExpired(TaskEvent):
    """A lease ran out."""

    type = "io.halfsure.task.expired.v1"


class TaskSkipped(TaskEvent):
    """An annotator could or would not answer; the task is closed unless it is queued again."""

    type = "io.halfsure.task.skipped.v1"


class LabelSubmitted(OfSample):
    """An annotator has answered."""

    topic = "label-submitted"
    type = "io.halfsure.label.submitted.v1"

    annotation_id: str
    task_id: str
    annotator: str
    value: Any
    changed_from_prelabel: bool | None = None
    seconds: float | None = None
    schema_version: int = 1
    suggestion: Literal["before", "after", "never"] | None = None
    revises: str | None = None

    @property
    def key(self) -> str:
        return self.annotation_id


class LabelAccepted(OfSample):
    """A sample has its label."""

    topic = "label-accepted"
    type = "io.halfsure.label.accepted.v1"

    label_revision: int
    value: Any
    agreement: float = 1.0
    annotators: int = 1
    is_audit: bool = False
    split: Literal["train", "evaluation"] = "train"
    origin: Literal["queue", "import"] = "queue"
    trigger: Trigger = "policy"
    schema_version: int = 1
    weight: float = 1.0
    predicted: Top | None = None
    model_version: str = "none"
    content: Content

    @property
    def key(self) -> str:
        return f"{self.sample_id}|{self.label_revision}"


class LabelRetracted(OfSample):
    """A sample's label no longer counts."""

    topic = "label-retracted"
    type = "io.halfsure.label.retracted.v1"

    label_revision: int
    previous_revision: int
    why: str = ""

    @property
    def key(self) -> str:
        return f"{self.sample_id}|{self.label_revision}"


class OfRun(Event):
    """A fact about one training run."""

    run_id: str

    @property
    def subject(self) -> str:
        return self.run_id


class SnapshotRef(BaseModel):
    """An immutable training set."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    sha256: str
    uri: str
    counts: Mapping[str, int] = Field(default_factory=dict)


class TrainingRequested(OfRun):
    """Enough has changed to train."""

    topic = "training"
    type = "io.halfsure.training.requested.v1"

    reason: TrainingReason
    snapshot: SnapshotRef
    base_model: str | None = None
    params: Mapping[str, Any] = Field(default_factory=dict)

    @property
    def key(self) -> str:
        return self.run_id


class TrainingEvent(OfRun):
    """A training run has moved on."""

    topic = "training"
    state: ClassVar[RunState]

    backend_job_id: str = ""
    metrics: Mapping[str, Any] = Field(default_factory=dict)
    artefact: Content | None = None
    error: str | None = None

    @property
    def key(self) -> str:
        return f"{self.run_id}|{self.state}"


class TrainingStarted(TrainingEvent):
    """The backend has taken the job."""

    type = "io.halfsure.training.started.v1"
    state = "started"


class TrainingSucceeded(TrainingEvent):
    """The backend has made a candidate."""

    type = "io.halfsure.training.succeeded.v1"
    state = "succeeded"


class TrainingFailed(TrainingEvent):
    """The backend has given up."""

    type = "io.halfsure.training.failed.v1"
    state = "failed"


class TrainingCancelled(TrainingEvent):
    """Somebody stopped the run."""

    type = "io.halfsure.training.cancelled.v1"
    state = "cancelled"


class OfModel(Event):
    """A fact about one model version."""

    topic = "model"

    version: str

    @property
    def subject(self) -> str:
        return self.version


class ModelRegistered(OfModel):
    """A model version exists, with its artefact, manifest and lineage."""

    type = "io.halfsure.model.registered.v1"

    artefact: Content
    manifest: SignedContent
    lineage: Mapping[str, Any] = Field(default_factory=dict)

    @property
    def key(self) -> str:
        return self.version


class ModelRejected(OfModel):
    """The gate has refused a candidate."""

    type = "io.halfsure.model.rejected.v1"

    gate: Mapping[str, Any]

    @property
    def key(self) -> str:
        return self.version


class ModelActivation(OfModel):
    """The model that a project serves has changed; the highest epoch is true."""

    activation_epoch: int
    previous: str | None = None
    artefact: Content
    manifest: SignedContent
    rollout: Mapping[str, float] = Field(default_factory=lambda: {"share": 1.0})
    shadow: str | None = None  # a version that scores beside it, without being used
    reason: str = ""
    gate: Mapping[str, Any] = Field(default_factory=dict)

    @property
    def key(self) -> str:
        return f"{self.project}|{self.activation_epoch}"


class ModelActivated(ModelActivation):
    """A version is promoted to champion."""

    type = "io.halfsure.model.activated.v1"


class ModelRolledBack(ModelActivation):
    """An earlier version serves again."""

    type = "io.halfsure.model.rolled_back.v1"


class ModelStatus(Event):
    """What one replica of infer has done with a version."""

    topic = "model-status"

    site: str
    instance: str
    version: str
    activation_epoch: int = 0
    sha256: str = ""
    provider: str = ""
    error: str | None = None

    @property
    def key(self) -> str:
        return f"{self.site}|{self.instance}|{self.version}|{self.activation_epoch}"

    @property
    def subject(self) -> str:
        return self.version


class ModelLoaded(ModelStatus):
    """A replica answers with this version."""

    type = "io.halfsure.model.loaded.v1"


class ModelLoadFailed(ModelStatus):
    """A replica could not load a version and goes on with the old one."""

    type = "io.halfsure.model.load_failed.v1"


class ScoresSummarised(Event):
    """How sure a replica's model was of what came in since the last summary; only where a project asks for it."""

    topic = "score-summary"
    type = "io.halfsure.scores.summarised.v1"

    model_version: str
    site: str
    instance: str
    until: AwareDatetime
    samples: int
    confidence: Sequence[int]  # samples by the confidence of the most probable label, in bins of equal width over 0..1

    @property
    def key(self) -> str:
        return f"{self.project}|{self.site}|{self.instance}|{self.model_version}|{self.until.isoformat()}"

    @property
    def subject(self) -> str:
        return self.model_version


class PolicyUpdated(Event):
    """A collection policy has a new version."""

    topic = "policy"
    type = "io.halfsure.policy.updated.v1"

    policy_id: str
    version: int
    document: Mapping[str, Any]

    @property
    def key(self) -> str:
        return f"{self.project}|{self.policy_id}|{self.version}"

    @property
    def subject(self) -> str:
        return self.policy_id


class ProjectUpdated(Event):
    """A project was made, changed or deleted; the highest revision is true."""

    topic = "project"
    type = "io.halfsure.project.updated.v1"

    revision: int
    document: Mapping[str, Any]
    deleted: bool = False

    @property
    def key(self) -> str:
        return f"{self.project}|{self.revision}"

    @property
    def subject(self) -> str:
        return self.project


class RescoreRequested(Event):
    """These samples are to be scored with this model version."""

    topic = "rescore-requested"
    type = "io.halfsure.rescore.requested.v1"

    rescore_id: str
    part: int
    model_version: str
    sample_ids: Sequence[str]

    @property
    def key(self) -> str:
        return f"{self.rescore_id}|{self.part}"

    @property
    def subject(self) -> str:
        return self.rescore_id


class ServiceHeartbeat(Event):
    """A replica is alive; how many units of its events wait for the broker, and what is on its service's shelf."""

    topic = "service-heartbeat"
    type = "io.halfsure.service.heartbeat.v1"

    service: str
    instance: str
    site: str
    sequence: int
    waiting: int | None = None
    dead_letters: int | None = None

    @property
    def key(self) -> str:
        return f"{self.site}|{self.service}|{self.instance}|{self.sequence}"

    @property
    def subject(self) -> str:
        return self.service


TOPICS = sorted({event.topic for event in EVENT_TYPES.values()})
