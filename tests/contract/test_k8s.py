"""The manifests, as kustomize renders them: in order as they are, and refused when they are not."""

import copy
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.cli.commands.k8s import SCHEMAS, cluster_secrets
from services.cli.kustomize import render, render_text
from services.cli.manifests import SECRETS, faults
from services.cli.runfile import read_run_file
from services.cli.settings import default_root

ROOT = default_root()
OVERLAYS = ROOT / "deploy" / "k8s" / "overlays"
NAMES = sorted(folder.name for folder in OVERLAYS.iterdir())
Objects = list[dict[str, Any]]


@pytest.fixture(scope="module")
def overlays() -> dict[str, Objects]:
    return {name: render(OVERLAYS / name) for name in NAMES}


def one(objects: Objects, kind: str, name: str) -> dict[str, Any]:
    [found] = [each for each in objects if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


def named(entries: Objects, name: str) -> dict[str, Any]:
    [found] = [each for each in entries if each["name"] == name]
    return found


def drop(objects: Objects, kind: str, name: str) -> None:
    objects.remove(one(objects, kind, name))


def infer(objects: Objects) -> dict[str, Any]:
    return one(objects, "Deployment", "halfsure-infer")["spec"]["template"]


def training(objects: Objects) -> dict[str, Any]:
    return one(objects, "PodTemplate", "halfsure-training")["template"]


def container(objects: Objects) -> dict[str, Any]:
    return infer(objects)["spec"]["containers"][0]


@pytest.mark.parametrize("name", NAMES)
def test_every_overlay_is_in_order(overlays: dict[str, Objects], name: str) -> None:
    """Row 4.5: plain manifests and Dapr's kinds, strictly by their schemas."""
    assert faults(overlays[name], ROOT / SCHEMAS) == []


def spread(objects: Objects) -> dict[str, Any]:
    return infer(objects)["spec"]["topologySpreadConstraints"][0]


# What is done to the local overlay, and words of the sentence that refuses it.
MUTANTS: dict[str, tuple[Callable[[Objects], Any], str]] = {
    "unknown field": (lambda all: infer(all)["spec"].update(replicas=2), "'replicas' was unexpected"),
    "unknown field of a component": (
        lambda all: one(all, "Component", "pubsub")["spec"].update(kind="x"),
        "'kind' was unexpected",
    ),
    "unknown field of a subscription": (
        lambda all: one(all, "Subscription", "infer.model")["spec"].update(topics=["model"]),
        "'topics' was unexpected",
    ),
    "misspelt field": (
        lambda all: container(all).update(readynessProbe=container(all).pop("readinessProbe")),
        "'readynessProbe' was unexpected",
    ),
    "wrong quantity": (
        lambda all: container(all)["resources"]["limits"].update(memory="1 GB"),
        "resources.limits.memory",
    ),
    "quantity with a wrong unit": (lambda all: container(all)["resources"]["requests"].update(cpu="100mm"), "requests"),
    "number as text": (lambda all: one(all, "Deployment", "halfsure-infer")["spec"].update(replicas="2"), "replicas"),
    "text as number": (lambda all: infer(all)["metadata"]["annotations"].update({"dapr.io/app-port": 8080}), "8080"),
    "missing field": (lambda all: container(all).pop("name"), "'name' is a required property"),
    "no such kind": (lambda all: all.append({"apiVersion": "v1", "kind": "Pods", "metadata": {}}), "no such kind"),
    "old API": (
        lambda all: one(all, "PodDisruptionBudget", "halfsure-infer").update(apiVersion="policy/v1beta1"),
        "no such kind",
    ),
    "missing bus": (lambda all: drop(all, "Component", "pubsub"), "no Component 'pubsub'"),
    "missing store": (lambda all: drop(all, "Component", "statestore"), "no Component 'statestore'"),
    "component scoped away": (
        lambda all: one(all, "Component", "statestore").update(scopes=["ingest"]),
        "no Component 'statestore'",
    ),
    "subscription to no bus": (
        lambda all: one(all, "Subscription", "infer.model")["spec"].update(pubsubname="bus"),
        "no Component 'bus'",
    ),
    "missing configuration": (lambda all: drop(all, "Configuration", "halfsure"), "no Configuration 'halfsure'"),
    "missing settings": (
        lambda all: all.remove(next(each for each in all if each["kind"] == "ConfigMap")),
        "no ConfigMap",
    ),
    "missing service account": (lambda all: drop(all, "ServiceAccount", "halfsure-infer"), "no ServiceAccount"),
    "missing claim": (lambda all: drop(all, "PersistentVolumeClaim", "blobs"), "no PersistentVolumeClaim"),
    "no host for the bus": (
        lambda all: infer(all)["metadata"]["annotations"].update({"dapr.io/env": "GOGC=400"}),
        "lacks HALFSURE_REDIS_HOST",
    ),
    "misspelt annotation": (
        lambda all: infer(all)["metadata"]["annotations"].update({"dapr.io/appid": "infer"}),
        "no annotation dapr.io/appid",
    ),
    "no sidecar": (lambda all: infer(all)["metadata"]["annotations"].pop("dapr.io/enabled"), "no sidecar"),
    "unknown caller": (
        lambda all: one(all, "Configuration", "halfsure")["spec"]["accessControl"]["policies"].pop(0),
        "does not know ingest",
    ),
    "open access": (
        lambda all: one(all, "Configuration", "halfsure")["spec"]["accessControl"].update(defaultAction="allow"),
        "must be deny",
    ),
    "unknown secret": (
        lambda all: named(container(all)["env"], "APP_API_TOKEN")["valueFrom"]["secretKeyRef"].update(name="other"),
        "the secret 'other' has no key",
    ),
    "models that nobody signed": (
        lambda all: named(container(all)["env"], "HALFSURE_INFER_MODEL_KEYS").update(name="OTHER"),
        "HALFSURE_INFER_MODEL_KEYS names no file",
    ),
    "keys nowhere": (
        lambda all: named(container(all)["volumeMounts"], "model-keys").update(mountPath="/etc/elsewhere"),
        "HALFSURE_INFER_MODEL_KEYS names no file",
    ),
    "root": (lambda all: infer(all)["spec"]["securityContext"].pop("runAsNonRoot"), "must not run as root"),
    "writable root": (
        lambda all: container(all)["securityContext"].update(readOnlyRootFilesystem=False),
        "read-only root",
    ),
    "the cluster's token": (
        lambda all: infer(all)["spec"].pop("automountServiceAccountToken"),
        "automountServiceAccountToken",
    ),
    "any image": (lambda all: container(all).update(image="halfsure/infer:latest"), "needs a fixed tag"),
    "no probe": (lambda all: container(all).pop("livenessProbe"), "all three probes"),
    "twice": (lambda all: all.append(one(all, "Service", "halfsure-infer")), "there twice"),
    "host path": (
        lambda all: infer(all)["spec"]["volumes"].append({"name": "host", "hostPath": {"path": "/"}}),
        "hostPath volumes are refused",
    ),
    "a role that may read secrets": (
        lambda all: one(all, "Role", "halfsure-training")["rules"][1].update(resources=["secrets"]),
        "nobody needs to get, list 'secrets'",
    ),
    "a role that may all": (
        lambda all: one(all, "Role", "halfsure-training")["rules"][0].update(verbs=["*"]),
        "nobody needs to *",
    ),
    "a role for any template": (
        lambda all: one(all, "Role", "halfsure-training")["rules"][2].pop("resourceNames"),
        "must be narrowed",
    ),
    "a role for the cluster": (
        lambda all: one(all, "Role", "halfsure-training").update(kind="ClusterRole"),
        "no such kind",
    ),
    "a role for another": (
        lambda all: one(all, "RoleBinding", "halfsure-training")["subjects"][0].update(name="halfsure-infer"),
        "only halfsure-retrain-trigger may have a role",
    ),
    "a binding of no role": (lambda all: drop(all, "Role", "halfsure-training"), "no Role 'halfsure-training'"),
    "a token for who has no role": (
        lambda all: infer(all)["spec"]["volumes"].append(
            {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}
        ),
        "no use for a token",
    ),
    "Jobs of no template": (lambda all: drop(all, "PodTemplate", "halfsure-training"), "no PodTemplate"),
    "Jobs without a role": (
        lambda all: drop(all, "RoleBinding", "halfsure-training"),
        "needs a token of the cluster and a role",
    ),
    "training with a sidecar": (
        lambda all: training(all)["metadata"].update(annotations={"dapr.io/enabled": "true"}),
        "has no sidecar",
    ),
    "training among the services": (
        lambda all: training(all)["metadata"]["labels"].update({"app.kubernetes.io/part-of": "halfsure"}),
        "let in where only services are",
    ),
    "training with the cluster's token": (
        lambda all: training(all)["spec"].update(automountServiceAccountToken=True),
        "must not get the cluster's token",
    ),
    "training as root": (
        lambda all: training(all)["spec"]["securityContext"].update(runAsNonRoot=False),
        "must not run as root",
    ),
    "training with a writable root": (
        lambda all: training(all)["spec"]["containers"][0]["securityContext"].pop("readOnlyRootFilesystem"),
        "read-only root",
    ),
    "training without a limit": (
        lambda all: training(all)["spec"]["containers"][0]["resources"].pop("limits"),
        "a memory limit",
    ),
    "training that restarts": (lambda all: training(all)["spec"].update(restartPolicy="OnFailure"), "must be Never"),
    "training without blobs": (
        lambda all: training(all)["spec"]["containers"][0]["env"].clear(),
        "lacks HALFSURE_BLOBS",
    ),
    "training without its volume": (
        lambda all: training(all)["spec"]["volumes"][1]["persistentVolumeClaim"].update(claimName="other"),
        "no PersistentVolumeClaim 'other'",
    ),
    "spread over nothing": (lambda all: spread(all).pop("topologyKey"), "'topologyKey' is a required property"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_refused(overlays: dict[str, Objects], name: str) -> None:
    mutate, words = MUTANTS[name]
    objects = copy.deepcopy(overlays["local"])
    mutate(objects)
    found = faults(objects, ROOT / SCHEMAS)
    assert any(words in fault for fault in found), found


def test_scaling_needs_what_it_scales(overlays: dict[str, Objects]) -> None:
    objects = copy.deepcopy(overlays["azure"])
    one(objects, "ScaledObject", "halfsure-infer")["spec"]["scaleTargetRef"]["name"] = "infer"
    assert faults(objects, ROOT / SCHEMAS) == ["ScaledObject halfsure-infer: there is no Deployment 'infer'"]


@pytest.mark.parametrize("part", ["scaling-redis", "scaling-cpu"])
def test_every_way_to_scale_fits_the_local_overlay(tmp_path: Path, part: str) -> None:
    parts = {"resources": [OVERLAYS / "local"], "components": [ROOT / "deploy" / "k8s" / "parts" / part]}
    listed = {key: [os.path.relpath(folder, tmp_path.resolve()) for folder in value] for key, value in parts.items()}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump({**listed, "namespace": "halfsure"}))
    objects = render(tmp_path)
    scaled = [each for each in objects if each["kind"] in ("ScaledObject", "HorizontalPodAutoscaler")]
    assert [each["metadata"]["name"] for each in scaled] == ["halfsure-infer", "halfsure-label-queue"]
    assert faults(objects, ROOT / SCHEMAS) == []


@pytest.mark.parametrize(
    ("part", "app", "variable", "file"),
    [
        ("sources", "halfsure-ingest", "HALFSURE_INGEST_SOURCES", "sources.yaml"),
        ("notifications", "halfsure-portal", "HALFSURE_PORTAL_NOTIFICATIONS", "notifications.toml"),
    ],
)
def test_what_an_operator_writes_reaches_its_service_and_that_what_it_names(
    tmp_path: Path, part: str, app: str, variable: str, file: str
) -> None:
    parts = {"resources": [OVERLAYS / "local"], "components": [ROOT / "deploy" / "k8s" / "parts" / part]}
    listed = {key: [os.path.relpath(folder, tmp_path.resolve()) for folder in value] for key, value in parts.items()}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump({**listed, "namespace": "halfsure"}))
    objects = render(tmp_path)
    assert faults(objects, ROOT / SCHEMAS) == []
    for each in (each for each in objects if each["kind"] == "Deployment"):
        pod = each["spec"]["template"]["spec"]
        variables = {row["name"]: row.get("value") for row in pod["containers"][0].get("env", ())}
        mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0].get("volumeMounts", ())}
        mine = each["metadata"]["name"] == app
        assert (part in mounts) == mine
        assert variables.get(variable) == (f"{mounts[part]}/{file}" if mine else None)
    labels = one(objects, "Deployment", app)["spec"]["template"]["metadata"]["labels"]
    chosen = one(objects, "NetworkPolicy", part)["spec"]["podSelector"]["matchLabels"]
    assert chosen.items() <= labels.items()


