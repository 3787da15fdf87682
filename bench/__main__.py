"""How fast the chain is beside empty handlers on the same components, and inference beside onnxruntime.

Writes out/bench/report.json, a row a figure (`figures.py`), with what `make test-queue` and `make bench-selection` have
measured if they have been run, and out/bench/measured.json, everything that was measured here. A ratio that is off the
last runs of bench/history.json ends it with 1; `--record` adds this run to them.

Only ratios inside one run say anything: absolute rates change with the machine and with what else runs on it.
"""

import argparse
import asyncio
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import figures
from bench.chain import Bed, Run, Stuck, bed
from bench.empty import Mode
from bench.inference import conv_rates, rates
from services.cli.errors import EXPECTED

GOAL = 0.60
ROOT = Path(__file__).parents[1]
OUT, HISTORY = ROOT / "out" / "bench", ROOT / "bench" / "history.json"
SHIFT, FURTHER = 50, 500  # ports from the first stack to the empty one, and to the one with more replicas
TWICE = ("infer", "label-queue")  # what may have replicas, as ingest has where there is no buffer
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
        memory = {"chain": real.memory(), "empty": empty.memory()}
        replicas = {app: await twice(app, real, samples, repeat, port_offset, folder, console) for app in TWICE}
    return {"runs": runs, "publishing": publishing, "memory": memory, "replicas": replicas}


async def twice(
    app: str, one: Bed, samples: int, repeat: int, port_offset: int, folder: Path, console: Console
) -> list[tuple[float, float]]:
    """Rates of passes of the same turn: with two replicas of a service, and with one."""
    rates: list[tuple[float, float]] = []
    async with bed(folder / app, real=True, port_offset=port_offset + FURTHER, twice=[app]) as two:
        await two.run(None, f"{app}-warm", min(samples, 200))
        for number in range(repeat):
            name = f"{app}-{number}"
            rates.append(((await two.run(None, name, samples)).rate, (await one.run(None, name, samples)).rate))
            console.print(f"  {number + 1}/{repeat} two of {app}: {rates[-1][0]:.0f} samples/s", style="dim")
    return rates


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
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured to FILE, too")
    parser.add_argument("--record", action="store_true", help="add this run to the history that later ones are held to")
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
        "memory": measured["memory"],
        "replicas": measured["replicas"],
        "inference": rates(),
        "convolutional": conv_rates(),
    }
    show(console, report)
    for file in (OUT / "measured.json", *([options.json] if options.json else ())):
        _write(file, report)
    return conclude(console, report, record=options.record)


def conclude(console: Console, report: dict[str, Any], *, record: bool) -> int:
    """Write the rows, say what was missed and what has got worse; 1 if anything has."""
    rows = [
        *figures.chain(report["chain"]),
        *figures.replicas(report["replicas"]),
        *figures.memory(report["memory"]),
        *figures.inference(report["inference"], report["convolutional"]),
        *figures.queue(_read(ROOT / "out" / "labels" / "report.json", {})),
        *figures.selection(_read(ROOT / "out" / "bench-selection" / "report.json", {})),
    ]
    _write(OUT / "report.json", rows)
    for row in rows:
        if row["met"] is False:
            console.print(f"missed: {row['what']}: {row['ratio'] or row['value']}, goal {row['goal']}", highlight=False)
    history = _read(HISTORY, [])
    worse = figures.worse(rows, history)
    for sentence in worse:
        console.print(f"worse: {sentence}", style="red", highlight=False)
    if record:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        said = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
        _write(HISTORY, [*history, figures.remembered(rows, at, said.stdout.strip(), report["machine"])])
    console.print(f"{OUT / 'report.json'}: {len(rows)} figures", highlight=False, soft_wrap=True)
    return 1 if worse else 0


def _read(file: Path, otherwise: Any) -> Any:
    return json.loads(file.read_text()) if file.exists() else otherwise


def _write(file: Path, value: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
