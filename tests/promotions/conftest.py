"""A stack of infer and retrain-trigger alone, with their sidecars, a broker and a store."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import yaml
from conftest import require_runtime

from services.cli.settings import StackSettings, default_root
from services.cli.stack import Stack

APPS = ("infer", "retrain-trigger")
OFFSET = 7000


@pytest.fixture(scope="session", autouse=True)
def runtime() -> None:
    require_runtime()


def run_file(folder: Path) -> Path:
    """dapr/dapr.yaml with these services only."""
    root = default_root()
    whole = yaml.safe_load((root / "dapr" / "dapr.yaml").read_text())
    whole["common"]["resourcesPaths"] = [str(root / "components" / "local"), str(root / "dapr")]
    whole["common"]["configFilePath"] = str(root / "dapr" / "config.yaml")
    whole["apps"] = [{**app, "appDirPath": str(root)} for app in whole["apps"] if app["appID"] in APPS]
    path = folder / "dapr.yaml"
    path.write_text(yaml.safe_dump(whole))
    return path


@pytest_asyncio.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    settings = StackSettings(home=tmp_path / "home", run_file=run_file(tmp_path), port_offset=OFFSET)
    async with Stack(settings).running() as running:
        yield running
