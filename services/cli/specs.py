"""The process specs of a stack: Redis, placement, scheduler, and each service with its sidecar."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from services.cli import authority
from services.cli import backing as servers
from services.cli.home import Home, Secrets
from services.cli.ports import PortPlan, port_key
from services.cli.process import ProcessSpec, Readiness
from services.cli.profiles import PORTS, PROFILES, SITE, Backing, Place, apps_of
from services.cli.redis import find_redis_server, redis_command, split_host
from services.cli.runfile import App, RunFile
from services.cli.settings import StackSettings
from services.cli.toolchain import find_sentry

BACKING_STAGE, CONTROL_STAGE, SIDECAR_STAGE, APP_STAGE = range(4)
_LOOPBACK = "127.0.0.1"
_APP_GRACEFUL_SECONDS = "3"


@dataclass(frozen=True)
class Plan:
    """All that is needed to write down the processes of one stack."""

    settings: StackSettings
    run_file: RunFile
    ports: PortPlan
    home: Home
    secrets: Secrets
    dapr_bin: Path

    @property
    def places(self) -> tuple[Place, ...]:
        return PROFILES[self.settings.profile]

    @cached_property
    def signature(self) -> str:
        """For the container of blobs, the same for all processes."""
        return servers.signature()

    @property
    def tls(self) -> tuple[str, ...]:
        """What makes placement and scheduler speak mTLS, if they shall."""
        address = f"{_LOOPBACK}:{self.ports['sentry']}" if self.settings.mtls else ""
        return authority.control_flags(self.authority, address) if self.settings.mtls else ()

    @property
    def authority(self) -> Path:
        """The folder of the certificate authority, for mTLS."""
        return self.home.path / "sentry"

    @property
    def redis_host(self) -> str:
        return self.settings.redis_host or f"{_LOOPBACK}:{self.ports['redis']}"


def sidecar_name(app_id: str) -> str:
    return f"{app_id}-sidecar"


def shared_environment(plan: Plan, place: Place) -> dict[str, str]:
    """What the sidecars and services of a place find in their environment, whoever starts them."""
    return {
        **_addresses(plan, place),
        **place.settings,
        "HALFSURE_PROFILE": plan.settings.profile,
        "HALFSURE_TOKENS": str(plan.home.tokens_file),
        "HALFSURE_SITEID": place.siteid or plan.settings.siteid,
        "APP_API_TOKEN": plan.secrets.app_api,
        "DAPR_API_TOKEN": plan.secrets.dapr_api,
        # Sidecars listen on loopback only, so that is the address they give each other.
        "DAPR_HOST_IP": _LOOPBACK,
    }


def _addresses(plan: Plan, place: Place) -> dict[str, str]:
    """Where this place's servers are: the only difference, besides its components, between profiles."""
    ports, found = plan.ports, {}
    for backing in place.backing:
        match backing:
            case "redis":
                found["HALFSURE_REDIS_HOST"] = plan.redis_host
                found["HALFSURE_BLOBS"] = (place.folder(plan.home.path) / "blobs").as_uri()
            case "servicebus":
                found["HALFSURE_SERVICEBUS_CONNECTION"] = servers.servicebus_connection(ports["servicebus"])
            case "postgres":
                found["HALFSURE_POSTGRES_CONNECTION"] = servers.postgres_connection(ports["postgres"])
            case "azurite":
                found["HALFSURE_BLOBS"] = f"{servers.container_url(ports['azurite'])}?{plan.signature}"
            case "mosquitto":
                found["HALFSURE_MQTT_URL"] = f"tcp://{_LOOPBACK}:{ports['mosquitto']}"
            case "wan":
                found["HALFSURE_SERVICEBUS_CONNECTION"] = servers.servicebus_connection(ports["wan_servicebus"])
                found["HALFSURE_CLOUD_BLOBS"] = f"{servers.container_url(ports['wan_blobs'])}?{plan.signature}"
    return found


def infrastructure(plan: Plan) -> list[ProcessSpec]:
    """The servers behind the profile (but no Redis if a running one is configured), placement and scheduler."""
    backing = [
        _BACKING[name](plan, place.folder(plan.home.path))
        for place in plan.places
        for name in place.backing
        if name != "redis" or not plan.settings.redis_host
    ]
    return [*backing, *([_sentry(plan)] if plan.settings.mtls else []), _placement(plan), _scheduler(plan)]


