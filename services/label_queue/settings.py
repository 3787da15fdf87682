"""What label-queue reads from its environment."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class LabelQueueSettings(BaseSettings):
    """Leases, and the pace of the work in the background."""

    model_config = SettingsConfigDict(env_prefix="HALFSURE_LABEL_QUEUE_", frozen=True)

    lease_seconds: float = Field(default=120, ge=15, le=3600, description="how long a lease lasts without a heartbeat")
    max_hold_seconds: float = Field(default=1800, ge=15, description="how long heartbeats can keep a lease")
    max_leases: int = Field(default=24, ge=1, le=500, description="tasks that one annotator may hold")
    sweep_seconds: float = Field(default=5.0, gt=0, description="between two looks for leases that ran out")
    flush_seconds: float = Field(default=1.0, gt=0, description="how late a closed task may be noted in the segments")
    quality_seconds: float = Field(default=5.0, ge=0, description="how long a report on the annotators stays good")
    quality_tasks: int = Field(default=20_000, ge=1, description="the latest answered tasks that reports are made of")
    read_on_seconds: float = Field(default=0.02, gt=0, description="between two reads of tasks known from headers only")
    refresh_seconds: float = Field(default=1.0, ge=0, description="least time between looks at other replicas' work")
