"""As many samples as eight hours bring at ten a second, at full speed (`make soak EVENTS=n`).

They come in passes of a project each, which is deleted when all of its samples wait for an annotator: what a service
keeps of it in memory has to go with it. What is stored stays, so Redis grows and is only reported.
"""

import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import pytest
from conftest import require_runtime

from bench.chain import TOPICS, Bed, bed

EVENTS = int(os.environ.get("EVENTS") or 288_000)
PASSES = 24
OFFSET = 9100
REPORT = Path("out/soak/report.json")
LONGEST = 100_000 * 1.01  # entries: maxLenApprox in components/local/pubsub.yaml, and Redis cuts whole nodes
# That a process may grow by from the second quarter to the last one. A sidecar's heap takes minutes and 60 MB to find
# its size (GOGC in dapr/dapr.yaml), so a short soak says little; a kilobyte left by each sample is 140 MB in a long one
MORE_MEMORY, LEAST_BYTES = 0.1, 64 << 20
MORE_FILES = 16

pytestmark = [pytest.mark.loop, pytest.mark.timeout(600 + EVENTS // 20)]


@dataclass
class Look:
    """What was found after a pass; memory (resident bytes) and open files by process, entries by topic."""

    samples: int
    rate: float
    memory: dict[str, int] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    streams: dict[str, int] = field(default_factory=dict)


async def test_hours_of_samples_leave_nothing_behind(tmp_path: Path) -> None:
    require_runtime()
    began, looks = time.monotonic(), list[Look]()
    async with bed(tmp_path / "soak", real=True, port_offset=OFFSET) as chain:
        for number in range(PASSES):
            run = await chain.run(None, f"soak-{number}", EVENTS // PASSES)
            await chain.drop(f"soak-{number}")
            looks.append(await look(chain, run.samples, run.rate))
            print(f"pass {number + 1}/{PASSES}: {run.rate:.0f} samples/s, {_megabytes(looks[-1])}", flush=True)
    report = _write(looks, time.monotonic() - began)
    assert report["grown"] == {}, report


async def look(chain: Bed, samples: int, rate: float) -> Look:
    found = Look(samples, round(rate))
    for name, pid in chain.pids().items():
        process = psutil.Process(pid)
        found.memory[name], found.files[name] = process.memory_info().rss, process.num_fds()
    found.streams = await chain.lengths(TOPICS)
    return found


def judged(looks: list[Look]) -> dict[str, Any]:
    """`grown` names what is not flat: {what: [in the second quarter, in the last one]}."""
    quarter = len(looks) // 4
    early, late = looks[quarter : 2 * quarter], looks[-quarter:]
    grown: dict[str, list[float]] = {}
    for name in looks[0].memory:
        before, after = (median(one.memory[name] for one in part) for part in (early, late))
        if name != "redis" and after - before > max(MORE_MEMORY * before, LEAST_BYTES):
            grown[f"memory of {name}"] = [before, after]
        before, after = (median(one.files[name] for one in part) for part in (early, late))
        if after - before > MORE_FILES:
            grown[f"files of {name}"] = [before, after]
    for topic, length in late[-1].streams.items():
        if length > LONGEST:
            grown[f"stream {topic}"] = [LONGEST, length]
    return {"rate": round(median(one.rate for one in looks)), "grown": grown}


def _megabytes(one: Look) -> str:
    return ", ".join(f"{name} {size >> 20} MB" for name, size in one.memory.items() if not name.endswith("sidecar"))


def _write(looks: list[Look], seconds: float) -> dict[str, Any]:
    report = {"events": sum(one.samples for one in looks), "seconds": round(seconds), **judged(looks)}
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps({**report, "passes": [asdict(one) for one in looks]}, indent=1))
    return report
