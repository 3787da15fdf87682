"""The loop on a real cluster: applied, closed while pods are deleted, and updated under load."""

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from clusters import OVERLAYS, SERVICES, Cluster, ready, until

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
    replicas = [one["spec"].get("replicas", 1) for one in render(OVERLAYS / "local") if one["kind"] == "Deployment"]
    assert len(replicas) == len(SERVICES) - 1  # uplink runs at sites only
    assert report["pods_ready"] == report["sidecars_injected"] == sum(replicas)
    # The cluster's token is retrain-trigger's alone, and not its sidecar's.
    holders = {
        (pod["metadata"]["labels"]["app.kubernetes.io/name"], one["name"])
        for pod in pods
        for one in pod["spec"]["containers"]
        for each in one.get("volumeMounts", ())
        if each["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"
    }
    assert holders == {("retrain-trigger", "service")}


def test_retrain_trigger_may_start_jobs_and_nothing_else(cluster: Cluster, loop: str) -> None:
    """Row 3.8: asked of the cluster itself."""

    def may(*words: str) -> bool:
        who = f"--as=system:serviceaccount:{loop}:halfsure-retrain-trigger"
        return cluster.kubectl("-n", loop, "auth", "can-i", *words, who, check=False).split()[0] == "yes"

    for verb in ("create", "get", "list", "watch", "delete"):
        assert may(verb, "jobs.batch"), verb
    assert may("get", "pods", "--subresource=log")
    assert may("get", "podtemplates/halfsure-training")
    for verb, what in [
        *(
            ("get", "secrets"),
            ("create", "pods"),
            ("delete", "pods"),
            ("patch", "jobs.batch"),
            ("list", "podtemplates"),
        ),
        *(("update", "deployments.apps"), ("create", "pods/exec"), ("get", "configmaps"), ("list", "nodes")),
    ]:
        assert not may(verb, what), f"{verb} {what}"
    assert not may("create", "jobs.batch", "-n", "default")


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


def test_one_image_can_train_and_says_how(cluster: Cluster, loop: str) -> None:
    """The image of the Jobs has the trainer and its entry point; the others have neither."""
    program = "from importlib.util import find_spec as f; print(*(bool(f(n)) for n in ('sklearn', 'skl2onnx')))"
    for app_id in ("ingest", "infer", "select-uncertain", "label-queue", "retrain-trigger"):
        inside = ("-n", loop, "exec", f"deploy/halfsure-{app_id}", "-c", "service", "--", "python")
        trains = app_id == "retrain-trigger"
        assert cluster.kubectl(*inside, "-c", program).split() == [str(trains)] * 2, app_id
        asked = cluster.kubectl(*inside, "-m", "services.retrain_trigger.backends.remote", "--help", check=False)
        assert ("WORK_URI" in asked) == trains, app_id


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
    with training_interrupted(cluster) as interrupted, playing(cluster, "play", str(BUDGET), str(BATCH)) as player:
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
    # One training lost its pod, and another its Job: both came to their end, in a pod that came later.
    assert interrupted.keys() == {"pod", "job"}, interrupted
    jobs = {job["metadata"]["name"]: job["status"] for job in cluster.get("jobs")}
    print(f"interrupted: {interrupted}; Jobs: {jobs}")
    assert final["runs"] == {"SUCCEEDED": len(jobs)}
    assert all(status.get("succeeded") == 1 for status in jobs.values())
    assert jobs[interrupted["pod"]]["failed"] >= 1
    until(lambda: ready(cluster), 180, lambda: cluster.kubectl("-n", loop, "get", "pods", check=False))


def test_every_replica_serves_the_model_that_was_promoted(cluster: Cluster, loop: str) -> None:
    """A model's roll-out: each pod of infer is asked by its own address, and so is each of label-queue."""
    program = (
        "import json, sys, urllib.request as r\n"
        "token = open('token').read().strip()\n"
        "def ask(url): return json.load(r.urlopen(r.Request(url, headers={'authorization': f'Bearer {token}'})))\n"
        "for url in sys.argv[1:]: print(json.dumps(ask(url)))\n"
    )

    def ask(*urls: str) -> list[dict[str, Any]]:
        said = cluster.kubectl("-n", loop, "exec", "client", "--", "python", "-c", program, *urls)
        return [json.loads(line) for line in said.splitlines()]

    def each(app_id: str, path: str) -> list[str]:
        pods = cluster.get("pods", "-l", f"app.kubernetes.io/name={app_id}")
        assert len(pods) == 2
        return [f"http://{pod['status']['podIP']}:8080{path}" for pod in pods]

    [runs] = ask("http://halfsure-retrain-trigger/v1/runs?project=digits")
    promoted = [
        run["model_version"] for run in sorted(runs["items"], key=lambda run: run["ended_at"]) if run["promoted"]
    ]

    def active() -> list[list[str]]:
        answers = ask(*each("infer", "/v1/loaded-models?project=digits"))
        return [[row["version"] for row in answer["items"] if row["active"]] for answer in answers]

    until(lambda: active() == [[promoted[-1]]] * 2, 60, lambda: f"{active()}, and {promoted[-1]} was promoted last")
    [model] = ask(f"http://halfsure-retrain-trigger/v1/models/{promoted[-1]}?project=digits")
    assert model["manifest"]["signature"], "what infer loaded is signed"
    first, second = ask(*each("label-queue", "/v1/stats?project=digits"))
    assert first["accepted"] == second["accepted"] > BUDGET


def test_a_training_pod_is_hardened_and_alone(cluster: Cluster, loop: str) -> None:
    """What the cluster made of the template: no sidecar, no token, bounded in time and tries."""
    jobs = cluster.get("jobs")
    assert jobs
    for job in jobs:
        spec = job["spec"]
        assert (spec["backoffLimit"], spec["ttlSecondsAfterFinished"]) == (3, 3600)
        assert spec["activeDeadlineSeconds"] == 1800
    for pod in cluster.get("pods", "-l", "app.kubernetes.io/name=training"):
        assert [one["name"] for one in pod["spec"]["containers"]] == ["training"]
        assert not pod["spec"].get("initContainers")
        mounts = {each["mountPath"] for each in pod["spec"]["containers"][0]["volumeMounts"]}
        assert mounts == {"/tmp", "/var/lib/blobs"}
        assert pod["spec"]["containers"][0]["resources"]["limits"]["memory"] == "2Gi"


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
def training_interrupted(cluster: Cluster) -> Iterator[dict[str, str]]:
    """While the loop runs, takes one training's pod away, then another's whole Job; whose, by what was taken."""
    taken: dict[str, str] = {}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.3) and len(taken) < 2:
            try:
                pods = cluster.get("pods", "-l", "app.kubernetes.io/name=training")
            except AssertionError:  # the cluster is busy
                continue
            for pod in pods:
                job = pod["metadata"]["labels"]["job-name"]
                # A pod that is ready is at work; one that ends cannot be interrupted any more.
                if pod["status"]["phase"] != "Running" or job in taken.values():
                    continue
                what, name = ("job", job) if "pod" in taken else ("pod", pod["metadata"]["name"])
                print(f"  deleting the {what} {name} in the middle of its training", flush=True)
                hard = ("--grace-period=0", "--force") if what == "pod" else ()
                cluster.kubectl("-n", "halfsure", "delete", what, name, "--wait=false", *hard)
                taken[what] = job

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield taken
    finally:
        over.set()
        thread.join(10)


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
