"""Whether a deployment manifest is in order: a sentence for each thing that is not, before any device sees it."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match

from services.cli.edge.deployment import (
    CERTIFICATE,
    GRPC,
    HTTP,
    RUNTIME,
    SETTINGS,
    device_apps,
    service_environment,
    sidecar,
)
from services.cli.edge.resources import wanted
from services.cli.edge.schema import CREATE_OPTIONS, MANIFEST, ROUTE
from services.cli.manifests import ALTERNATIVES
from services.cli.runfile import RunFile

Object = Mapping[str, Any]
MOST_MODULES, MOST_TWIN, MOST_OPTIONS = 50, 32 << 10, 4096
PLACEHOLDER = re.compile(r"^\$\{[A-Z][A-Z0-9_]*\}$")
SECRET_NAMES = re.compile(r"(^|_)(TOKEN|PASSWORD|SECRET|CONNECTION|KEY)$", re.I)
# What daprd takes from its environment alone: keys to this one device's sidecars, on its network only.
BY_ENVIRONMENT_ONLY = ("DAPR_API_TOKEN", "APP_API_TOKEN")
SECRET_TEXTS = re.compile(r"SharedAccessKey=|AccountKey=|[?&]sig=|://[^/@\s]*:[^/@\s]+@|-----BEGIN|PRIVATE KEY")


@dataclass(frozen=True)
class Wanted:
    """What the device must run, as the run file and the component files say."""

    run_file: RunFile
    components: Sequence[Mapping[str, Any]]


def faults(document: Any, needs: Wanted) -> list[str]:
    """What is wrong, a sentence each; empty when nothing is."""
    if shape := list(_shape(document, MANIFEST, "the manifest")):
        return shape
    deployment = _Deployment(document, needs)
    found = [fault for name in deployment.options for fault in _options(deployment, name)]
    return found or [fault for rule in RULES for fault in rule(deployment)]


def _shape(value: Any, schema: Object, what: str) -> Iterator[str]:
    error = best_match(Draft202012Validator(dict(schema)).iter_errors(value))
    if isinstance(error, ValidationError):
        where = ".".join(map(str, error.absolute_path))
        yield f"{what}{': ' if where else ''}{where}: {error.message[:300]}"


class _Deployment:
    """A manifest of the right form, by its parts."""

    def __init__(self, document: Object, needs: Wanted) -> None:
        self.twins: Object = document["modulesContent"]
        self.agent: Object = self.twins["$edgeAgent"]["properties.desired"]
        self.hub: Object = self.twins["$edgeHub"]["properties.desired"]
        self.modules: Mapping[str, Object] = self.agent["modules"]
        self.all: Mapping[str, Object] = {**self.agent["systemModules"], **self.modules}
        self.options = {name: module["settings"].get("createOptions") or "{}" for name, module in self.all.items()}
        self.needs = needs

    def env(self, name: str) -> dict[str, str]:
        return {key: given["value"] for key, given in self.all[name].get("env", {}).items()}

    def created(self, name: str) -> Object:
        return json.loads(self.options[name])

    def host(self, name: str) -> Object:
        return self.created(name).get("HostConfig", {})


def _options(deployment: _Deployment, name: str) -> Iterator[str]:
    """createOptions is text to IoT Hub: only the device would say that Docker does not take it."""
    text = deployment.options[name]
    if len(text.encode()) > MOST_OPTIONS:
        yield f"{name}: createOptions has {len(text.encode())} bytes, and IoT Hub takes {MOST_OPTIONS}"
        return
    try:
        options = json.loads(text)
    except ValueError as error:
        yield f"{name}: createOptions is not JSON: {error}"
        return
    yield from _shape(options, CREATE_OPTIONS, f"{name}: createOptions")


def _sizes(deployment: _Deployment) -> Iterator[str]:
    if len(deployment.modules) > MOST_MODULES:
        yield f"{len(deployment.modules)} modules, and a device takes {MOST_MODULES}"
    for name, twin in deployment.twins.items():
        size = len(json.dumps(twin["properties.desired"], separators=(",", ":")).encode())
        if size > MOST_TWIN:
            yield f"{name}: its desired properties have {size} bytes, and a twin takes {MOST_TWIN}"


def _runtime(deployment: _Deployment) -> Iterator[str]:
    for name in ("edgeAgent", "edgeHub"):
        image = deployment.all[name]["settings"]["image"]
        if not re.search(rf":{re.escape(RUNTIME)}(\.\d+)*$", image):
            yield f"{name}: the image {image} is not of the supported runtime {RUNTIME}"
    folder = deployment.env("edgeHub").get("storageFolder")
    if not folder or folder not in _bound(deployment.host("edgeHub")):
        yield "edgeHub: what waits for IoT Hub must be on the device's disk: bind a folder, name it as storageFolder"


def _bound(host: Object) -> dict[str, str]:
    """Path in the container -> path on the device."""
    return {bind.split(":")[1]: bind.split(":")[0] for bind in host.get("Binds", ())}


def _twins(deployment: _Deployment) -> Iterator[str]:
    for name in deployment.twins:
        if not name.startswith("$") and name not in deployment.modules:
            yield f"{name}: there is a twin of this module, and it is not deployed"


def _routes(deployment: _Deployment) -> Iterator[str]:
    for name, given in deployment.hub["routes"].items():
        route = given if isinstance(given, str) else given["route"]
        found = re.match(ROUTE, route)
        if found is None:
            yield f"route {name}: {route!r} is not a route: FROM /messages/modules/M/outputs/O INTO $upstream"
            continue
        for module in (found["source"], found["target"]):
            if module and module not in deployment.modules:
                yield f"route {name}: no module {module!r} is deployed"


def _services(deployment: _Deployment) -> Iterator[str]:
    """Every service of the device is there, with its sidecar, and the two know each other."""
    for app in device_apps(deployment.needs.run_file):
        name, side = app.app_id, sidecar(app.app_id)
        missing = [module for module in (name, side) if module not in deployment.modules]
        yield from (f"the device needs the module {module!r}, and it is not deployed" for module in missing)
        if not missing:
            yield from _pair(deployment, name, side)


def _pair(deployment: _Deployment, name: str, side: str) -> Iterator[str]:
    expected, given = service_environment(name), deployment.env(name)
    yield from _lacking(name, expected, given)
    yield from _lacking(side, wanted(deployment.needs.components, name), deployment.env(side))
    for variable in ("DAPR_API_TOKEN", "APP_API_TOKEN"):
        if given.get(variable) != deployment.env(side).get(variable):
            yield f"{name} and {side} must have the same {variable}"
    flags = deployment.created(side).get("Cmd", [])
    said = {flag: flags[at + 1] for at, flag in enumerate(flags[:-1]) if flag.startswith("--")}
    for flag, value in (
        ("--app-id", name),
        ("--app-channel-address", name),
        ("--app-port", given.get("APP_PORT")),
        ("--dapr-http-port", str(HTTP)),
        ("--dapr-grpc-port", str(GRPC)),
    ):
        if said.get(flag) != value:
            yield f"{side}: {flag} must be {value}, and is {said.get(flag)}"
    for variable in ("DAPR_HTTP_ENDPOINT", "DAPR_GRPC_ENDPOINT"):
        if given.get(variable, expected[variable]) != expected[variable]:
            yield f"{name}: {variable} must be {expected[variable]}, and is {given[variable]}"


def _lacking(name: str, expected: Any, given: Mapping[str, str]) -> Iterator[str]:
    for variable in expected:
        if variable not in given and ALTERNATIVES.get(variable) not in given:
            yield f"{name}: lacks {variable} in its env"


def _hosts(deployment: _Deployment) -> Iterator[str]:
    """A name without a dot is a module's, since nothing else is known on the device's container network."""
    for name in deployment.all:
        for variable, value in deployment.env(name).items():
            found = re.match(r"^(?:[a-z]+://)?([a-z][a-z0-9-]*):\d+(/|$)", value)
            if found and found[1] not in deployment.all:
                yield f"{name}: {variable} names {found[1]!r}, and no such module is deployed"


def _secrets(deployment: _Deployment) -> Iterator[str]:
    """Whoever reads the file, or its history, must not find one."""
    for name in deployment.all:
        for variable, value in deployment.env(name).items():
            named = SECRET_NAMES.search(variable) and value and not PLACEHOLDER.match(value)
            if (named and variable in BY_ENVIRONMENT_ONLY) or SECRET_TEXTS.search(value):
                yield f"{name}: {variable} is a secret in clear text: make it ${{{variable}}}"
            elif SECRET_NAMES.search(variable) and variable not in BY_ENVIRONMENT_ONLY and value:
                yield f"{name}: {variable} would be a secret in the device's twin: mount a file, as of {CERTIFICATE}"
        if SECRET_TEXTS.search(deployment.options[name]):
            yield f"{name}: there is a secret in its createOptions"
    for name, credential in deployment.agent["runtime"]["settings"].get("registryCredentials", {}).items():
        if not PLACEHOLDER.match(credential["password"]):
            yield f"registry {name}: its password is in clear text: make it ${{REGISTRY_PASSWORD}}"
    for name, twin in deployment.twins.items():
        if not name.startswith("$") and SECRET_TEXTS.search(json.dumps(twin)):
            yield f"{name}: there is a secret in its twin"


def _files(deployment: _Deployment) -> Iterator[str]:
    for name in deployment.modules:
        bound = _bound(deployment.host(name))
        for variable, value in deployment.env(name).items():
            if value.startswith(f"{SETTINGS}/") and not any(f"{value}/".startswith(f"{inside}/") for inside in bound):
                yield f"{name}: {variable} names {value}, and no file of the device is bound there"


def _confined(deployment: _Deployment) -> Iterator[str]:
    for name in deployment.modules:
        host = deployment.host(name)
        if host.get("Privileged") or host.get("CapAdd") or "ALL" not in host.get("CapDrop", ()):
            yield f"{name}: must have no privileges and no capabilities (Privileged false, CapDrop ALL, no CapAdd)"
        if "no-new-privileges:true" not in host.get("SecurityOpt", ()):
            yield f"{name}: needs SecurityOpt no-new-privileges:true"
        if host.get("NetworkMode", "azure-iot-edge") != "azure-iot-edge":
            yield f"{name}: must be on the device's container network, where modules know each other by name"
        if host.get("ReadonlyRootfs") is not True:
            yield f"{name}: needs a read-only root (ReadonlyRootfs)"
        if not host.get("Memory") or "max-size" not in host.get("LogConfig", {}).get("Config", {}):
            yield f"{name}: needs limits of its memory and of its logs (Memory, LogConfig max-size)"


def _exposed(deployment: _Deployment) -> Iterator[str]:
    for name in deployment.modules:
        for inside, outside in _bound(deployment.host(name)).items():
            if outside in ("/", "/etc", "/proc", "/sys", "/dev", "/root", "/home") or outside.endswith("docker.sock"):
                yield f"{name}: must not have the device's {outside} (at {inside})"
        if str(deployment.created(name).get("User", "")).split(":")[0] == "0":
            yield f"{name}: must not run as root"
        image = deployment.modules[name]["settings"]["image"]
        if re.search(r":latest$|/[^:@/]+$|^[^:@/]+$", image):
            yield f"{name}: the image {image} needs a fixed tag"


def _ports(deployment: _Deployment) -> Iterator[str]:
    taken: Counter[str] = Counter()
    for name in deployment.all:
        for port, bindings in deployment.host(name).get("PortBindings", {}).items():
            taken.update(f"{binding['HostPort']}/{port.split('/')[1]}" for binding in bindings)
    yield from (f"port {port} of the device is given to {count} modules" for port, count in taken.items() if count > 1)


RULES: tuple[Callable[[_Deployment], Iterator[str]], ...] = (
    _sizes,
    _runtime,
    _twins,
    _routes,
    _services,
    _hosts,
    _secrets,
    _files,
    _confined,
    _exposed,
    _ports,
)
