"""Row D2: 64 annotators, 10,000 tasks, and `kill -9` for clients, service and sidecar all along."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from kills import TARGETS, play, summary
from queues import running

LEASE, SWEEP = 15, 1


@pytest.mark.asyncio
@pytest.mark.timeout(900)
async def test_64_annotators_and_kills_accept_nothing_twice_and_lose_nothing(
    tmp_path: Path, report: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    monkeypatch.setenv("HALFSURE_LABEL_QUEUE_LEASE_SECONDS", str(LEASE))
    monkeypatch.setenv("HALFSURE_LABEL_QUEUE_SWEEP_SECONDS", str(SWEEP))
    kills = [target for _ in range(3) for target in rng.sample(TARGETS, len(TARGETS))]
    async with running(tmp_path, 7_000) as queue:
        found = await play(queue, tmp_path, rng, tasks=10_000, annotators=64, processes=8, kills=kills)
    print(summary(found))
    report(accepted_twice=found.accepted_twice, lost=found.lost, crowd={**vars(found), "seed": seed, "lease": LEASE})
    assert (found.accepted_twice, found.lost) == (0, 0)
    assert found.held_by_killed > 0
    # The sweeper looks every second; on a busy machine, or while the service itself is away, it may be a little late.
    assert found.back_seconds <= LEASE + SWEEP + 10
    assert set(found.kills) == set(TARGETS)
