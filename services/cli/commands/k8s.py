"""`halfsure k8s-secrets` and `halfsure check-k8s`: what deploy/k8s needs, and whether it is in order."""

import hashlib
import json
import secrets
from pathlib import Path
from typing import Annotated, Any

import typer

from services.cli.kustomize import NotRendered, render
from services.cli.manifests import faults
from services.cli.settings import default_root
from services.cli.terminal import app, fail, out

OPERATOR = "halfsure-operator"
SCHEMAS = Path("deploy/k8s/schemas/schemas.json")


@app.command("k8s-secrets")
def k8s_secrets(
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Namespace of the services.")] = "halfsure",
) -> None:
    """Print new secrets for a cluster, once for each: halfsure k8s-secrets | kubectl apply -f -

    They are the tokens between services and sidecars, the file of who may call, and the operator's token:
    kubectl -n halfsure get secret halfsure-operator -o jsonpath={.data.token} | base64 -d
    """
    print(json.dumps({"apiVersion": "v1", "kind": "List", "items": cluster_secrets(namespace)}, indent=1))


def cluster_secrets(namespace: str) -> list[dict[str, Any]]:
    """The four secrets, with tokens that nobody has seen before."""
    operator = secrets.token_urlsafe(32)
    caller = {
        "sha256": hashlib.sha256(operator.encode()).hexdigest(),
        "subject": "operator",
        "role": "admin",
        "projects": ["*"],
    }
    contents = {
        "halfsure-app-token": {"token": secrets.token_urlsafe(32)},
        "halfsure-dapr-token": {"token": secrets.token_urlsafe(32)},
        "halfsure-tokens": {"tokens.json": json.dumps({"tokens": [caller]})},
        OPERATOR: {"token": operator},
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace},
            "type": "Opaque",
            "stringData": content,
        }
        for name, content in contents.items()
    ]


@app.command("check-k8s")
def check_k8s(
    overlays: Annotated[
        list[Path] | None, typer.Argument(help="Folders to render and check (default: all of deploy/k8s/overlays).")
    ] = None,
) -> None:
    """Render overlays and check them strictly, without a cluster: fields, references, environment, hardening."""
    root = default_root()
    wrong = 0
    for folder in overlays or sorted((root / "deploy/k8s/overlays").iterdir()):
        try:
            objects = render(folder)
            found = faults(objects, root / SCHEMAS)
        except NotRendered as error:
            objects, found = [], [str(error)]
        for fault in found:
            fail(f"{folder.name}: {fault}")
        wrong += len(found)
        if not found:
            out.print(f"{folder.name}: {len(objects)} objects in order", highlight=False)
    if wrong:
        raise typer.Exit(1)