def test_a_rendering_is_always_the_same() -> None:
    """Row 4.7: what a GitOps agent renders is what was reviewed."""
    assert render_text(OVERLAYS / "local") == render_text(OVERLAYS / "local")


def test_overlays_take_the_very_files_that_one_machine_takes(overlays: dict[str, Objects]) -> None:
    """Components, subscriptions and resiliency as they lie in components/ and dapr/, but for namespace and labels."""
    for overlay, profile in {"local": "local", "iotedge": "iotedge", "cloud": "azure", "azure": "azure"}.items():
        files = [*(ROOT / "components" / profile).glob("*.yaml")]
        files += [ROOT / "dapr" / "subscriptions.yaml", ROOT / "dapr" / "resiliency.yaml"]
        wanted = [each for file in files for each in yaml.safe_load_all(file.read_text()) if each]
        for each in wanted:
            if each["kind"] == "Kustomization":
                continue
            found = one(overlays[overlay], each["kind"], each["metadata"]["name"])
            assert found["spec"] == each["spec"]
            assert found.get("scopes") == each.get("scopes")


def test_every_service_runs_in_some_overlay_and_the_same_everywhere(overlays: dict[str, Objects]) -> None:
    """Row 4.31: one image a service, whatever the profile; only components and environment differ."""
    images: dict[str, set[str]] = {}
    for objects in overlays.values():
        for each in objects:
            if each["kind"] == "Deployment":
                template = each["spec"]["template"]
                app_id = template["metadata"]["annotations"]["dapr.io/app-id"]
                images.setdefault(app_id, set()).add(template["spec"]["containers"][0]["image"])
    assert {app.app_id for app in read_run_file(ROOT / "dapr" / "dapr.yaml").apps} <= set(images)
    assert images == {app_id: {f"halfsure/{app_id}:dev"} for app_id in images}
    assert all((ROOT / "requirements" / f"{app_id}.txt").exists() for app_id in images)


