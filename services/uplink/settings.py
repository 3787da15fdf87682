"""What uplink reads from its environment."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.contracts.rules import Weekly


class UplinkSettings(BaseSettings):
    """The way to the cloud, and how much may wait for it."""

    model_config = SettingsConfigDict(env_prefix="HALFSURE_UPLINK_", frozen=True)

    cloud: str = Field(default="cloud", description="component of the cloud's broker")
    cloud_blobs: str = Field(
        default="", validation_alias="HALFSURE_CLOUD_BLOBS", description="url of the cloud's blob store"
    )
    twin: bool = Field(
        default=False, description="be steered by the module twin, with the identity that IoT Edge gives"
    )
    windows: tuple[Weekly, ...] = Field(
        default=(), description="when content may go up (JSON, as a policy's `weekly` rule); none: always"
    )
    bytes_per_second: float | None = Field(
        default=None, gt=0, description="content that may go up, on average; none: as fast as it goes"
    )
    burst_seconds: float = Field(default=10.0, gt=0, description="of that rate that may have been saved up")
    flush_seconds: float = Field(default=900.0, gt=0, description="for which a forced flush opens the way up")
    waiting: int = Field(default=65_536, ge=1, description="units of events that may wait while the cloud is away")
    at_once: int = Field(default=8, ge=1, description="contents carried at a time")
    blob_seconds: float = Field(default=60.0, gt=0, description="time that carrying one content may take")
    remember_days: int = Field(default=30, ge=1, description="how long an event that was handed on is known again")
