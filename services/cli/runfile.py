"""dapr/dapr.yaml, the one list of services, as values."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError


class RunFileError(Exception):
    """The multi-app run file cannot be used."""


class _Camel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class App(_Camel):
    """One service and its sidecar, as `dapr run -f` would start them."""

    app_id: str = Field(alias="appID")
    app_dir_path: str = Field(default=".", alias="appDirPath")
    app_port: int = Field(alias="appPort")
    app_protocol: str = Field(default="http", alias="appProtocol")
    http_port: int = Field(alias="daprHTTPPort")
    grpc_port: int = Field(alias="daprGRPCPort")
    metrics_port: int = Field(alias="metricsPort")
    internal_port: int = Field(alias="daprInternalGRPCPort")
    command: tuple[str, ...]
    env: dict[str, str] = Field(default_factory=dict)


class Common(_Camel):
    """What all sidecars share."""

    resources_paths: tuple[str, ...] = Field(default=(), alias="resourcesPaths")
    config_file_path: str | None = Field(default=None, alias="configFilePath")
    placement_host_address: str = Field(default="127.0.0.1:8181", alias="placementHostAddress")
    scheduler_host_address: str = Field(default="127.0.0.1:8184", alias="schedulerHostAddress")
    log_level: str = Field(default="warn", alias="logLevel")
    enable_app_health_check: bool = Field(default=False, alias="enableAppHealthCheck")
    app_health_check_path: str = Field(default="/healthz", alias="appHealthCheckPath")
    app_health_probe_interval: int = Field(default=5, alias="appHealthProbeInterval")
    app_health_probe_timeout: int = Field(default=500, alias="appHealthProbeTimeout")
    app_health_threshold: int = Field(default=3, alias="appHealthThreshold")
    max_body_size: str | None = Field(default=None, alias="maxBodySize")
    env: dict[str, str] = Field(default_factory=dict)


class RunFile(_Camel):
    """The whole file; relative paths are meant from its folder."""

    path: Path
    version: int
    common: Common = Common()
    apps: tuple[App, ...] = ()

    def resolve(self, relative: str) -> Path:
        """A path of the file as an absolute one."""
        return (self.path.parent / relative).resolve()

    @property
    def placement_port(self) -> int:
        return _port(self.common.placement_host_address)

    @property
    def scheduler_port(self) -> int:
        return _port(self.common.scheduler_host_address)


def _port(address: str) -> int:
    return int(address.rsplit(":", 1)[1])


def read_run_file(path: Path) -> RunFile:
    """Read and check the file; RunFileError says what is wrong with it."""
    try:
        content: Any = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise RunFileError(
            f"{path} does not exist; run from a checkout of halfsure or set HALFSURE_ROOT to one"
        ) from None
    except yaml.YAMLError as error:
        raise RunFileError(f"{path} is not YAML: {error}") from None
    if not isinstance(content, dict):
        raise RunFileError(f"{path} is not a multi-app run file")
    try:
        return RunFile.model_validate({**content, "path": path.resolve()})
    except ValidationError as error:
        raise RunFileError(f"{path}: {error}") from None