def test_sidecars_are_told_in_a_cluster_what_they_are_told_on_one_machine(overlays: dict[str, Objects]) -> None:
    common = read_run_file(ROOT / "dapr" / "dapr.yaml").common
    given = infer(overlays["local"])["metadata"]["annotations"]
    assert given["dapr.io/max-body-size"] == common.max_body_size
    assert given["dapr.io/app-health-check-path"] == common.app_health_check_path
    assert given["dapr.io/app-health-probe-interval"] == str(common.app_health_probe_interval)
    assert given["dapr.io/app-health-probe-timeout"] == str(common.app_health_probe_timeout)
    assert given["dapr.io/app-health-threshold"] == str(common.app_health_threshold)


def test_a_pod_lives_long_enough_to_say_its_last(overlays: dict[str, Objects]) -> None:
    """preStop, uvicorn's 8 s and the outbox's last round, then the sidecar's own end, before the KILL."""
    given, spec = infer(overlays["local"])["metadata"]["annotations"], infer(overlays["local"])["spec"]
    pause = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    blocked = int(given["dapr.io/block-shutdown-duration"].removesuffix("s"))
    assert pause + 8 < blocked
    assert blocked + int(given["dapr.io/graceful-shutdown-seconds"]) < spec["terminationGracePeriodSeconds"]


