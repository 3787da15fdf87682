"""What portal reads from its environment."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class PortalSettings(BaseSettings):
    """Which services are behind the portal, and how it keeps listeners."""

    model_config = SettingsConfigDict(env_prefix="HALFSURE_PORTAL_", frozen=True)

    services: list[str] = Field(
        default=["ingest", "infer", "select-uncertain", "label-queue", "retrain-trigger"],
        description="app ids that are served at /api/APP-ID/v1, as a JSON list; all others are not found",
    )
    heartbeat_seconds: float = Field(default=15, gt=0, description="between two signs of life to a silent listener")
    look_seconds: float = Field(default=0.5, gt=0, description="how late another replica's events may be")
    most_listeners: int = Field(default=500, ge=1, description="open event streams in one process")
