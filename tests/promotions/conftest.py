"""A stack of infer and retrain-trigger alone, with their sidecars, a broker and a store."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from conftest import require_runtime
from stacks import run_file

from services.cli.settings import StackSettings
from services.cli.stack import Stack

APPS = ("infer", "retrain-trigger")
OFFSET = 7000


@pytest.fixture(scope="session", autouse=True)
def runtime() -> None:
    require_runtime()


@pytest_asyncio.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    settings = StackSettings(home=tmp_path / "home", run_file=run_file(tmp_path, APPS), port_offset=OFFSET)
    async with Stack(settings).running() as running:
        yield running
