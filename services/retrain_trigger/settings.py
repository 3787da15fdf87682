"""What retrain-trigger reads from its environment."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class RetrainTriggerSettings(BaseSettings):
    """The pace of runs, where they train, and their limits."""

    model_config = SettingsConfigDict(env_prefix="HALFSURE_RETRAIN_TRIGGER_", frozen=True)

    backend: Literal["local", "command", "kubernetes", "azureml", "webhook"] = Field(
        default="local", description="where models are trained"
    )
    command: str = Field(default="", description="for the backend `command`: what trains, with its arguments")
    check_seconds: float = Field(default=0.25, gt=0, description="between two looks at the retrain rule")
    tend_seconds: float = Field(default=2.0, gt=0, description="between two looks at runs that may need a push")
    refresh_seconds: float = Field(default=15.0, gt=0, description="between two full reads of the labels")
    follow_seconds: float = Field(default=20.0, gt=0, le=60, description="how long one step waits for the backend")
    stuck_seconds: float = Field(default=120.0, gt=0, description="without a sign of life, a run is begun anew")
    pause_after_failure: float = Field(default=30.0, ge=0, description="seconds until a failed run may be followed")
    training_timeout: float = Field(default=1800.0, gt=0, description="seconds that one training may take")
    attempts: int = Field(default=3, ge=1, description="times that a training that crashes is started")
    attempt_pause: float = Field(default=5.0, ge=0, description="seconds until the second try; twice that to the third")
    niceness: int = Field(default=5, ge=0, le=19, description="of the training process")
    keep_warm: bool = Field(default=True, description="keep a training process at hand between runs (about 200 MB)")
    pool_patience: float = Field(default=10.0, ge=0, description="seconds to wait for ingest's list of samples")
    pool_most: int = Field(default=100_000, ge=0, description="unlabelled samples that a run asks for; 0: none")
    job_template: str = Field(default="halfsure-training", description="the PodTemplate of training Jobs")
    job_kept_seconds: int = Field(default=3600, ge=60, description="until an ended Job and its pods are removed")
    models_kept: int = Field(default=10, ge=0, description="artefacts kept beside those that are in use, by project")
    model_key: Path | None = Field(default=None, description="PEM of the Ed25519 key that models are signed with")
    runs_kept: int = Field(default=5, ge=1, description="run folders kept on disk")


class WebhookSettings(BaseSettings):
    """Who trains, for the backend `webhook`."""

    model_config = SettingsConfigDict(env_prefix="HALFSURE_RETRAIN_TRIGGER_WEBHOOK_", frozen=True)

    url: str = Field(default="", description="where a training is asked for")
    secret: SecretStr = Field(default=SecretStr(""), description="whsec_ and base64; signs what goes and what comes")
    inside: bool = Field(default=False, description="the name in `url` may lead into a private network")
    callback_url: str = Field(default="", description="of this service, as whoever trains reaches it")


class MlflowSettings(BaseSettings):
    """A tracking server that the registry is mirrored to, if one is named."""

    model_config = SettingsConfigDict(env_prefix="HALFSURE_RETRAIN_TRIGGER_MLFLOW_", frozen=True)

    url: str = Field(default="", description="of the server, as `https://user:password@mlflow.example` too")
    token: SecretStr = Field(default=SecretStr(""), description="sent as a bearer token")
    prefix: str = Field(default="halfsure-", description="before a project's name, there")
    look_seconds: float = Field(default=5.0, gt=0, description="between two looks at what is to be mirrored")


class AzureMlSettings(BaseSettings):
    """The workspace, and what a job there is made of, for the backend `azureml`; all of it is registered beforehand."""

    model_config = SettingsConfigDict(env_prefix="HALFSURE_RETRAIN_TRIGGER_AZUREML_", frozen=True)

    subscription: str = ""
    resource_group: str = ""
    workspace: str = ""
    compute: str = Field(default="", description="the cluster's name; `serverless` for none of one's own")
    environment: str = Field(default="", description="azureml:NAME:VERSION, of the image of retrain-trigger")
    experiment: str = "halfsure"
    client_id: str = Field(default="", description="of the job's managed identity; empty: the compute's own")
    instances: int = Field(default=1, ge=1, description="nodes of one job")
    blobs: str = Field(default="", description="HALFSURE_BLOBS of the job; empty: this service's own")
    poll_seconds: float = Field(default=10.0, gt=0, description="between two looks at a job")
    automl: bool = Field(default=False, description="AutoML in the place of the project's own trainer")
    metric: str = Field(default="accuracy", description="by which AutoML chooses its best child run")
    trials: int = Field(default=4, ge=1, description="models that AutoML tries")
    datastore: str = Field(default="", description="over the container of `blobs`, for what AutoML reads")
    artefacts: str = Field(default="", description="https://ACCOUNT.blob.core.windows.net/azureml: what runs leave")