def external_redis(plan: Plan) -> tuple[str, int] | None:
    """Host and port of the Redis that is not ours to start, if one is configured."""
    return split_host(plan.settings.redis_host) if plan.settings.redis_host else None


def applications(plan: Plan) -> list[ProcessSpec]:
    """Each service's sidecar and the service itself."""
    apps = apps_of(plan.settings.profile, plan.run_file)
    return [spec for place, app in apps for spec in (_sidecar(plan, place, app), _service(plan, place, app))]


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    return {**os.environ, **extra}


def _server(
    plan: Plan, name: str, command: tuple[str, ...], folder: Path, ready: Readiness | None = None
) -> ProcessSpec:
    ports = {port: plan.ports[port] for port in PORTS[name]}
    port = next(iter(ports.values()))
    return ProcessSpec(
        name=name,
        command=command,
        stage=BACKING_STAGE,
        cwd=folder,
        env=_environment({}),
        readiness=ready or Readiness(tcp=(_LOOPBACK, port)),
        log=plan.home.logs / f"{name}.log",
        ports=ports,
        url=f"{_LOOPBACK}:{port}",
    )


def _redis(plan: Plan, folder: Path) -> ProcessSpec:
    port = plan.ports["redis"]
    command = redis_command(find_redis_server(), port, folder / "redis")
    return replace(
        _server(plan, "redis", command, folder, Readiness(redis=(_LOOPBACK, port))), url=f"redis://{_LOOPBACK}:{port}"
    )


def _servicebus(plan: Plan, folder: Path) -> ProcessSpec:
    servers.need_proton()
    subscriptions = plan.run_file.path.with_name("subscriptions.yaml")
    module = (sys.executable, "-m", "services.standins.servicebus")
    command = (*module, "--port", str(plan.ports["servicebus"]), "--subscriptions", str(subscriptions), "--site", SITE)
    return _server(plan, "servicebus", command, folder)


def _postgres(plan: Plan, folder: Path) -> ProcessSpec:
    return _server(
        plan, "postgres", servers.postgres_command(servers.find_postgres(), plan.ports["postgres"], folder), folder
    )


def _azurite(plan: Plan, folder: Path) -> ProcessSpec:
    port = plan.ports["azurite"]
    command = servers.azurite_command(servers.find_azurite(), port, folder)
    listing = f"{servers.container_url(port)}?restype=container&comp=list&maxresults=1&{plan.signature}"
    return _server(plan, "azurite", command, folder, Readiness(url=listing))


def _mosquitto(plan: Plan, folder: Path) -> ProcessSpec:
    command = servers.mosquitto_command(servers.find_mosquitto(), plan.ports["mosquitto"], folder)
    return _server(plan, "mosquitto", command, folder)


def _wan(plan: Plan, folder: Path) -> ProcessSpec:
    pairs = (("wan_servicebus", "servicebus"), ("wan_blobs", "azurite"))
    forward = [part for near, far in pairs for part in ("--forward", f"{plan.ports[near]}:{plan.ports[far]}")]
    # Ready without being asked: while it is cut it answers nobody, and that is no reason to start it again.
    return _server(plan, "wan", (sys.executable, "-m", "services.standins.wan", *forward), folder, Readiness())


_BACKING: Mapping[Backing, Callable[[Plan, Path], ProcessSpec]] = {
    "redis": _redis,
    "servicebus": _servicebus,
    "postgres": _postgres,
    "azurite": _azurite,
    "mosquitto": _mosquitto,
    "wan": _wan,
}