def test_network_rules_begin_with_nothing(overlays: dict[str, Objects]) -> None:
    """Row 3.8."""
    for objects in overlays.values():
        spec = one(objects, "NetworkPolicy", "deny-all")["spec"]
        assert spec == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
        namespace = one(objects, "Namespace", "halfsure")["metadata"]["labels"]
        assert namespace["pod-security.kubernetes.io/enforce"] == "restricted"


def test_an_image_has_what_its_service_needs_and_no_trainer_elsewhere() -> None:
    for file in (ROOT / "requirements").glob("*.txt"):
        if (ROOT / "services" / file.stem.replace("-", "_") / "app.py").exists():
            lines = file.read_text().splitlines()
            names = {line.split("==")[0] for line in lines if "==" in line}
            assert "onnxruntime" in names or file.stem not in ("infer", "retrain-trigger")
            assert ("scikit-learn" in names) == (file.stem == "retrain-trigger"), file
            locked = set((ROOT / "requirements" / "dev.txt").read_text().splitlines())
            assert {line for line in lines if "==" in line} <= locked, f"{file.name} is not of one lock: make lock"


def test_the_secrets_that_are_made_are_those_that_are_referred_to() -> None:
    made = {each["metadata"]["name"]: set(each["stringData"]) for each in cluster_secrets("halfsure")}
    ours = {name: keys for name, keys in SECRETS.items() if name not in ("halfsure-azure", "halfsure-site")}
    assert made == {**ours, "halfsure-operator": {"token"}}
    validator = json.loads((ROOT / SCHEMAS).read_text())
    assert set(validator["sources"]) == {"kubernetes", "dapr", "keda"}
    for each in cluster_secrets("elsewhere"):
        assert faults([each], ROOT / SCHEMAS) == []
        assert each["metadata"]["namespace"] == "elsewhere"


