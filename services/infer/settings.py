"""What infer reads from its environment."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class InferSettings(BaseSettings):
    """How one replica of infer loads and runs models."""

    model_config = SettingsConfigDict(env_prefix="HALFSURE_INFER_", frozen=True)

    providers: list[str] = Field(default=["CPUExecutionProvider"], min_length=1)
    threads: int = Field(default=1, ge=1, description="of one model run; replicas are the way to use more cores")
    batch: int = Field(default=64, ge=1, description="samples in one model run at most")
    readers: int = Field(default=32, ge=1, description="blobs read at a time")
    kept: int = Field(default=2, ge=0, description="loaded versions kept for each project beside the active one")
    chunk: int = Field(default=128, ge=1, le=500, description="samples rescored in one transaction")
    deadline_seconds: float = Field(default=30.0, gt=0, description="for a prediction by REST")
    patience_seconds: float = Field(default=600.0, gt=0, description="that a rescoring waits for its model version")
    model_keys: Path | None = Field(default=None, description="PEM of the public keys that models must be signed by")
    baked: Path | None = Field(default=None, description="folder of a model that the image carries, with its manifest")
