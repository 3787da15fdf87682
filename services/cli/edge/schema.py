"""The form of a deployment manifest, as JSON Schema: fields, types and words; nothing that is unknown passes."""

from typing import Any

Schema = dict[str, Any]

NAME = r"^[A-Za-z0-9_-]{1,128}$"
ROUTE = (
    r"^FROM /(messages/(modules/(?P<source>[A-Za-z0-9_-]+)(/outputs/(?P<output>[A-Za-z0-9_-]+|\*)|/\*)?|\*)|\*)"
    r"( WHERE .+)? INTO (\$upstream|BrokeredEndpoint\(\"/modules/(?P<target>[A-Za-z0-9_-]+)/inputs/[A-Za-z0-9_-]+\"\))$"
)
TEXT: Schema = {"type": "string", "minLength": 1}
TEXTS: Schema = {"type": "array", "items": {"type": "string"}}


def _object(properties: Schema, *required: str) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def _named(values: Schema, pattern: str = NAME) -> Schema:
    return {"type": "object", "propertyNames": {"pattern": pattern}, "additionalProperties": values}


_ENV = _named(_object({"value": {"type": "string"}}, "value"), r"^[A-Za-z_][A-Za-z0-9_]*$")
_SETTINGS = _object({"image": TEXT, "createOptions": {"type": "string"}}, "image")
_SYSTEM: Schema = {
    "type": {"const": "docker"},
    "imagePullPolicy": {"enum": ["on-create", "never"]},
    "settings": _SETTINGS,
    "env": _ENV,
}
_STARTED: Schema = {
    **_SYSTEM,
    "status": {"enum": ["running", "stopped"]},
    "restartPolicy": {"enum": ["never", "on-failure", "on-unhealthy", "always"]},
    "startupOrder": {"type": "integer", "minimum": 0, "maximum": 4294967295},
}
_MODULE = _object(
    {**_STARTED, "version": TEXT}, "version", "type", "status", "restartPolicy", "startupOrder", "settings"
)
_CREDENTIALS = _object({"username": TEXT, "password": TEXT, "address": TEXT}, "username", "password", "address")
_RUNTIME_SETTINGS = _object(
    {"minDockerVersion": TEXT, "loggingOptions": {"type": "string"}, "registryCredentials": _named(_CREDENTIALS)},
    "minDockerVersion",
)
_AGENT = _object(
    {
        "schemaVersion": {"const": "1.1"},
        "runtime": _object({"type": {"const": "docker"}, "settings": _RUNTIME_SETTINGS}, "type", "settings"),
        "systemModules": _object(
            {
                "edgeAgent": _object(_SYSTEM, "type", "settings"),
                "edgeHub": _object(_STARTED, "type", "status", "restartPolicy", "settings"),
            },
            "edgeAgent",
            "edgeHub",
        ),
        "modules": _named(_MODULE),
    },
    "schemaVersion",
    "runtime",
    "systemModules",
    "modules",
)
_SECONDS = {"type": "integer", "minimum": 1, "maximum": 4294967295}
_ROUTE = _object(
    {"route": TEXT, "priority": {"type": "integer", "minimum": 0, "maximum": 9}, "timeToLiveSecs": _SECONDS}, "route"
)
_HUB = _object(
    {
        "schemaVersion": {"const": "1.1"},
        "routes": _named({"anyOf": [TEXT, _ROUTE]}),
        "storeAndForwardConfiguration": _object({"timeToLiveSecs": _SECONDS}, "timeToLiveSecs"),
    },
    "schemaVersion",
    "routes",
    "storeAndForwardConfiguration",
)
_TWIN = _object({"properties.desired": {"type": "object"}}, "properties.desired")

MANIFEST: Schema = _object(
    {
        "$schema-template": TEXT,
        "modulesContent": {
            "type": "object",
            "properties": {
                "$edgeAgent": _object({"properties.desired": _AGENT}, "properties.desired"),
                "$edgeHub": _object({"properties.desired": _HUB}, "properties.desired"),
            },
            "required": ["$edgeAgent", "$edgeHub"],
            "additionalProperties": _TWIN,
        },
    },
    "modulesContent",
)

_PORT = r"^([1-9][0-9]{0,4})/(tcp|udp)$"
_BINDING = _object({"HostPort": {"type": "string", "pattern": "^[1-9][0-9]{0,4}$"}, "HostIp": TEXT}, "HostPort")
_HOST = _object(
    {
        "Binds": {"type": "array", "items": {"type": "string", "pattern": "^/[^:]*:/[^:]+(:ro|:rw)?$"}},
        "PortBindings": _named({"type": "array", "items": _BINDING, "minItems": 1}, _PORT),
        "Privileged": {"type": "boolean"},
        "ReadonlyRootfs": {"type": "boolean"},
        "Tmpfs": {"type": "object", "additionalProperties": {"type": "string"}},
        "CapAdd": TEXTS,
        "CapDrop": TEXTS,
        "SecurityOpt": TEXTS,
        "Devices": {"type": "array", "items": {"type": "object"}},
        "NetworkMode": TEXT,
        "Memory": {"type": "integer", "minimum": 6 << 20},
        "NanoCpus": {"type": "integer", "minimum": 1},
        "PidsLimit": {"type": "integer", "minimum": 1},
        "LogConfig": _object({"Type": TEXT, "Config": {"type": "object"}}, "Type"),
    }
)
# Of what Docker's API takes to make a container (1.41), the part that a module has a use for.
CREATE_OPTIONS: Schema = _object(
    {
        "User": {"type": "string", "pattern": "^[0-9]+(:[0-9]+)?$"},
        "Cmd": {**TEXTS, "minItems": 1},
        "Entrypoint": TEXTS,
        "WorkingDir": {"type": "string", "pattern": "^/"},
        "ExposedPorts": _named({"type": "object", "maxProperties": 0}, _PORT),
        "Labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "StopTimeout": {"type": "integer", "minimum": 1},
        "HostConfig": _HOST,
    }
)