def _control(plan: Plan, name: str, flags: tuple[str, ...]) -> ProcessSpec:
    names = [port for port in plan.ports.numbers if port == name or port.startswith(f"{name}_")]
    health = plan.ports[f"{name}_health"]
    return ProcessSpec(
        name=name,
        command=(
            str(plan.dapr_bin / name),
            *("--port", str(plan.ports[name]), "--listen-address", _LOOPBACK),
            *("--healthz-port", str(health), "--healthz-listen-address", _LOOPBACK),
            *("--metrics-port", str(plan.ports[f"{name}_metrics"]), "--metrics-listen-address", _LOOPBACK),
            *("--log-level", plan.run_file.common.log_level),
            *flags,
        ),
        stage=CONTROL_STAGE,
        cwd=plan.home.path,
        env=_environment({}),
        readiness=Readiness(url=f"http://{_LOOPBACK}:{health}/healthz"),
        log=plan.home.logs / f"{name}.log",
        ports={port: plan.ports[port] for port in names},
        url=f"{_LOOPBACK}:{plan.ports[name]}",
    )


def _sentry(plan: Plan) -> ProcessSpec:
    """Signs the certificates of all others, so it is there before them."""
    authority.anchors(plan.authority)
    # It wants a configuration, and finds in this one nothing that it has not by default.
    configuration = plan.run_file.resolve(plan.run_file.common.config_file_path or "config.yaml")
    flags = ("--issuer-credentials", str(plan.authority), "--config", str(configuration))
    spec = _control(plan, "sentry", flags)
    return replace(spec, stage=BACKING_STAGE, command=(str(find_sentry(plan.dapr_bin)), *spec.command[1:]))


def _placement(plan: Plan) -> ProcessSpec:
    # A single server elects itself, but still listens for peers, by default on 8201 whatever its other ports are.
    raft = f"dapr-placement-0={_LOOPBACK}:{plan.ports['placement_raft']}"
    return _control(plan, "placement", ("--initial-cluster", raft, *plan.tls))


def _scheduler(plan: Plan) -> ProcessSpec:
    peer = plan.ports["scheduler_etcd_peer"]
    flags = (
        *("--etcd-data-dir", str(plan.home.path / "scheduler")),
        *("--etcd-client-port", str(plan.ports["scheduler_etcd_client"])),
        *("--etcd-initial-cluster", f"dapr-scheduler-server-0=http://localhost:{peer}"),
        *("--override-broadcast-host-port", f"{_LOOPBACK}:{plan.ports['scheduler']}"),
        *plan.tls,
        *(("--identity-directory-write", str(plan.authority / "scheduler")) if plan.settings.mtls else ()),
    )
    return _control(plan, "scheduler", flags)


def _sidecar(plan: Plan, place: Place, app: App) -> ProcessSpec:
    key, common = port_key(app.app_id), plan.run_file.common
    ports = {f"{key}_{kind}": plan.ports[f"{key}_{kind}"] for kind in ("http", "grpc", "metrics", "internal")}
    base = f"http://{_LOOPBACK}:{plan.ports[f'{key}_http']}"
    trust = {"DAPR_TRUST_ANCHORS": authority.anchors(plan.authority)} if plan.settings.mtls else {}
    return ProcessSpec(
        name=sidecar_name(app.app_id),
        command=(str(plan.dapr_bin / "daprd"), *_sidecar_flags(plan, place, app)),
        stage=SIDECAR_STAGE,
        # Name resolution keeps its file in the folder the sidecars run in.
        cwd=place.folder(plan.home.path),
        env=_environment(
            {**common.env, **app.env, **shared_environment(plan, place), **_collector(os.environ), **trust}
        ),
        readiness=Readiness(url=f"{base}/v1.0/healthz/outbound", headers={"dapr-api-token": plan.secrets.dapr_api}),
        log=plan.home.logs / f"{sidecar_name(app.app_id)}.log",
        ports=ports,
        url=base,
    )


