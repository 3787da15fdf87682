"""What a service reads from its environment: names of components and folders, never hosts or brokers."""

from pathlib import Path

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class RuntimeSettings(BaseSettings):
    """The settings that all services share."""

    model_config = SettingsConfigDict(env_prefix="HALFSURE_", frozen=True, populate_by_name=True)

    app_port: int = Field(default=8080, validation_alias=AliasChoices("APP_PORT", "HALFSURE_APP_PORT"))
    app_host: str = "127.0.0.1"
    sidecar_token: str | None = Field(default=None, validation_alias=AliasChoices("APP_API_TOKEN", "sidecar_token"))
    tokens: Path | None = Field(default=None, description="tokens.json: the hashes of the tokens that may call")
    rate: float = Field(default=0, ge=0, description="requests a second that one token may make; 0: any number")
    oidc_issuer: str | None = Field(default=None, description="the identity provider whose tokens are taken too")
    oidc_audience: str = Field(default="halfsure", description="whom its tokens must be made for")
    oidc_jwks: str | None = Field(default=None, description="where its keys are; else its discovery document says it")
    oidc_role_claim: str = "halfsure_role"
    oidc_projects_claim: str = "halfsure_projects"
    blobs: str = "file:///tmp/halfsure/blobs"
    state_dir: Path = Path(".halfsure")
    siteid: str = "local"
    deviceid: str | None = Field(
        default=None,
        validation_alias=AliasChoices("HALFSURE_DEVICEID", "IOTEDGE_DEVICEID", "deviceid"),
        description="the device that this service runs on: what it says is of this device, unless a sample has its own",
    )
    statestore: str = "statestore"
    pubsub: str = "pubsub"
    projects_owner: str = Field(default="retrain-trigger", description="app id that is asked about unknown projects")
    replica: int | None = Field(default=None, description="outbox slot, where whoever starts replicas numbers them")
    max_body: int = Field(default=32 << 20, description="bytes of a request body", gt=0)
    heartbeat_seconds: float = Field(default=0, ge=0, description="between two ServiceHeartbeat events; 0: none")
    log_level: str = "info"
