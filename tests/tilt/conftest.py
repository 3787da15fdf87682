"""Tilt as a developer runs it, in this checkout: with the ports of a stack that nobody has moved."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import require_runtime

from services.cli.ports import still_busy
from services.cli.settings import StackSettings, default_root
from services.cli.stack import Stack
from services.cli.tilt import NoTilt, find_tilt
from services.cli.toolchain import find_cli


@pytest.fixture(scope="session")
def binary() -> Path:
    require_runtime()
    try:
        found = find_tilt()
    except NoTilt as error:
        pytest.skip(str(error))
    assert found is not None
    return found


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """No cluster in sight, the project's programs on PATH; afterwards no port of a stack is held."""
    cli = find_cli()
    assert cli is not None, "halfsure setup --with-cli"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HALFSURE_")}
    path = f"{Path(sys.executable).parent}:{cli.parent}:{os.environ['PATH']}"
    busy = still_busy(Stack(StackSettings()).ports.numbers.values())
    assert busy == [], f"a stack runs here already, on ports {busy}: `halfsure down`"
    yield {**kept, "PATH": path, "KUBECONFIG": str(tmp_path / "none"), "TILT_DISABLE_ANALYTICS": "1"}
    assert still_busy(Stack(StackSettings()).ports.numbers.values()) == []


@pytest.fixture
def tilt(binary: Path, environment: dict[str, str]) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    def run(*words: str, **more: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [str(binary), *words],
            cwd=default_root(),
            env={**environment, **more},
            capture_output=True,
            text=True,
            timeout=280,
        )

    return run
