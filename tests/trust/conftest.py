"""The command as a user types it, and a played stack that several tests look at."""

import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from conftest import require_runtime
from trust.playing import OFFSET, Command, Played, play

from services.cli.settings import StackSettings
from services.cli.stack import Stack


@pytest.fixture(scope="session")
def halfsure(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Run the command in an empty folder; its home is the one that is named."""
    folder = tmp_path_factory.mktemp("empty")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HALFSURE_")}
        return subprocess.run(
            [sys.executable, "-m", "services.cli.main", *arguments],
            cwd=folder,
            env={**environment, "HALFSURE_PORT_OFFSET": str(OFFSET)},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def played(tmp_path_factory: pytest.TempPathFactory, halfsure: Command) -> AsyncIterator[Played]:
    """Until somebody stops it."""
    require_runtime()
    folder = tmp_path_factory.mktemp("played")
    async with contextlib.AsyncExitStack() as until:
        settings = StackSettings(home=folder / "home", port_offset=OFFSET)
        stack = await until.enter_async_context(Stack(settings).running())
        found = await play(stack, folder / "home", folder / "stack.backup", halfsure, until.aclose)
        until.push_async_callback(found.rest.close)
        yield found
