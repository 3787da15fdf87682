"""Whole stacks, each on ports and in folders of its own, and what they must not leave behind."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from conftest import require_runtime

from services.cli.ports import still_busy
from services.cli.settings import StackSettings
from services.cli.stack import Stack


@pytest.fixture(scope="session", autouse=True)
def runtime() -> None:
    require_runtime()


@pytest.fixture
def offset() -> int:
    """Ports of this worker's own: between those of tests/integration and `free_port`."""
    return 20_000 + 1_000 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


@pytest.fixture
def scratch(tmp_path: Path, offset: int) -> Iterator[Path]:
    """A folder for everything temporary; afterwards no process, port or file of the stack may be left."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    yield temporary
    ports = Stack(StackSettings(home=tmp_path / "none", port_offset=offset)).ports.numbers.values()
    assert still_busy(ports) == []
    assert [process.cmdline() for process in psutil.process_iter() if _mentions(process, str(tmp_path))] == []
    assert list(temporary.iterdir()) == []


def _mentions(process: psutil.Process, text: str) -> bool:
    try:
        return process.pid != os.getpid() and any(text in part for part in [*process.cmdline(), process.cwd()])
    except psutil.Error:
        return False


@pytest.fixture
def halfsure(tmp_path: Path, scratch: Path, offset: int) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command as a user does, in an empty folder."""

    def run(*arguments: str, seconds: float = 400) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HALFSURE_")}
        environment |= {"HALFSURE_PORT_OFFSET": str(offset), "TMPDIR": str(scratch)}
        return subprocess.run(
            [sys.executable, "-m", "services.cli.main", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=seconds,
        )

    return run


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Beside the others goes what waits longest: for the broker, which hands out again what was in hand at a kill."""
    items.sort(key=lambda item: item.path.name != "test_kill.py")