def test_a_kustomization_is_short(overlays: dict[str, Objects]) -> None:
    """A service is added in a few lines; the Deployment is written once."""
    for file in (ROOT / "deploy" / "k8s" / "base").glob("*/kustomization.yaml"):
        assert len(Path(file).read_text().splitlines()) <= 10
    assert len(list((ROOT / "deploy" / "k8s").rglob("deployment.yaml"))) == 2  # the one, and what Azure adds to it


@pytest.mark.parametrize("name", ["local", "azure", "cloud"])
def test_training_is_given_its_image_with_everything_else(tmp_path: Path, name: str) -> None:
    """`kustomize edit set image` in an overlay of one's own reaches the Jobs as well."""
    folder = os.path.relpath(OVERLAYS / name, tmp_path.resolve())
    images = [{"name": "halfsure/retrain-trigger", "newName": "registry/trigger", "newTag": "1.2.3"}]
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump({"resources": [folder], "images": images}))
    objects = render(tmp_path)
    trigger = one(objects, "Deployment", "halfsure-retrain-trigger")["spec"]["template"]
    for template in (training(objects), trigger):
        assert template["spec"]["containers"][0]["image"] == "registry/trigger:1.2.3"


def test_only_one_pod_has_a_token_and_its_sidecar_has_not(overlays: dict[str, Objects]) -> None:
    for objects in overlays.values():
        mounting = {
            (each["metadata"]["name"], container["name"])
            for each in objects
            if each["kind"] in ("Deployment", "StatefulSet", "PodTemplate")
            for container in each.get("spec", each)["template"]["spec"]["containers"]
            if any("serviceaccount" in mount["mountPath"] for mount in container.get("volumeMounts", ()))
        }
        trains = any(each["kind"] == "PodTemplate" for each in objects)
        assert mounting == ({("halfsure-retrain-trigger", "service")} if trains else set())


