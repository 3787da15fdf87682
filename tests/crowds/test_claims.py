"""How long a claim takes with a thousand, a hundred thousand and a million tasks waiting (row D14).

All queues are up at once and are asked in turn, so that whatever else the machine does slows all of them alike.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import wait_until
from queues import QueueStack, fill, percentile, redis, running

CLAIMS, EARLY = 400, 150
SIZES = (1_000, 100_000, 1_000_000)
OFFSET = 5_400
P95_MS = 50.0
FLAT = 1.5  # p95 with a million against p95 with a thousand


async def _claims(queues: dict[int, QueueStack], count: int) -> dict[int, list[float]]:
    """Milliseconds of each claim of one task; it is answered before the next."""
    took: dict[int, list[float]] = {size: [] for size in queues}
    for number in range(count):
        who = f"annotator-{number % 64}"
        for size, queue in queues.items():
            began = time.perf_counter()
            answer = await queue.client.post("/v1/tasks:claim", json={"n": 1, "annotator": who})
            took[size].append((time.perf_counter() - began) * 1000)
            assert answer.status_code == 200, answer.text
            (task,) = answer.json()["tasks"]
            body = {"epoch": task["lease"]["epoch"], "value": "cat", "annotator": who}
            done = await queue.client.post(f"/v1/tasks/{task['id']}/annotations", json=body)
            assert done.status_code == 201, done.text
    return took


@pytest.mark.asyncio
@pytest.mark.timeout(1500)
async def test_a_claim_is_as_fast_with_a_million_tasks(tmp_path: Path, report: Callable[..., None]) -> None:
    more: dict[str, dict[str, Any]] = {str(size): {} for size in SIZES}
    queues: dict[int, QueueStack] = {}
    async with contextlib.AsyncExitStack() as open_:
        for at, size in enumerate(SIZES):
            folder = tmp_path / str(size)
            folder.mkdir()
            port = open_.enter_context(redis(folder, OFFSET + 8000 + at))
            await asyncio.to_thread(fill, port, size)
            began = time.monotonic()
            stack = running(folder, OFFSET + 500 * at, redis_host=f"127.0.0.1:{port}")
            queues[size] = await open_.enter_async_context(stack)
            more[str(size)] |= {"start_seconds": round(time.monotonic() - began, 1)}
        for size, took in (await _claims(queues, EARLY)).items():
            more[str(size)] |= {"while_reading_p95_ms": round(percentile(took, 0.95), 2)}
        began = time.monotonic()
        for size, queue in queues.items():

            async def all_read(queue: QueueStack = queue) -> bool:
                return (await queue.stats())["unread"] == 0

            await wait_until(all_read, 400)
            more[str(size)] |= {"read_after_seconds": round(time.monotonic() - began, 1)}
        took = await _claims(queues, CLAIMS)
        for size, queue in queues.items():
            counts = await queue.stats()
            assert (counts["accepted"], counts["queued"]) == (EARLY + CLAIMS, size - EARLY - CLAIMS)
            more[str(size)] |= {
                "p50_ms": round(percentile(took[size], 0.5), 2),
                "max_ms": round(max(took[size]), 2),
                "memory_mb": round(queue.memory / 1e6),
            }
    p95 = {str(size): round(percentile(took[size], 0.95), 2) for size in SIZES}
    report(claim_p95_ms=p95, claim_more=more)
    assert max(p95.values()) < P95_MS
    assert p95[str(SIZES[-1])] <= FLAT * p95[str(SIZES[0])]
