"""What a device's sidecars load: its component files, and what these want from the environment."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

# A component may read several, of which one is set: a namespace with an identity, or a connection string.
EITHER = frozenset({"HALFSURE_SERVICEBUS_CONNECTION", "HALFSURE_SERVICEBUS_NAMESPACE"})


def read_components(folder: Path) -> list[Mapping[str, Any]]:
    """The Dapr components of a folder, in the order of their names."""
    documents = [one for file in sorted(folder.glob("*.yaml")) for one in yaml.safe_load_all(file.read_text())]
    return [one for one in documents if one and one.get("kind") == "Component"]


def wanted(components: Sequence[Mapping[str, Any]], app_id: str) -> list[str]:
    """The environment variables that this service's sidecar must have, sorted."""
    mine = [one for one in components if not one.get("scopes") or app_id in one["scopes"]]
    return sorted({item["envRef"] for one in mine for item in one["spec"]["metadata"] if "envRef" in item})
