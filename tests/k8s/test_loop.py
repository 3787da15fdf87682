"""The loop on a real cluster: applied, closed while pods are deleted, and updated under load."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from clusters import OVERLAYS, Cluster, ready, until

from services.cli.kustomize import render, render_text

pytestmark = [pytest.mark.k8s, pytest.mark.timeout(1500)]

BUDGET, BATCH = 60, 20
# What is deleted when the loop has come so far; `all` is what a lost node takes with it.
MOMENTS = [
    ("ingest", "ingested", 100),
    ("infer", "ingested", 400),
    ("select-uncertain", "ingested", 800),
    ("label-queue", "accepted", 10),
    ("redis", "accepted", 20),
    ("retrain-trigger", "accepted", 32),
    ("all", "accepted", 45),
]


@pytest.mark.parametrize("overlay", sorted(folder.name for folder in OVERLAYS.iterdir()))
def test_the_server_accepts_every_overlay(cluster: Cluster, crds: None, namespace: str, overlay: str) -> None:
    """Row 0.9."""
    text = render_text(OVERLAYS / overlay)
    said = cluster.kubectl("apply", "--server-side", "--dry-run=server", "--force-conflicts", "-f", "-", stdin=text)
    assert len(said.splitlines()) == len(render(OVERLAYS / overlay))
    assert "Warning" not in said


def test_every_pod_is_ready_with_its_sidecar(cluster: Cluster, loop: str, report: dict[str, Any]) -> None:
    pods = cluster.get("pods", "-l", "app.kubernetes.io/part-of=halfsure")
    report["pods_ready"] = len(pods)
    names = [{each["name"] for each in pod["status"]["containerStatuses"]} for pod in pods]
    report["sidecars_injected"] = sum("daprd" in containers for containers in names)
    assert report["pods_ready"] == report["sidecars_injected"] == 7
    for pod in pods:
        mounted = [each["mountPath"] for one in pod["spec"]["containers"] for each in one.get("volumeMounts", ())]
        assert not [path for path in mounted if path == "/var/run/secrets/kubernetes.io/serviceaccount"]


def test_the_same_image_runs_everywhere(cluster: Cluster, loop: str) -> None:
    """Row 4.31: what the overlays name is one image, and its digest is the same in all pods of a service."""
    ids: dict[str, set[str]] = {}
    for pod in cluster.get("pods", "-l", "app.kubernetes.io/part-of=halfsure"):
        for each in pod["status"]["containerStatuses"]:
            if each["name"] == "service":
                ids.setdefault(pod["metadata"]["labels"]["app.kubernetes.io/name"], set()).add(each["imageID"])
    assert {len(found) for found in ids.values()} == {1}
    named = {
        one["spec"]["template"]["spec"]["containers"][0]["image"]
        for overlay in OVERLAYS.iterdir()
        for one in render(overlay)
        if one["kind"] == "Deployment"
    }
    assert {f"halfsure/{name}:dev" for name in ids} <= named
    assert len(named) == len(ids) + 1  # uplink runs at sites only


def test_services_read_from_each_other_and_do_no_more(cluster: Cluster, loop: str) -> None:
    """Row 3.8: the access control of Dapr, over mTLS."""
    program = (
        "import os, urllib.request as r, urllib.error as e\n"
        "def call(method, app, path):\n"
        "    q = r.Request(f'http://127.0.0.1:3500/v1.0/invoke/{app}/method/{path}', method=method,\n"
        "                  headers={'dapr-api-token': os.environ['DAPR_API_TOKEN']}, data=b'{}')\n"
        "    try: return r.urlopen(q).status\n"
        "    except e.HTTPError as error: return error.code\n"
        "print(call('GET', 'retrain-trigger', 'v1/projects'), call('POST', 'retrain-trigger', 'v1/projects'),\n"
        "      call('GET', 'ingest', 'metrics'), call('DELETE', 'ingest', 'v1/samples/x'))\n"
    )
    said = cluster.kubectl("-n", loop, "exec", "deploy/halfsure-infer", "-c", "service", "--", "python", "-c", program)
    assert said.split() == ["200", "403", "403", "403"]


def delete(cluster: Cluster, victim: str) -> None:
    select = ("-l", f"app.kubernetes.io/name={victim}") if victim != "all" else ("-l", "app.kubernetes.io/name")
    pods = cluster.kubectl("-n", "halfsure", "get", "pods", *select, "-o", "name").split()
    chosen = pods if victim == "all" else pods[:1]
    assert chosen, f"there is no pod of {victim}"
    hard = ("--grace-period=0", "--force") if victim == "all" else ()
    cluster.kubectl("-n", "halfsure", "delete", *chosen, "--wait=false", *hard)


def test_the_loop_closes_while_pods_of_every_kind_are_deleted(
    cluster: Cluster, loop: str, report: dict[str, Any]
) -> None:
    report["loop_closed"] = False
    moments = list(MOMENTS)
    last: dict[str, Any] = {}
    with playing(cluster, "play", str(BUDGET), str(BATCH)) as player:
        assert player.stdout
        for line in player.stdout:
            last = json.loads(line) if line.startswith("{") else {"said": line}
            print(line, end="", flush=True)
            while moments and last.get(moments[0][1], -1) >= moments[0][2]:
                victim = moments.pop(0)[0]
                print(f"  deleting {victim}", flush=True)
                delete(cluster, victim)
        assert player.wait(timeout=30) == 0
    final = last["final"]
    report.update(loop_closed=True, lost=final["lost"], doubled=final["doubled"])
    assert not moments
    assert (final["lost"], final["doubled"]) == (0, 0)
    assert final["asked"] == final["accepted"] == final["in_snapshots"] == BUDGET
    assert final["accuracy"] > 0.9
    until(lambda: ready(cluster), 180, lambda: cluster.kubectl("-n", loop, "get", "pods", check=False))


def test_a_rolling_update_under_load_fails_no_request(cluster: Cluster, loop: str, report: dict[str, Any]) -> None:
    for app_id in ("infer", "label-queue"):
        cluster.kubectl("-n", loop, "scale", f"deploy/halfsure-{app_id}", "--replicas=3")
    until(lambda: ready(cluster), 120, lambda: cluster.kubectl("-n", loop, "get", "pods", check=False))
    with playing(cluster, "load") as load:
        assert load.stdout is not None
        assert load.stdin is not None
        assert json.loads(load.stdout.readline()) == {"started": True}
        started = time.monotonic()
        for app_id in ("infer", "label-queue"):
            cluster.kubectl("-n", loop, "rollout", "restart", f"deploy/halfsure-{app_id}")
        for app_id in ("infer", "label-queue"):
            cluster.kubectl("-n", loop, "rollout", "status", f"deploy/halfsure-{app_id}", "--timeout=280s")
        # Until the last of the old replicas is gone.
        until(lambda: ready(cluster), 180, lambda: cluster.kubectl("-n", loop, "get", "pods", check=False))
        load.stdin.close()
        said = json.loads(load.stdout.read().splitlines()[-1])
        assert load.wait(timeout=60) == 0
    print(f"{time.monotonic() - started:.0f} s of load: {said}")
    report["failed_requests_during_rollout"] = said["failures"]
    assert said["failed"] == {}
    assert min(said["ok"]["infer"], said["ok"]["label-queue"]) > 100


def test_mutants_are_refused_by_the_projects_own_check(report: dict[str, Any]) -> None:
    """As tests/contract/test_k8s.py says, counted here for the report."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "tests/contract/test_k8s.py", "-k", "mutants"),
            "-p",
            "no:cacheprovider",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    report["mutants_refused"] = int(done.stdout.split(" passed")[0].split()[-1])
    assert report["mutants_refused"] > 10


@contextlib.contextmanager
def playing(cluster: Cluster, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """play.py in the client pod, ended with the test."""
    command = ("-n", "halfsure", "exec", "-i", "client", "--", "python", "play.py", *arguments)
    process = cluster.start(*command, stdin=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
