"""Make the schemas that manifests are checked against, from the sources of Kubernetes, Dapr and KEDA.

    python deploy/k8s/schemas/generate.py        (needs Go and the Go module proxy; the result is committed)

Only the kinds that deploy/k8s uses are kept. What an API server would prune silently, these refuse: unknown fields.
"""

import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
SOURCES = {
    "kubernetes": "k8s.io/kubernetes@v1.34.3",
    "dapr": "github.com/dapr/dapr@v1.18.0",
    "keda": "github.com/kedacore/keda/v2@v2.21.0",
}
KINDS = (
    *("core.v1.ConfigMap", "core.v1.Namespace", "core.v1.PersistentVolume", "core.v1.PersistentVolumeClaim"),
    *("core.v1.Pod", "core.v1.PodTemplate", "core.v1.Secret", "core.v1.Service", "core.v1.ServiceAccount"),
    *("apps.v1.Deployment", "apps.v1.StatefulSet", "autoscaling.v2.HorizontalPodAutoscaler"),
    *(
        "networking.v1.NetworkPolicy",
        "policy.v1.PodDisruptionBudget",
        "batch.v1.Job",
        "rbac.v1.Role",
        "rbac.v1.RoleBinding",
    ),
)
CRDS = {
    "dapr": ("charts/dapr/crds", ("components", "configuration", "resiliency", "subscription")),
    "keda": ("config/crd/bases", ("keda.sh_scaledobjects", "keda.sh_triggerauthentications")),
}
QUANTITY = r"^[+-]?([0-9]+|[0-9]+\.[0-9]*|\.[0-9]+)(Ki|Mi|Gi|Ti|Pi|Ei|n|u|m|k|M|G|T|P|E|[eE][+-]?[0-9]+)?$"
META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"


def module(name: str) -> Path:
    """The folder of a Go module of a fixed version, whose hash the checksum database vouches for."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["go", "mod", "download", "-json", SOURCES[name]]
        made = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return Path(json.loads(made.stdout)["Dir"])


def strict(schema: Any) -> Any:
    """A JSON Schema of an OpenAPI one: fields that are not there are refused, and no prose."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {
        name: strict(part)
        for name, part in schema.items()
        if name in ("type", "items", "required", "enum", "pattern", "minimum", "maximum", "minItems", "maxItems")
        or name in ("minLength", "maxLength", "anyOf", "oneOf", "allOf", "additionalProperties", "$ref")
    }
    if schema.get("x-kubernetes-int-or-string") or schema.get("format") == "int-or-string":
        return {"type": ["integer", "string"]}
    if schema.get("nullable") and "type" in kept:
        kept["type"] = [kept["type"], "null"]
    if "$ref" in kept:
        kept["$ref"] = kept["$ref"].replace("#/definitions/", "#/$defs/")
    if "properties" in schema:
        kept["properties"] = {name: strict(part) for name, part in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            kept.setdefault("additionalProperties", False)
    return kept


def kubernetes() -> tuple[dict[str, str], dict[str, Any]]:
    """References of the kinds by `apiVersion kind`, and every definition that they lead to."""
    swagger = json.loads((module("kubernetes") / "api/openapi-spec/swagger.json").read_text())["definitions"]
    refs: dict[str, str] = {}
    wanted = [META]
    for kind in KINDS:
        name = f"io.k8s.api.{kind}"
        [group] = swagger[name]["x-kubernetes-group-version-kind"]
        version = f"{group['group']}/{group['version']}".removeprefix("/")
        refs[f"{version} {group['kind']}"] = f"#/$defs/{name}"
        wanted.append(name)
    defs: dict[str, Any] = {}
    while wanted:
        name = wanted.pop()
        if name not in defs:
            defs[name] = strict(swagger[name])
            wanted += re.findall(r'"#/\$defs/([^"]+)"', json.dumps(defs[name]))
    defs["io.k8s.apimachinery.pkg.api.resource.Quantity"] = {"type": ["string", "number"], "pattern": QUANTITY}
    return refs, defs


def custom(source: str) -> dict[str, Any]:
    """The schemas of a project's custom resources by `apiVersion kind`."""
    folder, names = CRDS[source]
    found: dict[str, Any] = {}
    for name in names:
        spec = yaml.safe_load((module(source) / folder / f"{name}.yaml").read_text())["spec"]
        for version in spec["versions"]:
            schema = strict(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"$ref": f"#/$defs/{META}"}
            found[f"{spec['group']}/{version['name']} {spec['names']['kind']}"] = schema
    return found


def annotations() -> list[str]:
    """What Dapr's injector understands."""
    text = (module("dapr") / "pkg/injector/annotations/annotations.go").read_text()
    return sorted(re.findall(r'= "(dapr\.io/[a-z0-9-]+)"', text))


def main() -> None:
    refs, defs = kubernetes()
    kinds: dict[str, Any] = {kind: {"$ref": ref} for kind, ref in refs.items()}
    kinds |= custom("dapr") | custom("keda")
    result = {"sources": SOURCES, "annotations": annotations(), "kinds": kinds, "$defs": defs}
    (HERE / "schemas.json").write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")
    print(f"{len(kinds)} kinds, {len(defs)} definitions in {HERE / 'schemas.json'}")


if __name__ == "__main__":
    main()
