"""Kubernetes manifests: rendered with kustomize, and checked strictly and offline before a cluster sees them."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match

from services.cli.rights import rights, training, training_pods
from services.runtime.signing import KEY_SETTINGS

Object = Mapping[str, Any]
# Made in a cluster by `halfsure k8s-secrets`, or by whoever deploys (overlays/azure and overlays/iotedge say what).
SECRETS = {
    "halfsure-app-token": {"token"},
    "halfsure-dapr-token": {"token"},
    "halfsure-tokens": {"tokens.json"},
    "halfsure-model-key": {"key.pem"},
    "halfsure-model-keys": {"keys.pem"},
    "halfsure-azure": {"client-id", "blobs", "servicebus-namespace", "postgres-connection", "key-vault"},
    "halfsure-site": {"siteid", "servicebus-connection", "cloud-blobs", "mqtt-url"},
}
# A component may read several, of which one is set: a namespace with an identity, or a connection string.
ALTERNATIVES = {
    "HALFSURE_SERVICEBUS_CONNECTION": "HALFSURE_SERVICEBUS_NAMESPACE",
    "HALFSURE_SERVICEBUS_NAMESPACE": "HALFSURE_SERVICEBUS_CONNECTION",
    "HALFSURE_ENTRA_TENANT": "HALFSURE_SERVICEBUS_CONNECTION",
    "HALFSURE_ENTRA_CLIENT": "HALFSURE_SERVICEBUS_CONNECTION",
    "HALFSURE_ENTRA_CERTIFICATE": "HALFSURE_SERVICEBUS_CONNECTION",
}
# The stores and the bus that every service is built upon, by the names that runtime/settings.py knows.
NEEDED = ("pubsub", "statestore")


def faults(objects: Sequence[Object], schemas: Path) -> list[str]:
    """What is wrong with the objects of one overlay, a sentence each; empty when nothing is."""
    found = [fault for one in objects for fault in _shape(one, schemas)]
    return found or [fault for rule in RULES for fault in rule(_Overlay(objects, _read(schemas)["annotations"]))]


@cache
def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


@cache
def _validator(path: Path, kind: str) -> Draft202012Validator | None:
    known = _read(path)
    if kind not in known["kinds"]:
        return None
    return Draft202012Validator({"$defs": known["$defs"], **known["kinds"][kind]})


def _shape(one: Object, schemas: Path) -> Iterator[str]:
    """Unknown kinds and fields, missing fields, and values of the wrong form."""
    kind = f"{one.get('apiVersion')} {one.get('kind')}"
    validator = _validator(schemas, kind)
    if validator is None:
        yield f"{_name(one)}: no such kind is known here; deploy/k8s/schemas/generate.py lists those that are"
        return
    error = best_match(validator.iter_errors(one))
    if isinstance(error, ValidationError):
        where = ".".join(map(str, error.absolute_path)) or "the object"
        yield f"{_name(one)}: {where}: {error.message[:300]}"


def _name(one: Object) -> str:
    return f"{one.get('kind')} {one.get('metadata', {}).get('name')}"


class _Overlay:
    """The objects of an overlay by kind and name, and the services that it runs."""

    def __init__(self, objects: Sequence[Object], annotations: Sequence[str]) -> None:
        self.objects = objects
        self.known_annotations = frozenset(annotations)
        self.services = [one for one in objects if one["kind"] == "Deployment"]
        self.workloads = [one for one in objects if one["kind"] in ("Deployment", "StatefulSet", "PodTemplate")]

    def has(self, kind: str, name: str) -> bool:
        return any(one["kind"] == kind and one["metadata"]["name"] == name for one in self.objects)

    def of(self, kind: str) -> list[Object]:
        return [one for one in self.objects if one["kind"] == kind]

    def components(self, app_id: str) -> dict[str, Object]:
        """Those that this service's sidecar loads, by name."""
        return {
            one["metadata"]["name"]: one
            for one in self.of("Component")
            if not one.get("scopes") or app_id in one["scopes"]
        }

    def app_ids(self) -> dict[str, Object]:
        return {_annotations(one).get("dapr.io/app-id", ""): one for one in self.services}


