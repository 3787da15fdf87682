"""What ingest reads from its environment."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class IngestSettings(BaseSettings):
    """Limits of one replica of ingest."""

    model_config = SettingsConfigDict(env_prefix="HALFSURE_INGEST_", frozen=True)

    group: int = Field(default=1000, ge=1, description="samples stored in one transaction at most")
    future_seconds: float = Field(default=300.0, ge=0, description="how far ahead of this clock captured_at may be")
    buffer_bytes: int | None = Field(
        default=None, ge=1, description="what the content of all samples may take; beyond it the least worth goes"
    )
    buffer_ttl_seconds: float = Field(
        default=7200.0, ge=1, description="for which what is asked about is promised to be kept until it is uploaded"
    )
    hooks: tuple[str, ...] = Field(
        default=(), description="what looks at content before it is stored, in this order (JSON; docs/edge.md)"
    )
    downscale_side: int = Field(default=1024, ge=16, description="pixels of the longer side, with the hook `downscale`")
    downscale_quality: int = Field(default=85, ge=1, le=95, description="of what that hook compresses again")
    sources: Path | None = Field(default=None, description="YAML or TOML file of the sources (docs/sources.md)")
