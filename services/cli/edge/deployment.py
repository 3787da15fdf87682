"""The deployment manifest of an IoT Edge device: a module for each service and for its sidecar, Redis and MQTT.

Schema 1.1 of $edgeAgent and $edgeHub, runtime 1.6 LTS. What differs from device to device, and every secret, is a
`${PLACEHOLDER}`, filled when the manifest is deployed.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.cli.edge.resources import wanted
from services.cli.profiles import PROFILES, Place, apps_of
from services.cli.runfile import App, Common, RunFile
from services.runtime.signing import KEY_SETTINGS

Object = dict[str, Any]

RUNTIME = "1.6"
DAPRD, REDIS, MOSQUITTO = "daprio/daprd:1.18.0", "redis:7.4", "eclipse-mosquitto:2.0.22"
HTTP, GRPC, INTERNAL, APP = 3500, 50001, 50002, 8080  # the same in every container
HOST_MQTT = 1883
OWN_MQTT = 1884  # without a password, and not published (deploy/iotedge/mosquitto.conf)
FOURTEEN_DAYS = 14 * 86_400
# On the device: what the modules read, and what they keep.
SETTINGS, KEPT = "/etc/halfsure", "/var/lib/halfsure"
# Who the images run as, so that the folders below KEPT can be theirs.
USERS = {"service": 10001, "redis": 999, "mosquitto": 1883, "edgehub": 13623}
# Who uplink is to Azure: certificate and key in one file, for its sidecar (Service Bus) and for itself (Blob Storage).
CERTIFICATE = f"{SETTINGS}/identity/uplink.pem"
# Whose signatures infer believes; public, and no secret.
LOADER, MODEL_KEYS = "infer", f"{SETTINGS}/model-keys.pem"
MODULE_TWIN, STATUS_OUTPUT = "uplink", "model-status"
_MIB = 1 << 20


class Unfilled(Exception):
    """A placeholder of the manifest has no value."""


@dataclass(frozen=True)
class Images:
    """Where the services' images come from."""

    registry: str = "${REGISTRY}"
    tag: str = "${TAG}"

    def of(self, app_id: str) -> str:
        return f"{self.registry}/halfsure/{app_id}:{self.tag}"


def sidecar(app_id: str) -> str:
    """The module that is this service's sidecar."""
    return f"daprd-{app_id}"


def device() -> Place:
    """The place of the iotedge profile that is the device."""
    return next(place for place in PROFILES["iotedge"] if place.components == "iotedge")


def device_apps(run_file: RunFile) -> list[App]:
    """The services that run on the device."""
    return [app for place, app in apps_of("iotedge", run_file) if place == device()]


def manifest(run_file: RunFile, components: Sequence[Mapping[str, Any]], images: Images | None = None) -> Object:
    """The whole manifest; `components` are those of components/iotedge."""
    modules: Object = {"redis": _redis(), "mosquitto": _mosquitto()}
    for app in device_apps(run_file):
        modules[sidecar(app.app_id)] = _sidecar(app, run_file.common, components)
        modules[app.app_id] = _service(app, images or Images())
    return {
        "$schema-template": "4.0.0",
        "modulesContent": {
            "$edgeAgent": {"properties.desired": _agent(modules)},
            "$edgeHub": {"properties.desired": _hub()},
        },
    }


def rendered(document: Mapping[str, Any]) -> str:
    """As it is kept in a file."""
    return json.dumps(document, indent=2) + "\n"


def fill(text: str, values: Mapping[str, str]) -> str:
    """The manifest with every placeholder's value in it. Raises Unfilled naming those without."""
    missing = sorted(set(re.findall(r"\$\{(\w+)\}", text)) - values.keys())
    if missing:
        raise Unfilled(f"the environment must say what these are, empty where not used: {', '.join(missing)}")
    return re.sub(r"\$\{(\w+)\}", lambda found: json.dumps(values[found[1]])[1:-1], text)