def _annotations(deployment: Object) -> Mapping[str, str]:
    return deployment["spec"]["template"]["metadata"].get("annotations", {})


def _pod(workload: Object) -> Object:
    return workload.get("spec", workload)["template"]["spec"]


def _pairs(text: str) -> dict[str, str]:
    """`A=b,C=d` as the injector reads it."""
    return dict(pair.strip().split("=", 1) for pair in text.split(",") if "=" in pair)


def _said_once(overlay: _Overlay) -> Iterator[str]:
    seen: set[str] = set()
    for one in overlay.objects:
        if (name := _name(one)) in seen:
            yield f"{name} is there twice"
        seen.add(name)


def _sidecars(overlay: _Overlay) -> Iterator[str]:
    """Annotations are text to Kubernetes: nobody else would say that one is misspelt."""
    for one in overlay.services:
        given = _annotations(one)
        for key in given:
            if key.startswith("dapr.io/") and key not in overlay.known_annotations:
                yield f"{_name(one)}: Dapr knows no annotation {key}"
        configuration = given.get("dapr.io/config", "")
        if not overlay.has("Configuration", configuration):
            yield f"{_name(one)}: there is no Configuration {configuration!r} (dapr.io/config)"
        for key in ("dapr.io/app-token-secret", "dapr.io/api-token-secret"):
            if given.get(key) not in SECRETS:
                yield f"{_name(one)}: {key} names no secret that is known: {given.get(key)!r}"
        if given.get("dapr.io/enabled") != "true" or not given.get("dapr.io/app-id"):
            yield f"{_name(one)}: it would get no sidecar: dapr.io/enabled and dapr.io/app-id"


def _environment(overlay: _Overlay) -> Iterator[str]:
    """Every component's envRef is given to the sidecars that load the component."""
    for app_id, one in overlay.app_ids().items():
        given = _annotations(one)
        from_secret = _pairs(given.get("dapr.io/env-from-secret", ""))
        for reference in from_secret.values():
            name, _, key = reference.partition(":")
            if key not in SECRETS.get(name, set()):
                yield f"{_name(one)}: dapr.io/env-from-secret: the secret {name!r} has no key {key!r}"
        names = {*_pairs(given.get("dapr.io/env", "")), *from_secret}
        for component in overlay.components(app_id).values():
            wanted = [entry["envRef"] for entry in component["spec"].get("metadata", []) if "envRef" in entry]
            for variable in wanted:
                if variable not in names and ALTERNATIVES.get(variable) not in names:
                    yield f"{_name(one)}: its sidecar lacks {variable}, which {_name(component)} reads"


def _buses(overlay: _Overlay) -> Iterator[str]:
    """What services are built upon, and what is subscribed to, is there."""
    for app_id, one in overlay.app_ids().items():
        components = overlay.components(app_id)
        for name in NEEDED:
            if name not in components:
                yield f"{_name(one)}: there is no Component {name!r} for it"
        for subscription in overlay.of("Subscription"):
            bus = subscription["spec"]["pubsubname"]
            if app_id in subscription.get("scopes", ()) and bus not in components:
                yield f"{_name(subscription)}: there is no Component {bus!r} for {app_id}"


def _access(overlay: _Overlay) -> Iterator[str]:
    """Whoever is not in the list is refused by every other service."""
    for configuration in overlay.of("Configuration"):
        control = configuration["spec"].get("accessControl") or {}
        if control.get("defaultAction") != "deny":
            yield f"{_name(configuration)}: spec.accessControl.defaultAction must be deny"
        known = {policy["appId"] for policy in control.get("policies", ())}
        for app_id in sorted(set(overlay.app_ids()) - known):
            yield f"{_name(configuration)}: spec.accessControl does not know {app_id}"


