"""What portal reads from its environment."""

from pathlib import Path

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
    notifications: Path | None = Field(default=None, description="TOML file: who is told what, by webhook or e-mail")
    send_seconds: float = Field(default=1.0, gt=0, description="between two looks for notices to send")
    waiting_seconds: float = Field(default=10.0, gt=0, description="between two looks at how many tasks wait")
    most_listeners: int = Field(default=500, ge=1, description="open event streams in one process")
