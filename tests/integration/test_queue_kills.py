"""A few annotators and a few kills on the real stack; `make test-queue` plays the same with 64 and 10,000 tasks."""

import random
from pathlib import Path

import pytest
from conftest import require_runtime
from kills import play, summary
from queues import running

pytestmark = pytest.mark.integration

LEASE = 15


async def test_a_killed_client_and_a_killed_service_lose_nothing_and_double_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_runtime()
    seed = 5
    print(f"seed {seed}")
    monkeypatch.setenv("HALFSURE_LABEL_QUEUE_LEASE_SECONDS", str(LEASE))
    monkeypatch.setenv("HALFSURE_LABEL_QUEUE_SWEEP_SECONDS", "1")
    async with running(tmp_path, 6_400) as queue:
        kills = ["client", "label-queue"]
        found = await play(queue, tmp_path, random.Random(seed), tasks=800, annotators=8, processes=2, kills=kills)
    print(summary(found))
    assert (found.accepted_twice, found.lost) == (0, 0)
    assert found.kills == {"client": 1, "label-queue": 1}
    assert found.back_seconds <= LEASE + 10
