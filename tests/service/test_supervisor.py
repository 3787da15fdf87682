"""The supervisor with small processes: what was up once is started again, however often it dies."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.cli.process import ProcessSpec, Readiness
from services.cli.supervisor import StartFailed, Supervisor


def spec(folder: Path, *command: str, ready: Readiness | None = None) -> ProcessSpec:
    return ProcessSpec("one", command, 0, folder, os.environ, ready or Readiness(), folder / "one.log")


@pytest.fixture
async def supervisor(tmp_path: Path) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor([spec(tmp_path, "sleep", "600")], start_timeout=10, stop_grace=5)
    await supervisor.start()
    yield supervisor
    await supervisor.stop()


async def test_what_was_ready_once_is_never_given_up(supervisor: Supervisor) -> None:
    seen = {supervisor.processes["one"].pid}
    for _ in range(4):
        supervisor.kill("one")
        await supervisor.wait_ready("one", 20)
        seen.add(supervisor.processes["one"].pid)
    assert supervisor.processes["one"].restarts == 4
    assert len(seen) == 5


async def test_what_never_came_up_is_given_up_with_its_last_words(tmp_path: Path) -> None:
    never = Readiness(tcp=("127.0.0.1", 1))
    failing = Supervisor(
        [spec(tmp_path, "sh", "-c", "echo no such table; exit 3", ready=never)], start_timeout=30, stop_grace=5
    )
    with pytest.raises(StartFailed, match=r"ended with exit code 3(.|\n)*no such table"):
        await failing.start()
    with pytest.raises(StartFailed):
        await failing.wait_ready("one", 30)
    await failing.stop()
