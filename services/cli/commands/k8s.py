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
from services.runtime.signing import Verifier, make_keys

OPERATOR = "halfsure-operator"
SCHEMAS = Path("deploy/k8s/schemas/schemas.json")


@app.command("k8s-secrets")
def k8s_secrets(
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Namespace of the services.")] = "halfsure",
    model_keys: Annotated[
        Path | None,
        typer.Option(
            "--model-keys",
            exists=True,
            dir_okay=False,
            help="For a site: public keys of its models, PEM.",
        ),
    ] = None,
) -> None:
    """Print new secrets for a cluster, once for each: halfsure k8s-secrets | kubectl apply -f -

    They are the tokens between services and sidecars, the file of who may call, the key that models are signed with,
    its public one, and the operator's token:
    kubectl -n halfsure get secret halfsure-operator -o jsonpath={.data.token} | base64 -d

    A site's models are trained in the cloud, so it gets no key, but the cloud's public one, by --model-keys:
    kubectl -n halfsure get secret halfsure-model-keys -o 'go-template={{index .data "keys.pem" | base64decode}}'
    """
    try:
        Verifier(model_keys)
    except ValueError as error:
        fail(str(error))
        raise typer.Exit(1) from error
    trusted = None if model_keys is None else model_keys.read_text()
    print(json.dumps({"apiVersion": "v1", "kind": "List", "items": cluster_secrets(namespace, trusted)}, indent=1))


def cluster_secrets(namespace: str, model_keys: str | None = None) -> list[dict[str, Any]]:
    """The secrets, with tokens that nobody has seen before, and with a new pair of keys unless its models have one."""
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
    if model_keys is None:
        private, public = (key.decode() for key in make_keys())
        contents |= {"halfsure-model-key": {"key.pem": private}, "halfsure-model-keys": {"keys.pem": public}}
    else:
        contents |= {"halfsure-model-keys": {"keys.pem": model_keys}}
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
