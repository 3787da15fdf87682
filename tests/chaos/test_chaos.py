"""Seeded runs of the loop under faults: nothing lost, nothing doubled, nothing stuck (`make chaos RUNS=n SEED=s`)."""

import json
import os
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from chaos.runs import Report, run
from chaos.stacks import ChaosStack, small_disk
from conftest import require_runtime

RUNS = int(os.environ.get("RUNS") or 10)
SEED = int(os.environ.get("SEED") or 1)
REPLICAS = int(os.environ.get("REPLICAS") or 1)
OFFSET = 9000
REPORT = Path("out/chaos/report.json")

pytestmark = [pytest.mark.loop, pytest.mark.timeout(120 + 400 * RUNS)]


async def test_whatever_goes_wrong_nothing_is_lost_and_nothing_doubled(tmp_path: Path) -> None:
    require_runtime()
    reports: list[Report] = []
    with small_disk(tmp_path) as disk:
        async with ChaosStack(tmp_path, OFFSET, REPLICAS).running() as stack:
            for seed in range(SEED, SEED + RUNS):
                reports.append(await run(stack, seed, disk))
                told = reports[-1]
                print(f"seed {seed}: {', '.join(told.faults)}; {told.seconds} s"
                      f"{'; FAILED ' + str(told.stuck or told.lost[:3] + told.doubled[:3]) if told.failed else ''}",
                      flush=True)  # fmt: skip
                _write(reports[-1])
                if told.stuck:
                    break  # what it left behind would be blamed on the next
    assert [told for told in reports if told.failed] == []


def _write(report: Report) -> None:
    """Add the run to the report; a seed that is played again takes the place of its first run."""
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    known: dict[str, Any] = json.loads(REPORT.read_text())["by_seed"] if REPORT.exists() else {}
    known[str(report.seed)] = {**asdict(report), "failed": report.failed, "replicas": REPLICAS}
    faults = Counter(fault.split()[0] for row in known.values() for fault in row["faults"] if fault[0] != "(")
    summary = {
        "runs": len(known),
        "faults": dict(faults.most_common()),
        "lost": sum(len(row["lost"]) for row in known.values()),
        "doubled": sum(len(row["doubled"]) for row in known.values()),
        "failing_seeds": sorted(int(seed) for seed, row in known.items() if row["failed"]),
        "by_seed": known,
    }
    REPORT.write_text(json.dumps(summary, indent=1))
