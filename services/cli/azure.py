"""What the profile azure needs in a resource group, what is there, and the difference in sentences."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2

MANAGEMENT = "https://management.azure.com"
SCOPE = f"{MANAGEMENT}/.default"
# What each is for. The last is needed by the training backend `azureml` alone.
RESOURCES = {
    "Microsoft.ServiceBus/namespaces": "the events",
    "Microsoft.DBforPostgreSQL/flexibleServers": "the state",
    "Microsoft.Storage/storageAccounts": "the content",
    "Microsoft.KeyVault/vaults": "the secrets",
    "Microsoft.ManagedIdentity/userAssignedIdentities": "who the services are",
}
# Built-in roles by the ids that Azure gives them, the same everywhere; the least that the services can do with.
ROLES = {
    "69a216fc-b8fb-44d8-bc22-1f3c2cd27a39": "Azure Service Bus Data Sender",
    "4f6d3b9b-027b-4f4c-9142-0e5a2a2247e0": "Azure Service Bus Data Receiver",
    "ba92f5b4-2d11-453d-a403-e96b0029c9fe": "Storage Blob Data Contributor",
    "4633458b-17de-408a-b874-0445c86b69e6": "Key Vault Secrets User",
}
_VERSIONS = {
    "resources": "2021-04-01",
    "bus": "2021-11-01",
    "roles": "2022-04-01",
    "containers": "2023-05-01",
}


@dataclass
class Inventory:
    """What a resource group has, as far as it was allowed to be seen."""

    resources: list[Mapping[str, Any]] = field(default_factory=list)  # type, name, id
    topics: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # name -> properties
    subscriptions: dict[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    containers: set[str] = field(default_factory=set)
    roles: set[str] = field(default_factory=set)  # ids of role definitions that the identity has

    def of(self, kind: str) -> Mapping[str, Any] | None:
        return next((one for one in self.resources if one["type"].lower() == kind.lower()), None)


def lacking(
    found: Inventory, topics: Mapping[str, Sequence[str]], container: str, lock_seconds: float, deliveries: int
) -> Iterator[str]:
    """A sentence for each thing that is not there, or is not as it must be."""
    for kind, purpose in RESOURCES.items():
        if found.of(kind) is None:
            yield f"there is no {kind} for {purpose}"
    if found.of("Microsoft.Storage/storageAccounts") and container not in found.containers:
        yield f"the storage account has no container {container!r}"
    if found.of("Microsoft.ManagedIdentity/userAssignedIdentities"):
        for role in sorted(set(ROLES) - found.roles):
            yield f"the identity is not {ROLES[role]}"
    if found.of("Microsoft.ServiceBus/namespaces"):
        yield from _entities(found, topics, lock_seconds, deliveries)


def _entities(
    found: Inventory, topics: Mapping[str, Sequence[str]], lock_seconds: float, deliveries: int
) -> Iterator[str]:
    for topic, names in topics.items():
        properties = found.topics.get(topic)
        if properties is None:
            yield f"there is no topic {topic}"
            continue
        if not properties.get("requiresDuplicateDetection"):
            yield f"topic {topic} does not detect duplicates, which cannot be changed later: make it anew"
        for name in names:
            subscription = found.subscriptions.get((topic, name))
            if subscription is None:
                yield f"topic {topic} has no subscription {name}: its events would be lost to it"
                continue
            if subscription.get("lockDuration") != (wanted := f"PT{lock_seconds:g}S"):
                yield f"{topic}/{name} locks for {subscription.get('lockDuration')}, and needs {wanted}"
            if (most := subscription.get("maxDeliveryCount", 0)) < deliveries:
                yield f"{topic}/{name} gives up after {most} deliveries, and needs {deliveries}"


class NotAllowed(Exception):
    """Azure does not let us look; the message says why."""


def inventory(token: str, subscription: str, group: str, base: str = MANAGEMENT) -> Inventory:
    """Look at a resource group with a token for Azure's management. Raises NotAllowed."""
    at = f"/subscriptions/{subscription}/resourceGroups/{group}"
    with httpx2.Client(base_url=base, headers={"authorization": f"Bearer {token}"}, timeout=30) as http:
        found = Inventory(list(_all(http, f"{at}/resources", "resources")))
        if bus := found.of("Microsoft.ServiceBus/namespaces"):
            for topic in _all(http, f"{bus['id']}/topics", "bus"):
                found.topics[topic["name"]] = topic["properties"]
                for one in _all(http, f"{bus['id']}/topics/{topic['name']}/subscriptions", "bus"):
                    found.subscriptions[topic["name"], one["name"]] = one["properties"]
        if account := found.of("Microsoft.Storage/storageAccounts"):
            rows = _all(http, f"{account['id']}/blobServices/default/containers", "containers")
            found.containers = {row["name"] for row in rows}
        if identity := found.of("Microsoft.ManagedIdentity/userAssignedIdentities"):
            principal = identity.get("properties", {}).get("principalId") or _principal(http, identity["id"])
            where = {"$filter": f"principalId eq '{principal}'"}
            rows = _all(http, f"{at}/providers/Microsoft.Authorization/roleAssignments", "roles", where)
            found.roles = {row["properties"]["roleDefinitionId"].rpartition("/")[2] for row in rows}
    return found


def _principal(http: httpx2.Client, identity: str) -> str:
    return _get(http, identity, {"api-version": "2023-01-31"})["properties"]["principalId"]


def _all(http: httpx2.Client, path: str, kind: str, where: Mapping[str, str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of all pages."""
    page = _get(http, path, {"api-version": _VERSIONS[kind], **(where or {})})
    while True:
        yield from page["value"]
        if not page.get("nextLink"):
            return
        page = _get(http, page["nextLink"])


def _get(http: httpx2.Client, path: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
    try:
        answer = http.get(path, params=params)
    except httpx2.HTTPError as error:
        raise NotAllowed(f"Azure's management does not answer: {error}") from error
    if answer.status_code >= 400:
        said = answer.json().get("error", {}) if "json" in answer.headers.get("content-type", "") else {}
        raise NotAllowed(f"Azure answers {answer.status_code} to GET {path}: {said.get('message', answer.text)[:300]}")
    return answer.json()