def _sidecar_flags(plan: Plan, place: Place, app: App) -> tuple[str, ...]:
    key, common, ports = port_key(app.app_id), plan.run_file.common, plan.ports
    flags = [
        *("--app-id", app.app_id, "--app-protocol", app.app_protocol),
        *("--app-port", str(ports[key]), "--app-channel-address", _LOOPBACK),
        *("--dapr-listen-addresses", _LOOPBACK, "--dapr-http-port", str(ports[f"{key}_http"])),
        *("--dapr-grpc-port", str(ports[f"{key}_grpc"])),
        *("--dapr-internal-grpc-port", str(ports[f"{key}_internal"])),
        *("--dapr-internal-grpc-listen-address", _LOOPBACK),
        *("--metrics-port", str(ports[f"{key}_metrics"]), "--metrics-listen-address", _LOOPBACK),
        *("--log-level", common.log_level),
        *("--dapr-graceful-shutdown-seconds", _APP_GRACEFUL_SECONDS),
    ]
    if place.control:
        flags += ["--placement-host-address", f"{_LOOPBACK}:{ports['placement']}"]
        flags += ["--scheduler-host-address", f"{_LOOPBACK}:{ports['scheduler']}"]
    for folder in common.resources_paths:
        flags += ["--resources-path", str(_of_place(plan.run_file.resolve(folder), place))]
    if common.config_file_path:
        configuration = plan.run_file.resolve(common.config_file_path)
        flags += ["--config", str(configuration)]
        if plan.settings.mtls:
            flags += ["--config", str(configuration.with_name("access.yaml")), "--enable-mtls"]
            flags += ["--sentry-address", f"{_LOOPBACK}:{ports['sentry']}"]
    if common.max_body_size:
        flags += ["--max-body-size", common.max_body_size]
    if common.enable_app_health_check:
        flags += [
            "--enable-app-health-check",
            *("--app-health-check-path", common.app_health_check_path),
            *("--app-health-probe-interval", str(common.app_health_probe_interval)),
            *("--app-health-probe-timeout", str(common.app_health_probe_timeout)),
            *("--app-health-threshold", str(common.app_health_threshold)),
        ]
    return tuple(flags)


def _collector(environment: Mapping[str, str]) -> dict[str, str]:
    """What a sidecar needs besides the endpoint to speak with the same collector in the same way as a service does."""
    endpoint = environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environment.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if not endpoint:
        return {}
    # daprd takes host and port of either; its exporter takes the path of the first as it is, be it none, and adds
    # /v1/traces to that of the second.
    address = urlsplit(endpoint)
    return {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"{address.scheme}://{address.netloc}",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_INSECURE": str(address.scheme == "http").lower(),
    }


def _of_place(resources: Path, place: Place) -> Path:
    """The run file names the local profile's components; another place has its own beside them."""
    return resources.with_name(place.components) if resources.parent.name == "components" else resources


def _model_keys(plan: Plan, app: App) -> dict[str, str]:
    """The registry signs, infer verifies; in a folder that has no keys neither does."""
    private, public = plan.home.model_keys
    if not public.exists():
        return {}
    given = {
        "retrain-trigger": {"HALFSURE_RETRAIN_TRIGGER_MODEL_KEY": str(private)},
        "infer": {"HALFSURE_INFER_MODEL_KEYS": str(public)},
    }
    return given.get(app.app_id, {})


def _service(plan: Plan, place: Place, app: App) -> ProcessSpec:
    key, port = port_key(app.app_id), plan.ports[port_key(app.app_id)]
    http, grpc = plan.ports[f"{key}_http"], plan.ports[f"{key}_grpc"]
    scratch = plan.home.path / "state" / app.app_id
    scratch.mkdir(parents=True, exist_ok=True)
    # `python` on PATH need not be the one that has the services installed.
    command = (sys.executable, *app.command[1:]) if app.command[0] == "python" else app.command
    return ProcessSpec(
        name=app.app_id,
        command=command,
        stage=APP_STAGE,
        cwd=plan.run_file.resolve(app.app_dir_path),
        env=_environment(
            {
                **plan.run_file.common.env,
                **app.env,
                **shared_environment(plan, place),
                **_model_keys(plan, app),
                "APP_ID": app.app_id,
                "APP_PORT": str(port),
                "DAPR_HTTP_PORT": str(http),
                "DAPR_GRPC_PORT": str(grpc),
                "DAPR_HTTP_ENDPOINT": f"http://{_LOOPBACK}:{http}",
                "DAPR_GRPC_ENDPOINT": f"{_LOOPBACK}:{grpc}",
                "HALFSURE_STATE_DIR": str(scratch),
                # One replica of each service here, so a restarted one finds its own outbox at once.
                "HALFSURE_REPLICA": "0",
            }
        ),
        readiness=Readiness(url=f"http://{_LOOPBACK}:{port}/readyz"),
        log=plan.home.logs / f"{app.app_id}.log",
        ports={key: port},
        url=f"http://{_LOOPBACK}:{port}",
    )