def service_environment(app_id: str) -> dict[str, str]:
    """What a service finds in its environment, beside what its image sets."""
    place, side = device(), sidecar(app_id)
    own = {
        "HALFSURE_CLOUD_BLOBS": "${HALFSURE_CLOUD_BLOBS}",
        "HALFSURE_UPLINK_TWIN": "true",
        # As azure-identity's EnvironmentCredential reads them.
        "AZURE_TENANT_ID": "${HALFSURE_ENTRA_TENANT}",
        "AZURE_CLIENT_ID": "${HALFSURE_ENTRA_CLIENT}",
        "AZURE_CLIENT_CERTIFICATE_PATH": CERTIFICATE,
    }
    return {
        "APP_ID": app_id,
        "APP_PORT": str(APP),
        "DAPR_HTTP_ENDPOINT": f"http://{side}:{HTTP}",
        # The SDK's client waits in vain for a sidecar on loopback unless it knows both.
        "DAPR_GRPC_ENDPOINT": f"{side}:{GRPC}",
        "DAPR_API_TOKEN": "${DAPR_API_TOKEN}",
        "APP_API_TOKEN": "${APP_API_TOKEN}",
        "HALFSURE_PROFILE": "iotedge",
        "HALFSURE_SITEID": "${HALFSURE_SITEID}",
        "HALFSURE_APP_HOST": "0.0.0.0",
        "HALFSURE_BLOBS": f"file://{KEPT}/blobs",
        "HALFSURE_STATE_DIR": f"{KEPT}/state",
        "HALFSURE_TOKENS": f"{SETTINGS}/tokens.json",
        "HALFSURE_REPLICA": "0",
        **place.settings,
        **(own if app_id == MODULE_TWIN else {}),
        **({KEY_SETTINGS[LOADER]: MODEL_KEYS} if app_id == LOADER else {}),
    }


def sidecar_environment(components: Sequence[Mapping[str, Any]], app_id: str) -> dict[str, str]:
    """What a sidecar finds: its tokens, and what its components refer to; of the ways to the cloud that by identity."""
    fixed = {
        "HALFSURE_REDIS_HOST": "redis:6379",
        "HALFSURE_MQTT_URL": f"tcp://mosquitto:{OWN_MQTT}",
        "HALFSURE_ENTRA_CERTIFICATE": CERTIFICATE,
    }
    names = [name for name in wanted(components, app_id) if name != "HALFSURE_SERVICEBUS_CONNECTION"]
    refers = {name: fixed.get(name, f"${{{name}}}") for name in names}
    return {"DAPR_API_TOKEN": "${DAPR_API_TOKEN}", "APP_API_TOKEN": "${APP_API_TOKEN}", **refers}


def _service(app: App, images: Images) -> Object:
    options = {
        "User": f"{USERS['service']}:{USERS['service']}",
        # In the image too; said here so that the manifest says all that a module is started with.
        "Cmd": list(app.command),
        "ExposedPorts": {f"{APP}/tcp": {}},
        "HostConfig": {
            "Binds": [
                f"{SETTINGS}/tokens.json:{SETTINGS}/tokens.json:ro",
                f"{KEPT}/blobs:{KEPT}/blobs",
                f"{KEPT}/{app.app_id}:{KEPT}/state",
                *_identity(app),
                *([f"{MODEL_KEYS}:{MODEL_KEYS}:ro"] if app.app_id == LOADER else []),
            ],
            "PortBindings": {f"{APP}/tcp": [{"HostPort": str(app.app_port)}]},
            **_confined(768),
        },
    }
    return _module(images.of(app.app_id), options, 2, service_environment(app.app_id))


def _sidecar(app: App, common: Common, components: Sequence[Mapping[str, Any]]) -> Object:
    # The image has no entry point, and runs as 65532.
    options = {
        "Cmd": ["/daprd", *_sidecar_flags(app, common)],
        "HostConfig": {
            "Binds": [
                *(f"{SETTINGS}/{name}:{SETTINGS}/{name}:ro" for name in ("components", "dapr", "config.yaml")),
                *_identity(app),
            ],
            **_confined(256),
        },
    }
    return _module(DAPRD, options, 1, sidecar_environment(components, app.app_id))


def _identity(app: App) -> list[str]:
    return [f"{CERTIFICATE}:{CERTIFICATE}:ro"] if app.app_id == MODULE_TWIN else []


def _sidecar_flags(app: App, common: Common) -> list[str]:
    flags = {
        "app-id": app.app_id,
        "app-port": APP,
        "app-protocol": app.app_protocol,
        "app-channel-address": app.app_id,
        "dapr-http-port": HTTP,
        "dapr-grpc-port": GRPC,
        "dapr-internal-grpc-port": INTERNAL,
        "config": f"{SETTINGS}/config.yaml",
        "log-level": common.log_level,
        "max-body-size": common.max_body_size or "4Mi",
        "app-health-check-path": common.app_health_check_path,
        "app-health-probe-interval": common.app_health_probe_interval,
        "app-health-probe-timeout": common.app_health_probe_timeout,
        "app-health-threshold": common.app_health_threshold,
        "dapr-graceful-shutdown-seconds": 3,
    }
    said = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    folders = [part for name in ("components", "dapr") for part in ("--resources-path", f"{SETTINGS}/{name}")]
    return [*said, *folders, *(["--enable-app-health-check"] if common.enable_app_health_check else [])]


