"""The reference pages, made from the code: REST, events, settings, metrics, commands."""

import importlib
import inspect
import json
import pkgutil
import re
from collections.abc import Iterator, Mapping
from typing import Any

import typer.main
from prometheus_client.metrics import MetricWrapperBase
from pydantic import AliasChoices
from pydantic_settings import BaseSettings

from services.cli.main import app
from services.client.generate import APPS, document
from services.contracts.events import EVENT_TYPES

MADE = "<!-- Made from the code by `make docs`. -->\n\n"


def pages() -> dict[str, str]:
    """All of them, by the path below `reference/`."""
    found = {f"api-{app_id}.md": api(app_id) for app_id in APPS}
    found |= {"events.md": events(), "settings.md": settings(), "metrics.md": metrics(), "cli.md": commands()}
    return {name: MADE + text for name, text in found.items()}


# REST


def api(app_id: str) -> str:
    """Every route of a service, with its parameters and body."""
    told = document(app_id)
    shapes = told.get("components", {}).get("schemas", {})
    parts = [f"# REST of {app_id}\n\n`GET /v1/openapi.json` of the service says the same to programs.\n"]
    for path, operations in told["paths"].items():
        for method, operation in operations.items():
            parts.append(_route(method.upper(), path, operation, shapes))
    return "\n".join(parts)


def _route(method: str, path: str, operation: Mapping[str, Any], shapes: Mapping[str, Any]) -> str:
    lines = [f"## `{method} {path}`\n"]
    if operation.get("description"):
        lines.append(_plain(operation["description"]) + "\n")
    rows = [
        (f"`{one['name']}`", one["in"], _type(one.get("schema", {})), "yes" if one.get("required") else "")
        for one in operation.get("parameters", ())
    ]
    lines.append(_table(("parameter", "in", "type", "needed"), rows))
    body = operation.get("requestBody", {}).get("content", {})
    for media, content in body.items():
        shape = _resolved(content.get("schema", {}), shapes)
        lines.append(f"Body, `{media}`:\n" if shape.get("properties") else f"Body: `{media}`\n")
        lines.append(_fields(shape))
    answers = ", ".join(f"`{code}`" for code in operation.get("responses", {}))
    return "\n".join([*lines, f"Answers: {answers}\n"])


def _resolved(shape: Mapping[str, Any], shapes: Mapping[str, Any]) -> Mapping[str, Any]:
    name = shape.get("$ref", "").rpartition("/")[2]
    return shapes.get(name, shape)


def _fields(shape: Mapping[str, Any]) -> str:
    needed = shape.get("required", ())
    rows = [
        (f"`{name}`", _type(one), "yes" if name in needed else _default(one), _plain(one.get("description", "")))
        for name, one in shape.get("properties", {}).items()
    ]
    return _table(("field", "type", "needed, or default", "what"), rows)


def _default(one: Mapping[str, Any]) -> str:
    value = one.get("default")
    return "" if value is None or isinstance(value, dict | list) else f"`{json.dumps(value)}`"


def _type(shape: Mapping[str, Any]) -> str:
    if "anyOf" in shape or "oneOf" in shape:
        inner = [_type(one) for one in shape.get("anyOf", shape.get("oneOf", ())) if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(inner)) if len(inner) < 6 else "one of several"
    if "$ref" in shape:
        return shape["$ref"].rpartition("/")[2]
    if "enum" in shape:
        return ", ".join(f"`{one}`" for one in shape["enum"])
    if shape.get("type") == "array":
        return f"list of {_type(shape.get('items', {}))}"
    return str(shape.get("format") or shape.get("type") or "any")


# Events


def events() -> str:
    """Every type, with its fields."""
    parts = [
        "# Events\n\nCloudEvents 1.0, structured JSON; these are the fields of `data`. Fields only grow within `v1`.\n"
    ]
    for kind in sorted(EVENT_TYPES.values(), key=lambda one: (one.topic, one.type)):
        shape = kind.model_json_schema()
        parts.append(f"## {kind.__name__}\n\n{_plain(inspect.getdoc(kind) or '')}\n")
        parts.append(f"Topic `{kind.topic}`, type `{kind.type}`.\n")
        parts.append(_fields(shape))
    return "\n".join(parts)


# Settings


def settings() -> str:
    """Every environment variable that a service or the command reads."""
    parts = ["# Settings\n\nEnvironment variables, read once at the start.\n"]
    for kind in settings_classes():
        where = kind.__module__.removeprefix("services.").replace("_", "-").replace(".", ", ")
        parts.append(f"## {where}: {kind.__name__}\n\n{_plain(inspect.getdoc(kind) or '')}\n")
        rows = [
            (", ".join(f"`{name}`" for name in names(kind, field)), _value(info), _plain(info.description or ""))
            for field, info in kind.model_fields.items()
        ]
        parts.append(_table(("variable", "default", "what"), rows))
    return "\n".join(parts)