def _references(overlay: _Overlay) -> Iterator[str]:
    """Service accounts, settings, secrets, claims and what is scaled."""
    for one in overlay.workloads:
        pod = _pod(one)
        account = pod.get("serviceAccountName")
        if account and not overlay.has("ServiceAccount", account):
            yield f"{_name(one)}: there is no ServiceAccount {account!r}"
        for volume in pod.get("volumes", ()):
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            if claim and not overlay.has("PersistentVolumeClaim", claim):
                yield f"{_name(one)}: there is no PersistentVolumeClaim {claim!r}"
            wanted = volume.get("secret", {})
            secret = None if wanted.get("optional") else wanted.get("secretName")
            if secret and secret not in SECRETS:
                yield f"{_name(one)}: nobody makes the secret {secret!r}"
        for container in pod["containers"]:
            yield from _container(overlay, one, container)
    for scaling in (*overlay.of("ScaledObject"), *overlay.of("HorizontalPodAutoscaler")):
        target = scaling["spec"]["scaleTargetRef"]["name"]
        if not overlay.has("Deployment", target):
            yield f"{_name(scaling)}: there is no Deployment {target!r}"


def _container(overlay: _Overlay, one: Object, container: Object) -> Iterator[str]:
    for source in container.get("envFrom", ()):
        name = source.get("configMapRef", {}).get("name")
        if name and not overlay.has("ConfigMap", name):
            yield f"{_name(one)}: there is no ConfigMap {name!r}"
    for variable in container.get("env", ()):
        secret = variable.get("valueFrom", {}).get("secretKeyRef")
        if secret and secret["key"] not in SECRETS.get(secret["name"], set()):
            yield f"{_name(one)}: {variable['name']}: the secret {secret['name']!r} has no key {secret['key']!r}"


def _signed(overlay: _Overlay) -> Iterator[str]:
    """The registry signs models, and infer loads no others."""
    for app_id, setting in KEY_SETTINGS.items():
        if (one := overlay.app_ids().get(app_id)) is None:
            continue
        given = {entry["name"]: entry.get("value", "") for entry in _pod(one)["containers"][0].get("env", ())}
        mounts = _pod(one)["containers"][0].get("volumeMounts", ())
        if not any(given.get(setting, "").startswith(f"{mount['mountPath']}/") for mount in mounts):
            yield f"{_name(one)}: {setting} names no file of a volume: models would go unsigned, or unverified"


def _hardened(overlay: _Overlay) -> Iterator[str]:
    """What the `restricted` level of Pod Security asks for, and what we ask beyond it."""
    for one in overlay.workloads:
        pod = _pod(one)
        security = pod.get("securityContext", {})
        if security.get("runAsNonRoot") is not True or not security.get("runAsUser"):
            yield f"{_name(one)}: must not run as root (runAsNonRoot, runAsUser)"
        if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{_name(one)}: needs seccompProfile RuntimeDefault"
        if pod.get("automountServiceAccountToken") is not False:
            yield f"{_name(one)}: must not get the cluster's token (automountServiceAccountToken: false)"
        if any("hostPath" in volume for volume in pod.get("volumes", ())):
            yield f"{_name(one)}: hostPath volumes are refused by the namespace"
        for container in pod["containers"]:
            own = container.get("securityContext", {})
            held = own.get("allowPrivilegeEscalation") is False and own.get("readOnlyRootFilesystem") is True
            if not held or own.get("capabilities", {}).get("drop") != ["ALL"]:
                yield f"{_name(one)}: {container['name']}: needs no privileges, no capabilities and a read-only root"
            if re.search(r":latest$|^[^:@]+$", container["image"]):
                yield f"{_name(one)}: {container['name']}: the image {container['image']} needs a fixed tag"
            # A training pod is not asked how it is: it ends.
            probes = {"startupProbe", "readinessProbe", "livenessProbe"} - set(container)
            if (probes and one["kind"] != "PodTemplate") or not container.get("resources", {}).get("limits", {}).get(
                "memory"
            ):
                yield f"{_name(one)}: {container['name']}: needs all three probes and a memory limit"


RULES: tuple[Callable[[_Overlay], Iterator[str]], ...] = (
    _said_once,
    _sidecars,
    _environment,
    _buses,
    _access,
    _references,
    _signed,
    _hardened,
    lambda overlay: rights(overlay.objects),
    lambda overlay: training(overlay.objects),
    lambda overlay: training_pods(overlay.objects),
)
