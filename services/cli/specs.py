"""The process specs of each service and its sidecar."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from services.cli import authority
from services.cli import backing as servers
from services.cli.plan import APP_STAGE, LOOPBACK, SIDECAR_STAGE, Plan, environment
from services.cli.ports import port_key
from services.cli.process import ProcessSpec, Readiness
from services.cli.profiles import Place, apps_of
from services.cli.runfile import App
from services.runtime.signing import KEY_SETTINGS

_APP_GRACEFUL_SECONDS = "3"


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
        "DAPR_HOST_IP": LOOPBACK,
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
                found["HALFSURE_MQTT_URL"] = f"tcp://{LOOPBACK}:{ports['mosquitto']}"
            case "wan":
                found["HALFSURE_SERVICEBUS_CONNECTION"] = servers.servicebus_connection(ports["wan_servicebus"])
                found["HALFSURE_CLOUD_BLOBS"] = f"{servers.container_url(ports['wan_blobs'])}?{plan.signature}"
    return found


def applications(plan: Plan) -> list[ProcessSpec]:
    """Each service's sidecar and the service itself."""
    apps = apps_of(plan.settings.profile, plan.run_file)
    return [spec for place, app in apps for spec in (_sidecar(plan, place, app), _service(plan, place, app))]


def _sidecar(plan: Plan, place: Place, app: App) -> ProcessSpec:
    key, common = port_key(app.app_id), plan.run_file.common
    ports = {f"{key}_{kind}": plan.ports[f"{key}_{kind}"] for kind in ("http", "grpc", "metrics", "internal")}
    base = f"http://{LOOPBACK}:{plan.ports[f'{key}_http']}"
    trust = {"DAPR_TRUST_ANCHORS": authority.anchors(plan.authority)} if plan.settings.mtls else {}
    return ProcessSpec(
        name=sidecar_name(app.app_id),
        command=(str(plan.dapr_bin / "daprd"), *_sidecar_flags(plan, place, app)),
        stage=SIDECAR_STAGE,
        # Name resolution keeps its file in the folder the sidecars run in.
        cwd=place.folder(plan.home.path),
        env=environment(
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
        *("--app-port", str(ports[key]), "--app-channel-address", LOOPBACK),
        *("--dapr-listen-addresses", LOOPBACK, "--dapr-http-port", str(ports[f"{key}_http"])),
        *("--dapr-grpc-port", str(ports[f"{key}_grpc"])),
        *("--dapr-internal-grpc-port", str(ports[f"{key}_internal"])),
        *("--dapr-internal-grpc-listen-address", LOOPBACK),
        *("--metrics-port", str(ports[f"{key}_metrics"]), "--metrics-listen-address", LOOPBACK),
        *("--log-level", common.log_level),
        *("--dapr-graceful-shutdown-seconds", _APP_GRACEFUL_SECONDS),
    ]
    if place.control:
        flags += ["--placement-host-address", f"{LOOPBACK}:{ports['placement']}"]
        flags += ["--scheduler-host-address", f"{LOOPBACK}:{ports['scheduler']}"]
    for folder in common.resources_paths:
        flags += ["--resources-path", str(_of_place(plan.run_file.resolve(folder), place))]
    if common.config_file_path:
        configuration = plan.run_file.resolve(common.config_file_path)
        flags += ["--config", str(configuration)]
        if plan.settings.mtls:
            flags += ["--config", str(configuration.with_name("access.yaml")), "--enable-mtls"]
            flags += ["--sentry-address", f"{LOOPBACK}:{ports['sentry']}"]
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
    files = {"retrain-trigger": private, "infer": public}
    return {KEY_SETTINGS[app.app_id]: str(files[app.app_id])} if app.app_id in files else {}


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
        env=environment(
            {
                **plan.run_file.common.env,
                **app.env,
                **shared_environment(plan, place),
                **_model_keys(plan, app),
                "APP_ID": app.app_id,
                "APP_PORT": str(port),
                "DAPR_HTTP_PORT": str(http),
                "DAPR_GRPC_PORT": str(grpc),
                "DAPR_HTTP_ENDPOINT": f"http://{LOOPBACK}:{http}",
                "DAPR_GRPC_ENDPOINT": f"{LOOPBACK}:{grpc}",
                "HALFSURE_STATE_DIR": str(scratch),
                # One replica of each service here, so a restarted one finds its own outbox at once.
                "HALFSURE_REPLICA": "0",
            }
        ),
        readiness=Readiness(url=f"http://{LOOPBACK}:{port}/readyz"),
        log=plan.home.logs / f"{app.app_id}.log",
        ports={key: port},
        url=f"http://{LOOPBACK}:{port}",
    )
