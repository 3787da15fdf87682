"""Run files for a part of the services, on the project's own components."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from services.cli.settings import default_root


def run_file(
    folder: Path,
    apps: Sequence[str],
    commands: Mapping[str, Sequence[str]] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Path:
    """dapr/dapr.yaml with these services only; `commands` puts other programs in their places."""
    root = default_root()
    whole = yaml.safe_load((root / "dapr" / "dapr.yaml").read_text())
    whole["common"]["resourcesPaths"] = [str(root / "components" / "local"), str(root / "dapr")]
    whole["common"]["configFilePath"] = str(root / "dapr" / "config.yaml")
    whole["common"]["env"] |= {"PYTHONPATH": str(root), **(environment or {})}
    rows = [{**app, "appDirPath": str(root)} for app in whole["apps"] if app["appID"] in apps]
    for row in rows:
        row["command"] = list((commands or {}).get(row["appID"], row["command"]))
    path = folder / "dapr.yaml"
    path.write_text(yaml.safe_dump({**whole, "apps": rows}))
    return path
