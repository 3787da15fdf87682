"""`halfsure k8s-secrets`: the secrets that deploy/k8s refers to."""

import hashlib
import json
import secrets
from typing import Annotated, Any

import typer

from services.cli.terminal import app

OPERATOR = "halfsure-operator"


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
