"""What a stack is told from outside: its folder, its ports, its Redis."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.cli.profiles import Profile


def default_root() -> Path:
    """The folder that holds `dapr/` and `components/`: the checkout this package was installed from."""
    return Path(__file__).resolve().parents[2]


class StackSettings(BaseSettings):
    """Settings of one stack, from the environment (prefix `HALFSURE_`) or from arguments.

    `ports` overrides single ports by name, absolutely: `HALFSURE_PORTS__REDIS=9379`,
    `HALFSURE_PORTS__INGEST_HTTP=9201`. `port_offset` shifts all others.
    """

    model_config = SettingsConfigDict(env_prefix="HALFSURE_", env_nested_delimiter="__", frozen=True, extra="ignore")

    profile: Profile = "local"
    home: Path = Path(".halfsure")
    root: Path = Field(default_factory=default_root)
    run_file: Path | None = Field(default=None, description="another multi-app run file than dapr/dapr.yaml")
    port_offset: int = Field(default=0, ge=-8000, le=50_000)
    ports: dict[str, int] = Field(default_factory=dict)
    redis_host: str | None = Field(default=None, description="host:port of a Redis that is already running")
    dapr_bin: Path | None = Field(default=None, description="folder of daprd, placement and scheduler")
    siteid: str = "local"
    mtls: bool = Field(default=False, description="sidecars speak mTLS, and obey dapr/access.yaml")
    start_timeout: float = Field(default=120.0, gt=0, description="seconds a process may take to be ready")
    hung_after: float = Field(default=30.0, gt=0, description="seconds of silence after which a process is restarted")
    stop_grace: float = Field(default=10.0, gt=0, description="seconds between TERM and KILL")

    @property
    def run_file_path(self) -> Path:
        """The multi-app run file in force."""
        return (self.run_file or self.root / "dapr" / "dapr.yaml").resolve()

    @property
    def home_path(self) -> Path:
        """The state folder, absolute."""
        return self.home.expanduser().resolve()