def _redis() -> Object:
    options = {
        "User": f"{USERS['redis']}:{USERS['redis']}",
        # Nothing is ever evicted, and all but the last second is on disk.
        "Cmd": [
            *("redis-server", "--dir", "/data", "--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
            *("--maxmemory", "1gb", "--maxmemory-policy", "noeviction", "--protected-mode", "no"),
        ],
        "HostConfig": {"Binds": [f"{KEPT}/redis:/data"], **_confined(1536)},
    }
    return _module(REDIS, options, 0, {})


def _mosquitto() -> Object:
    options = {
        "User": f"{USERS['mosquitto']}:{USERS['mosquitto']}",
        "Cmd": ["mosquitto", "-c", f"{SETTINGS}/mosquitto.conf"],
        "ExposedPorts": {"1883/tcp": {}},
        "HostConfig": {
            "Binds": [
                f"{SETTINGS}/mosquitto.conf:{SETTINGS}/mosquitto.conf:ro",
                f"{SETTINGS}/mosquitto.passwords:{SETTINGS}/mosquitto.passwords:ro",
                f"{KEPT}/mosquitto:/mosquitto/data",
            ],
            "PortBindings": {"1883/tcp": [{"HostPort": str(HOST_MQTT)}]},
            **_confined(128),
        },
    }
    return _module(MOSQUITTO, options, 0, {})


def _confined(megabytes: int) -> Object:
    """No privileges, no capabilities, nothing to write to but what is bound, bounded memory and logs."""
    return {
        "ReadonlyRootfs": True,
        "Tmpfs": {"/tmp": "size=64m"},
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges:true"],
        "Memory": megabytes * _MIB,
        "PidsLimit": 256,
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}},
    }


def _module(image: str, options: Object, order: int, environment: Mapping[str, str]) -> Object:
    return {
        "version": "1.0",
        "type": "docker",
        "status": "running",
        "restartPolicy": "always",
        "startupOrder": order,
        "imagePullPolicy": "on-create",
        "settings": {"image": image, "createOptions": _text(options)},
        **({"env": {name: {"value": value} for name, value in environment.items()}} if environment else {}),
    }


def _text(options: Mapping[str, Any]) -> str:
    return json.dumps(options, separators=(",", ":"))


def _agent(modules: Object) -> Object:
    ports = {f"{port}/tcp": [{"HostPort": str(port)}] for port in (443, 5671, 8883)}
    hub = {"HostConfig": {"Binds": [f"{KEPT}/edgehub:/iotedge/storage"], "PortBindings": ports}}
    image = "mcr.microsoft.com/azureiotedge-{}:" + RUNTIME
    credentials = {"username": "${REGISTRY_USER}", "password": "${REGISTRY_PASSWORD}", "address": "${REGISTRY}"}
    return {
        "schemaVersion": "1.1",
        "runtime": {
            "type": "docker",
            "settings": {
                "minDockerVersion": "v1.25",
                "loggingOptions": "",
                "registryCredentials": {"services": credentials},
            },
        },
        "systemModules": {
            "edgeAgent": {"type": "docker", "settings": {"image": image.format("agent"), "createOptions": "{}"}},
            "edgeHub": {
                "type": "docker",
                "status": "running",
                "restartPolicy": "always",
                "startupOrder": 0,
                "settings": {"image": image.format("hub"), "createOptions": _text(hub)},
                # What waits for IoT Hub is on the device's disk.
                "env": {"storageFolder": {"value": "/iotedge/storage"}},
            },
        },
        "modules": modules,
    }


def _hub() -> Object:
    """What uplink says to IoT Hub, kept for fourteen days offline; the default is two hours."""
    route = f"FROM /messages/modules/{MODULE_TWIN}/outputs/{STATUS_OUTPUT} INTO $upstream"
    return {
        "schemaVersion": "1.1",
        "routes": {STATUS_OUTPUT: {"route": route, "priority": 1, "timeToLiveSecs": FOURTEEN_DAYS}},
        "storeAndForwardConfiguration": {"timeToLiveSecs": FOURTEEN_DAYS},
    }