def settings_classes() -> list[type[BaseSettings]]:
    """All classes of settings in the code."""
    found = {
        value
        for module in modules("services")
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, BaseSettings) and value.__module__ == module.__name__
    }
    return sorted(found, key=lambda one: (one.__module__ != "services.runtime.settings", one.__module__, one.__name__))


def names(kind: type[BaseSettings], field: str) -> list[str]:
    """The environment variables that set a field."""
    alias = kind.model_fields[field].validation_alias
    told = alias.choices if isinstance(alias, AliasChoices) else [alias] if alias else []
    upper = [str(one) for one in told if str(one).isupper()]
    return upper or [f"{kind.model_config.get('env_prefix', '')}{field}".upper()]


def _value(info: Any) -> str:
    value = info.get_default(call_default_factory=False)
    if info.default_factory is not None or value is None or "Undefined" in repr(value):
        return ""
    return "" if str(value) in ("", "**********") else f"`{value}`"


# Metrics


def metrics() -> str:
    """Every metric that a service exposes at `GET /metrics`."""
    parts = ["# Metrics\n\n`GET /metrics` of each service, for Prometheus.\n"]
    for app_id, found in exposed().items():
        rows = [
            (f"`{name}`", ", ".join(f"`{label}`" for label in labels), kind, what) for name, labels, kind, what in found
        ]
        parts += [f"## {app_id}\n", _table(("name", "labels", "kind", "what"), rows)]
    return "\n".join(parts)


def exposed() -> dict[str, list[tuple[str, tuple[str, ...], str, str]]]:
    """By service, `every service` first: name, labels, kind, and what it counts, as they are exposed."""
    shared = {id(one): one for one in _collectors("services.runtime")}
    found = {"every service": list(shared.values())}
    for app_id in APPS:
        own = _collectors(f"services.{app_id.replace('-', '_')}")
        found[app_id] = [one for one in own if id(one) not in shared]
    return {app_id: sorted(map(_told, ones)) for app_id, ones in found.items() if ones}


def _collectors(package: str) -> list[MetricWrapperBase]:
    found = {
        id(value): value
        for module in modules(package)
        for value in vars(module).values()
        if isinstance(value, MetricWrapperBase)
    }
    return list(found.values())


def _told(one: MetricWrapperBase) -> tuple[str, tuple[str, ...], str, str]:
    (family,) = one.describe()
    name = family.name + ("_total" if family.type == "counter" else "")
    return name, tuple(one._labelnames), family.type, family.documentation


def modules(package: str) -> Iterator[Any]:
    """All modules below a package that this environment can import."""
    root = importlib.import_module(package)
    yield root
    for found in pkgutil.walk_packages(root.__path__, f"{package}."):
        if found.name.endswith("__main__") or ".standins" in found.name or ".azureml" in found.name:
            continue
        try:
            yield importlib.import_module(found.name)
        except ImportError as error:
            if (error.name or "").startswith("services"):
                raise


# Commands


def commands() -> str:
    """Every command with its arguments and options."""
    root = typer.main.get_command(app)
    parts = ["# Commands\n\n`halfsure --install-completion` makes the shell complete them.\n"]
    for words, command in every(root, ("halfsure",)):
        parts.append(f"## `{' '.join(words)}`\n\n{_plain(command.help or '')}\n")
        rows = [
            (_named(one), _plain(getattr(one, "help", "") or ""), _option_default(one))
            for one in command.params
            if one.name != "help"
        ]
        parts.append(_table(("argument or option", "what", "default"), rows))
    return "\n".join(parts)


def every(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All commands that do something, with the words that call them."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield words, command
        return
    for name in sorted(inner):
        yield from every(inner[name], (*words, name))


def _named(one: Any) -> str:
    flags = [*one.opts, *one.secondary_opts]
    return ", ".join(f"`{flag}`" for flag in flags) if one.param_type_name == "option" else f"`{one.name}`"


def _option_default(one: Any) -> str:
    return "" if one.default in (None, False, ()) or callable(one.default) else f"`{one.default}`"


# Markdown


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Without the marks of the terminal; examples, which it shows dim, as a list."""
    text = re.sub(r"^\s*\[dim\](.*?)\[/\]$", r"\n- `\1`", inspect.cleandoc(text), flags=re.MULTILINE)
    return "\n\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", text))
