"""Writes routes.py from the services' own OpenAPI documents: `python -m services.client.generate`."""

import importlib
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from services.runtime.settings import RuntimeSettings

APPS = ("ingest", "infer", "select-uncertain", "label-queue", "retrain-trigger", "uplink", "portal")
TYPES = {"integer": "int", "number": "float", "boolean": "bool", "string": "str"}
STREAMS = {("portal", "/v1/events")}
TARGET = Path(__file__).with_name("routes.py")
HEAD = '''"""A method for each route of each service. Written by `python -m services.client.generate`; not by hand."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol
from urllib.parse import quote


class Caller(Protocol):
    """Whatever carries the calls out."""

    def call(self, method: str, app_id: str, path: str, **given: Any) -> Any: ...

    def stream(self, app_id: str, path: str, **params: Any) -> AbstractContextManager[Iterator[str]]: ...
'''


def document(app_id: str) -> Mapping[str, Any]:
    """The OpenAPI document of a service, which need not run for it."""

    async def nowhere(_: RuntimeSettings) -> tuple[Any, Callable[[], Any]]:
        raise RuntimeError("only its routes are looked at")

    module = importlib.import_module(f"services.{app_id.replace('-', '_')}.app")
    with tempfile.TemporaryDirectory() as folder:
        return module.create(RuntimeSettings(state_dir=Path(folder), replica=0), nowhere).api.openapi()


def source() -> str:
    """The whole module, formatted."""
    text = "\n\n".join([HEAD, *(_part(app_id) for app_id in APPS)])
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(TARGET), "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


def name_of(method: str, path: str) -> str:
    """`POST /v1/models/{version}:activate` -> `post_model_activate`."""
    words: list[str] = []
    for segment in path.removeprefix("/v1").strip("/").split("/"):
        plain, _, action = segment.partition(":")
        if plain.startswith("{"):
            words[-1] = re.sub(r"ies$", "y", words[-1]) if words[-1].endswith("ies") else words[-1].removesuffix("s")
        else:
            words.append(plain.replace(".json", ""))
        words += [action] if action else []
    return re.sub(r"\W", "_", "_".join([method.lower(), *words]))


def _part(app_id: str) -> str:
    title = "".join(word.title() for word in app_id.split("-"))
    found = [
        (method.upper(), path, operation)
        for path, operations in document(app_id)["paths"].items()
        for method, operation in operations.items()
    ]
    names = Counter(name_of(method, path) for method, path, _ in found)
    routes = [_method(app_id, method, path, operation, names) for method, path, operation in found]
    head = f'class {title}:\n    """The routes of {app_id}."""\n\n    def __init__(self, caller: Caller) -> None:\n'
    return head + "        self._caller = caller\n\n" + "\n".join(routes)


def _method(app_id: str, method: str, path: str, operation: Mapping[str, Any], names: Counter[str]) -> str:
    name, found = name_of(method, path), list(operation.get("parameters", []))
    if names[name] > 1 and not path.endswith("}"):
        name += "_list"  # of what is one and many by the same word
    inner = [one for one in found if one["in"] == "path"]
    query = [one for one in found if one["in"] == "query"]
    headers = [one for one in found if one["in"] == "header"]
    address = re.sub(r"\{(\w+)\}", lambda match: f'{{quote(str({match[1]}), safe="")}}', path)
    given = [f"params={{{', '.join(_pairs(query))}}}"] if query else []
    given += [f"headers={{{', '.join(_pairs(headers))}}}"] if headers else []
    arguments = ["self", *(f"{one['name']}: str" for one in inner), "*", *map(_argument, [*query, *headers])]
    if method != "GET":
        arguments += ["json: Any = None", "content: bytes | None = None"]
        given += ["json=json", "content=content"]
    said = f'        """{method} {path}"""\n'
    signature = ", ".join(arguments if arguments[-1] != "*" else arguments[:-1])
    if (app_id, path) in STREAMS:
        asked = ", ".join(f"{_python(one)}={_python(one)}" for one in query)
        return (
            f"    def {name}({signature}) -> AbstractContextManager[Iterator[str]]:\n{said}"
            f'        return self._caller.stream("{app_id}", "{path}", {asked})\n'
        )
    call = ", ".join([f'"{method}"', f'"{app_id}"', ("f" if inner else "") + f"'{address}'", *given])
    return f"    def {name}({signature}) -> Any:\n{said}        return self._caller.call({call})\n"


def _pairs(parameters: list[Any]) -> Iterator[str]:
    return (f'"{one["name"]}": {_python(one)}' for one in parameters)


def _python(parameter: Mapping[str, Any]) -> str:
    name = re.sub(r"\W", "_", parameter["name"]).lower()
    return f"{name}_" if name in ("from", "class", "import") else name


def _argument(parameter: Mapping[str, Any]) -> str:
    schema = parameter["schema"]
    kinds = {TYPES.get(one.get("type"), "str") for one in schema.get("anyOf", [schema]) if one.get("type") != "null"}
    return f"{_python(parameter)}: {' | '.join(sorted(kinds))} | None = None"


if __name__ == "__main__":
    TARGET.write_text(source())
    print(TARGET)
