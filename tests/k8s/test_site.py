"""The iotedge overlay in the cluster, in a namespace of its own: a site, its uplink included, with stand-ins outside.

Service Bus is the project's stand-in and MQTT is mosquitto, both beside the node; the cloud's blob store is a folder in
uplink's pod. What is seen here is that the images start, find what they are given, and are ready.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from clusters import OVERLAYS, ROOT, Cluster, ready, until

from services.cli.backing import NoBacking, find_mosquitto, need_proton, servicebus_connection
from services.cli.commands.k8s import cluster_secrets
from services.cli.kustomize import render_text

pytestmark = [pytest.mark.k8s, pytest.mark.timeout(900)]

NAMESPACE = "halfsure-site"
SITE = "edge-1"
NODE = "10.10.0.1"  # of the one-node cluster, as its pods see it
BUS, MQTT = 9671, 9883


@pytest.fixture
def outside(cluster: Cluster, tmp_path: Path) -> Iterator[None]:
    """Service Bus and the site's MQTT broker, on the node's address."""
    if cluster.tool is None:
        pytest.skip("the stand-ins of this test need the node's network: CLUSTER=one-node")
    try:
        need_proton()
        broker = find_mosquitto()
    except NoBacking as error:
        pytest.skip(f"{error}, or `halfsure setup --profile iotedge`")
    (tmp_path / "mosquitto.conf").write_text(f"listener {MQTT} {NODE}\nallow_anonymous true\nuser root\n")
    where = ("--host", NODE, "--port", str(BUS), "--subscriptions", str(ROOT / "dapr/subscriptions.yaml"))
    commands = [
        cluster.beside(sys.executable, "-m", "services.standins.servicebus", *where, "--site", SITE),
        cluster.beside(str(broker), "-c", str(tmp_path / "mosquitto.conf")),
    ]
    with contextlib.ExitStack() as stack:
        log = stack.enter_context((tmp_path / "standins.log").open("w"))
        for command in commands:
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield


def test_a_site_is_ready_with_its_uplink(
    cluster: Cluster, images: dict[str, str], outside: None, tmp_path: Path
) -> None:
    (tmp_path / "overlay").mkdir()
    folder = tmp_path / "overlay"
    ours = {"resources": [os.path.relpath(OVERLAYS / "iotedge", folder.resolve())], "namespace": NAMESPACE}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(ours))
    site = {
        "siteid": SITE,
        "servicebus-connection": servicebus_connection(BUS).replace("127.0.0.1", NODE),
        "cloud-blobs": "file:///var/lib/halfsure/cloud",
        "mqtt-url": f"tcp://{NODE}:{MQTT}",
    }
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "halfsure-site", "namespace": NAMESPACE}}
    secrets = [*cluster_secrets(NAMESPACE), {**secret, "stringData": site}]
    cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s")
    cluster.kubectl("delete", "pv", f"{NAMESPACE}-redis", f"{NAMESPACE}-blobs", "--ignore-not-found")
    cluster.kubectl("create", "namespace", NAMESPACE)
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": secrets}))
    cluster.volumes(NAMESPACE)
    # The loop, when it runs here too, makes room: two cores hold its requests and these, with one replica of each.
    for one in cluster.get("deployments"):
        cluster.kubectl("-n", "halfsure", "scale", f"deploy/{one['metadata']['name']}", "--replicas=1")
    # Kustomize does not know that access control names the namespace too.
    text = render_text(folder).replace("namespace: halfsure\n", f"namespace: {NAMESPACE}\n")
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)
    try:
        listed = ("-n", NAMESPACE, "get", "pods")
        until(lambda: ready(cluster, NAMESPACE), 400, lambda: cluster.kubectl(*listed, check=False))
        pods = cluster.get("pods", "-l", "app.kubernetes.io/part-of=halfsure", namespace=NAMESPACE)
        names = {pod["metadata"]["labels"]["app.kubernetes.io/name"] for pod in pods}
        assert names == {"ingest", "infer", "select-uncertain", "uplink"}
        for pod in pods:
            assert [one["ready"] for one in pod["status"]["containerStatuses"]] == [True, True]
        print(cluster.kubectl(*listed))
    finally:
        cluster.kubectl("delete", "namespace", NAMESPACE, "--timeout=180s")
