"""What infer reads from its environment."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Server(BaseModel):
    """Where a model that somebody else runs is asked. The token is read at every request, so that it may change."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(pattern=r"^https?://[^@\s]+$")
    token_file: Path | None = None
    timeout_seconds: float = Field(default=4.0, gt=0, le=15, description="for one answer")
    tries: int = Field(default=3, ge=1, le=10)
    within_seconds: float = Field(default=8.0, gt=0, le=15, description="for a batch: less than a handler may take")
    batch: int = Field(default=32, ge=1, le=256, description="samples in one request at most")


class InferSettings(BaseSettings):
    """How one replica of infer loads and runs models."""

    model_config = SettingsConfigDict(env_prefix="HALFSURE_INFER_", frozen=True)

    providers: list[str] = Field(default=["CPUExecutionProvider"], min_length=1)
    threads: int = Field(default=1, ge=1, description="of one model run; replicas are the way to use more cores")
    batch: int = Field(default=64, ge=1, description="samples in one model run at most")
    kept: int = Field(default=2, ge=0, description="loaded versions kept for each project beside the active one")
    chunk: int = Field(default=128, ge=1, le=500, description="samples rescored in one transaction")
    deadline_seconds: float = Field(default=30.0, gt=0, description="for a prediction by REST")
    budget_seconds: float | None = Field(
        default=None, gt=0, description="refuse predictions by REST that would take longer, for want of capacity"
    )
    patience_seconds: float = Field(default=600.0, gt=0, description="that a rescoring waits for its model version")
    model_keys: Path | None = Field(default=None, description="PEM of the public keys that models must be signed by")
    servers: dict[str, Server] = Field(default={}, description="name -> the server of models that are scored over HTTP")
    baked: Path | None = Field(default=None, description="folder of a model that the image carries, with its manifest")
