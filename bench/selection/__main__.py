"""Measure our query strategies beside scikit-activeml, modAL and small-text, on the same splits and seeds.

    make bench-selection                  everything: the first time about 40 minutes on two cores
    make bench-selection QUICK=1          two small data sets and two seeds, in a minute

Curves are kept in out/bench-selection/runs until the code behind them changes, so a run that was stopped goes on where
it was. The report is out/bench-selection/report.json, the tables table.md, the plots curves.svg.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from bench.selection import pages, report, runs, speed
from bench.selection.datasets import DATASETS

FOLDER = Path("out/bench-selection")
DOCUMENT = Path("docs/selection.md")
TRIED = Path(__file__).with_name("tried.json")


def main(words: Sequence[str] | None = None) -> int:
    """Run what is missing, and write the report."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.selection", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two small data sets, two seeds, small arrays")
    parser.add_argument("--seeds", type=int, default=10, help="paired seeds (default 10)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default 2), one thread each")
    parser.add_argument("--only", nargs="+", choices=sorted(DATASETS), default=list(DATASETS), metavar="DATASET",
                        help=f"of {', '.join(DATASETS)}")  # fmt: skip
    parser.add_argument("--so-far", action="store_true", help="measure nothing: a report of what is there already")
    parser.add_argument("--no-speed", action="store_true", help="leave time and memory out")
    parser.add_argument("--publish", action="store_true", help="put tables and plots into docs/ too")
    options = parser.parse_args(words)
    console = Console()
    folder = FOLDER / "quick" if options.quick else FOLDER
    wanted = ["wine", "iris"] if options.quick else options.only
    plan = runs.planned(2 if options.quick else options.seeds, runs.possible(wanted, console))
    if options.so_far:
        found = runs.kept(plan, folder / "runs")
        console.print(f"{len(found)} of {len(plan)} curves are there")
    else:
        found = runs.results(plan, folder / "runs", options.workers, console)
    measured = [] if options.no_speed else _speed(folder, options, console)
    made = report.build(found, measured, json.loads(TRIED.read_text()))
    (folder / "report.json").write_text(json.dumps(made, indent=1) + "\n")
    (folder / "table.md").write_text(pages.tables(made) + "\n")
    pages.plot(made, folder / "curves.svg")
    if options.publish:
        pages.put_into(DOCUMENT, made)
        pages.plot(made, DOCUMENT.with_name("selection-curves.svg"))
    missed = len(made["missed"])
    console.print(f"{len(made['goals']) - missed} goals met, {missed} missed: {folder / 'report.json'}")
    return 0


def _speed(folder: Path, options: argparse.Namespace, console: Console) -> list[dict]:
    path = folder / "speed.json"
    if options.so_far:
        return json.loads(path.read_text()) if path.exists() else []
    with console.status("measuring time and memory"):
        rows = speed.measure(options.quick)
    path.write_text(json.dumps(rows, indent=1) + "\n")
    return rows


if __name__ == "__main__":
    raise SystemExit(main())
