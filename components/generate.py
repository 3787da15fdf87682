"""Writes metadata.json: what Dapr's own sources say of the component types used here.

    python components/generate.py        (needs Go and the Go module proxy; the result is committed)

Types, fields, allowed values, and the ways to authenticate; no prose.
"""

import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
MODULE = "github.com/dapr/components-contrib@v1.18.0"
# Known to daprd for every component of a building block; no metadata.yaml lists them.
COMMON: dict[str, dict[str, Any]] = {
    "pubsub": {"consumerID": {"type": "string"}},
    "state": {"actorStateStore": {"type": "bool"}, "keyPrefix": {"type": "string"}},
    "bindings": {"direction": {"type": "string", "allowed": ["input", "output", "input, output"]}},
    "secretstores": {},
}
# The profile `azuread` is made of code (common/authentication/azure), and says its fields to no file.
ENTRA = {name: {"type": "string"} for name in ("azureTenantId", "azureClientId", "azureCertificateFile")}


def sources() -> Path:
    """The folder of the Go module, whose hash the checksum database vouches for."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["go", "mod", "download", "-json", MODULE]
        made = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return Path(json.loads(made.stdout)["Dir"])


def used() -> set[str]:
    """type/version of every component file."""
    documents = [yaml.safe_load(path.read_text()) for path in HERE.glob("*/*.yaml")]
    specs = [document["spec"] for document in documents if document["kind"] == "Component"]
    return {f"{spec['type']}/{spec['version']}" for spec in specs}


def derived(folder: Path) -> dict[str, Any]:
    """The entries of the types that are used."""
    found, wanted = {}, used()
    for path in sorted(folder.rglob("metadata.yaml")):
        text = path.read_text()
        # Not parsed yet: some of the others are no YAML.
        head = dict(re.findall(r"^(type|name|version): *\"?([\w.]+)", text, re.MULTILINE))
        name = f"{head['type']}.{head['name']}/{head['version']}"
        if name in wanted:
            found[name] = _entry(yaml.safe_load(text))
    return dict(sorted(found.items()))


def _entry(document: dict[str, Any]) -> dict[str, Any]:
    own = {field["name"]: _field(field) for field in document.get("metadata") or []}
    required = sorted(field["name"] for field in document.get("metadata") or [] if field.get("required"))
    fields, ways = COMMON[document["type"]] | own, []
    builtin = document.get("builtinAuthenticationProfiles") or []
    for profile in [*(document.get("authenticationProfiles") or []), *builtin]:
        rows = profile.get("metadata") or []
        fields = {row["name"]: _field(row) for row in rows} | fields
        fields |= ENTRA if profile.get("name") == "azuread" else {}
        needs = sorted(row["name"] for row in rows if row.get("required"))
        ways.append({"title": profile.get("title") or profile["name"], "required": needs})
    return {"fields": dict(sorted(fields.items())), "required": required, "authentication": ways}


def _field(field: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": field.get("type", "string")}
    if field.get("allowedValues"):
        entry["allowed"] = [str(value) for value in field["allowedValues"]]
    return entry


if __name__ == "__main__":
    (HERE / "metadata.json").write_text(json.dumps(derived(sources()), indent=1) + "\n")
