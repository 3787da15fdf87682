"""A cluster with Dapr: the one of the current context, or one that is made for these tests (CLUSTER=one-node)."""

import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters import HERE, OVERLAYS, ROOT, SERVICES, TAG, Cluster, ready, until

from services.cli.commands.k8s import OPERATOR, cluster_secrets
from services.cli.kustomize import render, render_text


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    tool = Path(os.environ.get("CLUSTER_TOOL", "../shared/tools/cluster/cluster")).resolve()
    own = os.environ.get("CLUSTER") == "one-node"
    if own and not tool.exists():
        pytest.fail(f"CLUSTER=one-node needs the tool at {tool}; name it with CLUSTER_TOOL")
    if not own and not shutil.which("kubectl"):
        pytest.skip("there is no kubectl; set CLUSTER=one-node, or install kubectl and choose a context")
    made = Cluster(tool if own else None, tmp_path_factory.mktemp("volumes"))
    made.up()
    yield made
    made.down()


@pytest.fixture(scope="session")
def images(cluster: Cluster) -> dict[str, str]:
    """The image of every service, by its id."""
    built = {}
    for service in SERVICES:
        print(f"building halfsure/{service}:{TAG} ...", flush=True)
        built[service] = cluster.image(service)
    return built


@pytest.fixture(scope="session")
def crds(cluster: Cluster) -> None:
    """KEDA's kinds, so that the server knows what a ScaledObject may say; KEDA itself is not needed for that."""
    if "scaledobjects.keda.sh" not in cluster.kubectl("get", "crd", "-o", "name"):
        spec = importlib.util.spec_from_file_location("generate", ROOT / "deploy/k8s/schemas/generate.py")
        assert spec is not None
        assert spec.loader is not None
        generate = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(generate)
        folder, names = generate.CRDS["keda"]
        for name in names:
            cluster.kubectl("apply", "--server-side", "-f", str(generate.module("keda") / folder / f"{name}.yaml"))
        cluster.kubectl("wait", "--for=condition=Established", "crd/scaledobjects.keda.sh", "--timeout=30s")


@pytest.fixture(scope="session")
def namespace(cluster: Cluster) -> str:
    """An empty one, with secrets of its own."""
    cluster.kubectl("delete", "namespace", "halfsure", "--ignore-not-found", "--timeout=120s")
    cluster.kubectl("delete", "pv", "halfsure-redis", "halfsure-blobs", "--ignore-not-found")
    [found] = [one for one in render(OVERLAYS / "local") if one["kind"] == "Namespace"]
    cluster.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(found))
    return "halfsure"


@pytest.fixture(scope="session")
def loop(cluster: Cluster, images: dict[str, str], crds: None, namespace: str) -> str:
    """The local overlay, applied and ready, and a client pod beside it that holds the operator's token."""
    secrets = cluster_secrets(namespace)
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": secrets}))
    cluster.volumes(namespace)
    cluster.kubectl("apply", "--server-side", "-f", "-", stdin=render_text(OVERLAYS / "local"))
    cluster.kubectl("apply", "-f", str(HERE / "client.yaml"))
    until(lambda: ready(cluster), 400, lambda: cluster.kubectl("-n", namespace, "get", "pods", check=False))
    files = subprocess.run(
        ["tar", "c", "--exclude", "__pycache__", "services", "-C", str(HERE), "play.py"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    cluster.kubectl("-n", namespace, "exec", "-i", "client", "--", "tar", "x", "-C", "/work", stdin=files)
    [token] = [one["stringData"]["token"] for one in secrets if one["metadata"]["name"] == OPERATOR]
    cluster.kubectl("-n", namespace, "exec", "-i", "client", "--", "sh", "-c", "cat > token", stdin=token)
    return namespace


@pytest.fixture(scope="session")
def report(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """What was seen, in out/k8s/report.json; null: not seen."""
    names = ("pods_ready", "sidecars_injected", "loop_closed", "lost", "doubled")
    rows: dict[str, Any] = dict.fromkeys((*names, "failed_requests_during_rollout", "mutants_refused"))
    path = ROOT / "out" / "k8s" / "report.json"
    rows["tilt_ci"] = {"ok": None, "broken": None}
    yield rows
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=1) + "\n")
    print(f"\n{path}: {json.dumps(rows)}")
