"""How fast the chain is beside empty handlers on the same components, and inference beside onnxruntime.

Only ratios inside one run say anything: absolute rates change with the machine and with what else runs on it.
"""

import argparse
import asyncio
import json
import platform
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.chain import Bed, Run, Stuck, bed
from bench.empty import Mode
from bench.inference import rates
from services.cli.errors import EXPECTED

GOAL = 0.60
SHIFT = 50  # ports between the two stacks
PASSES: dict[str, Mode | None] = {
    "chain": None,
    "empty handlers": "typed",
    "empty, with state and outbox": "unit",
    "empty, without envelopes": "bare",
}


async def measure(samples: int, repeat: int, port_offset: int, folder: Path, console: Console) -> dict[str, Any]:
    """Both stacks up at once and passes by turns, so that whatever else the machine does hits all alike."""
    async with (
        bed(folder / "real", real=True, port_offset=port_offset) as real,
        bed(folder / "empty", real=False, port_offset=port_offset + SHIFT) as empty,
    ):
        runs: dict[str, list[Run]] = {name: [] for name in PASSES}
        for number in range(repeat + 1):
            for name, mode in PASSES.items():
                where: Bed = real if mode is None else empty
                run = await where.run(mode, f"r{number}", samples if number else min(samples, 200))
                if number:  # the first pass warms up
                    runs[name].append(run)
                    console.print(f"  {number}/{repeat} {name}: {run.rate:.0f} samples/s", style="dim")
        publishing = await empty.publishing(5000)
    return {"runs": runs, "publishing": publishing}


def summary(runs: dict[str, list[Run]]) -> dict[str, Any]:
    """Rates, and ratios of passes of the same turn."""
    rows: dict[str, Any] = {}
    for name, passes in runs.items():
        ratios = [chain.rate / run.rate for chain, run in zip(runs["chain"], passes, strict=True)]
        rows[name] = {
            "rate_median": median(run.rate for run in passes),
            "rate_min": min(run.rate for run in passes),
            "cpu_ms_per_sample": median(sum(run.cpu_ms.values()) for run in passes),
            "chain_ratio_median": median(ratios),
            "chain_ratio_min": min(ratios),
            "runs": [run.as_json() for run in passes],
        }
    return rows


def show(console: Console, report: dict[str, Any]) -> None:
    table = Table(title=f"ingest -> infer -> select-uncertain -> label-queue, {report['samples']} samples")
    for column in ("", "samples/s", "lowest", "CPU ms a sample", "chain / this", "lowest"):
        table.add_column(column, justify="left" if not column else "right")
    for name, row in report["chain"].items():
        numbers = (row["rate_median"], row["rate_min"], row["cpu_ms_per_sample"])
        ratios = (f"{row['chain_ratio_median']:.2f}", f"{row['chain_ratio_min']:.2f}")
        table.add_row(name, *(f"{n:.0f}" for n in numbers[:2]), f"{numbers[2]:.2f}", *ratios)
    console.print(table)
    ratio = report["chain"]["empty handlers"]["chain_ratio_median"]
    console.print(f"goal: chain / empty handlers >= {GOAL:.2f}; measured {ratio:.2f}\n")
    for title, part in (("publish through a sidecar", "publishing"), ("inference, by CPU second", "inference")):
        table = Table(title=title)
        table.add_column("")
        table.add_column("samples/s" if part == "inference" else "events/s", justify="right")
        for name, rate in report[part].items():
            table.add_row(name, f"{rate:,.0f}")
        console.print(table)


def arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--samples", type=int, default=2000, help="samples in a pass (default 2000, at most 10000)")
    parser.add_argument("--repeat", type=int, default=3, help="passes of each kind (default 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured to FILE")
    parser.add_argument("--port-offset", type=int, default=6000, help="shift of all ports (default 6000)")
    options = parser.parse_args(words)
    if not 1 <= options.samples <= 10_000 or options.repeat < 1:
        parser.error("--samples is between 1 and 10000, and --repeat at least 1")
    return options


def main(words: Sequence[str]) -> int:
    options = arguments(words)
    console = Console()
    console.print("starting the chain and its empty twin ...")
    with tempfile.TemporaryDirectory(prefix="halfsure-bench-") as folder:
        try:
            measured = asyncio.run(measure(options.samples, options.repeat, options.port_offset, Path(folder), console))
        except (Stuck, *EXPECTED) as error:
            console.print(f"{error}", style="red")
            return 1
    report = {
        "samples": options.samples,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "goal": GOAL,
        "chain": summary(measured["runs"]),
        "publishing": measured["publishing"],
        "inference": rates(),
    }
    show(console, report)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