@pytest.mark.parametrize("name", ["local", "azure", "cloud"])
def test_a_training_pod_reaches_the_blob_store_alone(overlays: dict[str, Objects], name: str) -> None:
    """Row 3.8: of all policies, those that let a training pod out."""
    labels = training(overlays[name])["metadata"]["labels"]
    rules = [
        rule
        for each in overlays[name]
        if each["kind"] == "NetworkPolicy"
        for selector in [each["spec"]["podSelector"].get("matchLabels", {})]
        if selector.items() <= labels.items()
        for rule in (*each["spec"].get("egress", ()), *each["spec"].get("ingress", ()))
    ]
    assert sorted(port["port"] for rule in rules for port in rule["ports"]) == (
        [] if name == "local" else [53, 53, 443]
    )


def test_azure_knows_every_service_account_that_signs_in(overlays: dict[str, Objects]) -> None:
    """Federated credentials are by name: one that is missing or misspelt is a pod that Azure does not let in."""
    text = (ROOT / "deploy" / "azure" / "main.bicep").read_text()
    found = re.search(r"var services = \[(.*?)\]", text)
    assert found
    assert "system:serviceaccount:${namespace}:halfsure-${service}" in text
    federated = {f"halfsure-{name}" for name in re.findall(r"'([a-z-]+)'", found[1])}
    used = {
        pod["spec"]["serviceAccountName"]
        for each in overlays["azure"]
        if each["kind"] in ("Deployment", "PodTemplate")
        for pod in [each.get("spec", each)["template"]]
        if pod["metadata"]["labels"].get("azure.workload.identity/use") == "true"
    }
    assert federated == used


def test_without_a_cloud_no_package_of_azure_is_needed() -> None:
    """Row 4.6: the five services of the local profile, with every import of Azure's packages refused."""
    program = (
        "import sys, importlib\n"
        "class Refuse:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.split('.')[0] in ('azure', 'msal', 'aiohttp'): raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from pathlib import Path\n"
        "from services.runtime.blobs import blob_store\n"
        "from services.runtime.settings import RuntimeSettings\n"
        "async def connect(_): raise RuntimeError\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(f'services.{name}.app').create(RuntimeSettings(), connect)\n"
        "blob_store('file:///tmp/none')\n"
        "import services.retrain_trigger.backends.remote\n"
        "assert not [name for name in sys.modules if name.split('.')[0] == 'azure']\n"
    )
    names = [app.app_id.replace("-", "_") for app in read_run_file(ROOT / "dapr" / "dapr.yaml").apps]
    done = subprocess.run(
        [sys.executable, "-c", program, *names], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_one_command_applies_a_profile(overlays: dict[str, Objects]) -> None:
    """Row 4.6: what a folder renders to needs no other folder, only secrets that its head names."""
    readme = (ROOT / "deploy" / "k8s" / "README.md").read_text()
    assert "kubectl apply --server-side -k deploy/k8s/overlays/local" in readme
    for name, objects in overlays.items():
        assert f"| `{name}` |" in readme
        assert {"Namespace", "Deployment", "Component", "Subscription"} <= {each["kind"] for each in objects}


def test_what_tilt_applies_is_in_order_and_trains_the_code_that_changed() -> None:
    objects = render(ROOT / "tilt" / "overlay")
    assert faults(objects, ROOT / SCHEMAS) == []
    [container] = one(objects, "Deployment", "halfsure-retrain-trigger")["spec"]["template"]["spec"]["containers"]
    assert {"name": "HALFSURE_RETRAIN_TRIGGER_BACKEND", "value": "local"} in container["env"]


def test_one_machine_and_a_cluster_have_the_same_access_control(overlays: dict[str, Objects]) -> None:
    """Row 3.8: but for the namespace, and the trust domain, of which a sentry on one machine knows one alone."""
    local = yaml.safe_load((ROOT / "dapr" / "access.yaml").read_text())["spec"]["accessControl"]
    cluster = one(overlays["cloud"], "Configuration", "halfsure")["spec"]["accessControl"]
    text = json.dumps(local, sort_keys=True).replace('"public"', '"halfsure"').replace('"default"', '"halfsure"')
    assert json.loads(text) == cluster
