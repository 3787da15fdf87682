"""Dapr's component files, checked against what Dapr says of each type, before a sidecar reads them.

daprd itself says nothing of a field that it does not know, and refuses others only when it starts.
"""

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from services.cli.profiles import PROFILES, Place, Profile, apps_of
from services.cli.runfile import read_run_file

Document = Mapping[str, Any]
INDEX = Path("components/metadata.json")
# The names that every service is built upon (services/runtime/settings.py).
NEEDED = ("pubsub", "statestore")
# Fields that differ from place to place, or that nobody may read in a file.
ELSEWHERE = re.compile(r"host|url|connectionString|namespace|vault|password|key$|token|consumerID", re.IGNORECASE)
SOURCES = ("value", "envRef", "secretKeyRef")
_FORMS = {
    "number": (re.compile(r"-?\d+(\.\d+)?"), "a number"),
    "bool": (re.compile(r"(?i)true|false|yes|no|on|off|1|0|t|f|y|n"), "true or false"),
    "duration": (re.compile(r"(\d+(\.\d+)?(ns|us|ms|s|m|h))+|\d+"), "a duration such as 20s"),
}


def documents(path: Path) -> list[dict[str, Any]]:
    """The documents of a YAML file, empty ones left out."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def folder_components(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The documents of each file that daprd would load from a folder of components."""
    return {path.name: documents(path) for path in sorted(folder.glob("*.yaml")) if path.name != "kustomization.yaml"}


def profile_faults(root: Path, profile: Profile) -> list[str]:
    """What is wrong with the components of a profile and with what names them, a sentence each."""
    return [fault for place in PROFILES[profile] for fault in place_faults(root, profile, place)]


def place_faults(root: Path, profile: Profile, place: Place) -> list[str]:
    """The same for one of its places."""
    files = folder_components(root / "components" / place.components)
    apps = [app.app_id for at, app in apps_of(profile, read_run_file(root / "dapr" / "dapr.yaml")) if at == place]
    everywhere = {app.app_id for _, app in apps_of("iotedge", read_run_file(root / "dapr" / "dapr.yaml"))}
    found = [f"components/{place.components}/{fault}" for fault in faults(files, index(root), everywhere)]
    names = {one["metadata"]["name"] for ones in files.values() for one in ones if "name" in one.get("metadata", {})}
    return found + list(_subscribed(documents(root / "dapr" / "subscriptions.yaml"), place, apps, names))


@cache
def index(root: Path) -> dict[str, Any]:
    """What components/generate.py has written."""
    return json.loads((root / INDEX).read_text())


def faults(files: Mapping[str, Sequence[Document]], known: Mapping[str, Any], app_ids: set[str]) -> list[str]:
    """What is wrong with a folder's files; empty when nothing is."""
    found = [f"{name}: {fault}" for name, ones in files.items() for fault in _file(ones, known, app_ids)]
    names = [one.get("metadata", {}).get("name") for ones in files.values() for one in ones]
    found += [f"there is no component {name!r}, which every service needs" for name in NEEDED if name not in names]
    return found + [f"{name!r} is there twice" for name in sorted({n for n in names if n and names.count(n) > 1})]


def _file(ones: Sequence[Document], known: Mapping[str, Any], app_ids: set[str]) -> Iterator[str]:
    for one in ones:
        if (one.get("apiVersion"), one.get("kind")) != ("dapr.io/v1alpha1", "Component"):
            yield f"{one.get('apiVersion')} {one.get('kind')} is no component of Dapr (dapr.io/v1alpha1 Component)"
            continue
        yield from _component(one, known, app_ids)


def _component(one: Document, known: Mapping[str, Any], app_ids: set[str]) -> Iterator[str]:
    for part in set(one) - {"apiVersion", "kind", "metadata", "spec", "scopes", "auth"}:
        yield f"there is no field {part!r} in a component{_perhaps(part, ['metadata', 'spec', 'scopes', 'auth'])}"
    for app_id in set(one.get("scopes") or ()) - app_ids:
        yield f"its scope names {app_id!r}, which is no service{_perhaps(app_id, app_ids)}"
    spec = one.get("spec") or {}
    name = f"{spec.get('type')}/{spec.get('version')}"
    if name not in known:
        yield f"the type {name} is not known here{_perhaps(name, known)}; components/generate.py writes what is"
        return
    kind, entries = known[name], spec.get("metadata") or []
    given = [str(entry.get("name")) for entry in entries]
    for field in sorted({field for field in given if given.count(field) > 1}):
        yield f"{field} is said twice"
    for field in kind["required"]:
        if field not in given:
            yield f"{field} is missing, without which {name} does not work"
    ways = kind["authentication"]
    if not kind["required"] and ways and not any(set(way["required"]) <= set(given) for way in ways):
        yield "nothing says how to authenticate: " + ", or ".join(" and ".join(way["required"]) for way in ways)
    for entry in entries:
        yield from _entry(entry, kind["fields"])


def _entry(entry: Document, fields: Mapping[str, Any]) -> Iterator[str]:
    name = str(entry.get("name"))
    if name not in fields:
        yield f"there is no field {name!r}{_perhaps(name, fields)}"
        return
    sources = [source for source in SOURCES if source in entry]
    if len(sources) != 1 or set(entry) - {"name", *SOURCES}:
        yield f"{name} takes exactly one of value, envRef and secretKeyRef"
        return
    value = entry[sources[0]]
    if sources[0] == "envRef" and not str(value).startswith("HALFSURE_"):
        yield f"{name} reads {value}: the environment's names begin with HALFSURE_"
    if sources[0] != "value":
        return
    if ELSEWHERE.search(name):
        yield f"{name} differs from place to place, or is secret: it comes by envRef or secretKeyRef"
    if not isinstance(value, str):
        yield f'{name} is text to Dapr: write "{value}"'
        return
    form, words = _FORMS.get(fields[name]["type"], (None, ""))
    if form and not form.fullmatch(value):
        yield f"{name} must be {words}, not {value!r}"
    if value not in fields[name].get("allowed", [value]):
        yield f"{name} must be one of {', '.join(fields[name]['allowed'])}, not {value!r}"


def _subscribed(subscriptions: Sequence[Document], place: Place, apps: Sequence[str], names: set[str]) -> Iterator[str]:
    for one in subscriptions:
        bus = one["spec"]["pubsubname"]
        if bus not in names and set(one["scopes"]) & set(apps):
            yield f"dapr/subscriptions.yaml: {one['metadata']['name']} wants {bus!r}, which {place.components} has not"


def _perhaps(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), 1)
    return f"; perhaps {close[0]!r}?" if close else ""


def environment(root: Path, place: Place) -> dict[str, list[str]]:
    """The variables that a place's components read, each with the fields that want it."""
    wanted: dict[str, list[str]] = {}
    for ones in folder_components(root / "components" / place.components).values():
        for one in ones:
            for entry in one["spec"].get("metadata") or []:
                if "envRef" in entry:
                    wanted.setdefault(entry["envRef"], []).append(f"{one['metadata']['name']}.{entry['name']}")
    return wanted
