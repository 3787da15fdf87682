"""What pods may do with the cluster's own API, and training pods with anything: rules for manifests."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Object = Mapping[str, Any]
# All that any role may give, by API group and resource: retrain-trigger's Jobs, and what their pods have said.
RIGHTS = {
    ("batch", "jobs"): {"create", "get", "list", "watch", "delete"},
    ("", "pods"): {"get", "list"},
    ("", "pods/log"): {"get", "list"},
    ("", "podtemplates"): {"get"},
}
HOLDER = "halfsure-retrain-trigger"
TEMPLATE = "halfsure-training"
BACKEND = "HALFSURE_RETRAIN_TRIGGER_BACKEND"


def rights(objects: Sequence[Object]) -> Iterator[str]:
    """Who may ask the cluster for what."""
    for role in _of(objects, "Role"):
        for rule in role.get("rules", ()):
            yield from _rule(_name(role), rule)
    bound: set[str] = set()
    for binding in _of(objects, "RoleBinding"):
        if binding["roleRef"]["kind"] != "Role" or not _has(objects, "Role", binding["roleRef"]["name"]):
            yield f"{_name(binding)}: there is no Role {binding['roleRef']['name']!r}"
        for subject in binding.get("subjects", ()):
            if (subject["kind"], subject["name"]) != ("ServiceAccount", HOLDER):
                yield f"{_name(binding)}: only {HOLDER} may have a role, and not {subject['name']}"
            bound.add(subject["name"])
    for one in (*_of(objects, "Deployment"), *_of(objects, "StatefulSet")):
        pod = one["spec"]["template"]["spec"]
        if _has_token(pod) and pod.get("serviceAccountName") not in bound:
            yield f"{_name(one)}: has no role, so no use for a token of the cluster"


def training(objects: Sequence[Object]) -> Iterator[str]:
    """Whoever starts Jobs has a template for them, and may."""
    for one in _of(objects, "Deployment"):
        pod = one["spec"]["template"]["spec"]
        if any((each["name"], each.get("value")) == (BACKEND, "kubernetes") for each in _environment(pod)):
            if not _has(objects, "PodTemplate", TEMPLATE):
                yield f"{_name(one)}: it trains in Jobs, and there is no PodTemplate {TEMPLATE!r}"
            if not _has(objects, "RoleBinding", TEMPLATE) or not _has_token(pod):
                yield f"{_name(one)}: it trains in Jobs, and needs a token of the cluster and a role for it"


def training_pods(objects: Sequence[Object]) -> Iterator[str]:
    """They know the blob store and nothing else."""
    for one in _of(objects, "PodTemplate"):
        metadata, pod = one["template"].get("metadata", {}), one["template"]["spec"]
        if any(key.startswith("dapr.io/") for key in metadata.get("annotations", {})):
            yield f"{_name(one)}: a training pod has no sidecar, which would never let it end"
        if "app.kubernetes.io/part-of" in metadata.get("labels", {}):
            yield f"{_name(one)}: as a part of halfsure, its pods would be let in where only services are"
        if _has_token(pod):
            yield f"{_name(one)}: a training pod must not get the cluster's token"
        if pod.get("restartPolicy") != "Never":
            yield f"{_name(one)}: restartPolicy must be Never: the Job counts what failed"
        if not any(each["name"] == "HALFSURE_BLOBS" for each in _environment(pod)):
            yield f"{_name(one)}: it lacks HALFSURE_BLOBS, which says where work and outcome are"


def _rule(name: str, rule: Object) -> Iterator[str]:
    for group in rule["apiGroups"]:
        for resource in rule["resources"]:
            if extra := set(rule["verbs"]) - RIGHTS.get((group, resource), set()):
                yield f"{name}: nobody needs to {', '.join(sorted(extra))} {resource!r} of API group {group!r}"
            if resource == "podtemplates" and rule.get("resourceNames") != [TEMPLATE]:
                yield f"{name}: podtemplates must be narrowed to {TEMPLATE} (resourceNames)"


def _has_token(pod: Object) -> bool:
    sources = [source for volume in pod.get("volumes", ()) for source in volume.get("projected", {}).get("sources", ())]
    return any("serviceAccountToken" in source for source in sources)


def _environment(pod: Object) -> list[Object]:
    return [each for container in pod["containers"] for each in container.get("env", ())]


def _of(objects: Sequence[Object], kind: str) -> list[Object]:
    return [one for one in objects if one["kind"] == kind]


def _has(objects: Sequence[Object], kind: str, name: str) -> bool:
    return any(one["metadata"]["name"] == name for one in _of(objects, kind))


def _name(one: Object) -> str:
    return f"{one['kind']} {one['metadata']['name']}"
