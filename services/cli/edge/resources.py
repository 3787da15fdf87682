"""What a device's sidecars load: its component files, and what these want from the environment."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from services.cli.components import folder_components


def read_components(folder: Path) -> list[Mapping[str, Any]]:
    """The Dapr components of a folder, in the order of their files."""
    return [one for ones in folder_components(folder).values() for one in ones]


def wanted(components: Sequence[Mapping[str, Any]], app_id: str) -> list[str]:
    """The environment variables that this service's sidecar must have, sorted."""
    mine = [one for one in components if not one.get("scopes") or app_id in one["scopes"]]
    return sorted({item["envRef"] for one in mine for item in one["spec"]["metadata"] if "envRef" in item})
