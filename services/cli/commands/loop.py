"""`halfsure demo` and `halfsure simulate`: close the loop in front of the user."""

import asyncio
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from services.cli import report as reports
from services.cli.baseline import baseline
from services.cli.build import build_runtime
from services.cli.datasets import DataProblem, Dataset, digits, split
from services.cli.errors import EXPECTED
from services.cli.player import Plan, Player, Progress
from services.cli.reading import load
from services.cli.rest import Rest
from services.cli.settings import StackSettings
from services.cli.stack import Stack
from services.cli.tables import Columns
from services.cli.terminal import ProfileOption, app, fail, load_settings, out
from services.cli.toolchain import NoRuntime, find_runtime
from services.runtime.blobs import AzureBlobs, blob_store

DEMO_SEED = 0
DEMO_BUDGET, DEMO_BATCH = 120, 10
WANTED = 0.97  # of the fully supervised accuracy
REPORT = Path("out/demo")
Played = TypeVar("Played")

StrategyOption = Annotated[str, typer.Option("--strategy", help="Query strategy of the rounds.")]
BudgetOption = Annotated[int, typer.Option("--budget", min=1, help="Labels to ask for in all.")]
BatchOption = Annotated[int, typer.Option("--batch", min=1, help="Labels to ask for in a round.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of the split and the rounds.")]
CutOption = Annotated[
    float,
    typer.Option(
        "--cut", min=0, max=120, help="With --profile iotedge: cut the device from the cloud for so many seconds."
    ),
]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write the report to this file as JSON.")]


@app.command()
def demo(
    seed: SeedOption = DEMO_SEED,
    budget: BudgetOption = DEMO_BUDGET,
    batch: BatchOption = DEMO_BATCH,
    json_file: JsonFile = None,
    profile: ProfileOption = None,
    cut: CutOption = 0.0,
) -> None:
    """Close the loop on scikit-learn's handwritten digits; the report lands in out/demo, or out/demo-PROFILE."""
    settings = load_settings(None, profile)
    if cut and settings.profile != "iotedge":
        fail("--cut is for the profile iotedge: there is no way to cut in the others")
        raise typer.Exit(2)
    report = asyncio.run(_run(digits(), "uncertainty_coverage", budget, batch, seed, settings, cut))
    folder = REPORT if settings.profile == "local" else REPORT.with_name(f"{REPORT.name}-{settings.profile}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    (folder / "report.html").write_text(reports.page(report))
    out.print(f"The report: {folder / 'report.html'}, {folder / 'report.json'}")
    _write(json_file, report)
    if report["final_accuracy"] < WANTED * report["full_supervised_accuracy"]:
        fail(f"the loop ended below {WANTED:.0%} of the fully supervised accuracy")
        raise typer.Exit(1)


@app.command()
def simulate(
    data: Annotated[
        Path,
        typer.Option("--data", help="A folder of folders of images or texts, by class; or a .csv or .jsonl file."),
    ],
    label_column: Annotated[
        str | None, typer.Option("--label-column", help="The table's column of labels (default: its last).")
    ] = None,
    label_separator: Annotated[
        str | None, typer.Option("--label-separator", help="What parts several labels in a cell, such as ';'.")
    ] = None,
    text_column: Annotated[str | None, typer.Option("--text-column", help="The column that is a text.")] = None,
    stream_column: Annotated[
        str | None, typer.Option("--stream-column", help="The column that names the stream a row is a point of.")
    ] = None,
    window: Annotated[int, typer.Option("--window", min=1, max=8640, help="Points of a stream in a sample.")] = 32,
    strategy: StrategyOption = "uncertainty_coverage",
    budget: BudgetOption = 200,
    batch: BatchOption = 10,
    seed: SeedOption = 0,
    json_file: JsonFile = None,
    profile: ProfileOption = None,
) -> None:
    """See what the loop would save on your own labelled data, before anybody labels anything."""
    try:
        dataset = load(data, Columns(label_column, text_column, stream_column, window, label_separator))
    except DataProblem as problem:
        fail(str(problem))
        raise typer.Exit(2) from None
    _write(json_file, asyncio.run(_run(dataset, strategy, budget, batch, seed, load_settings(None, profile))))


def _write(path: Path | None, report: dict[str, Any]) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=1) + "\n")


async def _run(
    data: Dataset, strategy: str, budget: int, batch: int, seed: int, settings: StackSettings, cut: float = 0.0
) -> dict[str, Any]:
    """One play on a stack of its own."""
    parts = split(data, seed)
    budget = min(budget, len(parts.pool))
    plan = Plan(data, parts, strategy, budget, min(batch, budget), seed)
    return await on_own_stack(settings, plan.project, lambda folder, own: _play(plan, folder, own, cut))


async def on_own_stack(
    settings: StackSettings, name: str, play: Callable[[Path, StackSettings], Awaitable[Played]]
) -> Played:
    """What `play` makes of a stack in a folder of its own, which is gone afterwards, files and all; if it fails, what
    the processes said is kept under `name`."""
    task = asyncio.current_task()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel if task else lambda: None)
    folder = Path(tempfile.mkdtemp(prefix="halfsure-"))
    try:
        return await play(folder, settings.model_copy(update={"home": folder / "home"}))
    except asyncio.CancelledError:
        out.print("Stopped.")
        raise typer.Exit(130) from None
    except EXPECTED:
        logs = Path("out") / name / "logs"
        shutil.copytree(folder / "home" / "logs", logs, dirs_exist_ok=True)
        out.print(f"What every process said is kept in {logs}.")
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def announced(settings: StackSettings) -> tuple[Stack, str]:
    """The stack that is about to start, and its runtime's version; the runtime is built if there is none."""
    try:
        runtime = find_runtime(settings.dapr_bin)
    except NoRuntime:
        build_runtime(settings.root)
        runtime = find_runtime()
    stack = Stack(settings)
    what = f"{len(stack.app_ids)} services with their sidecars (Dapr {runtime.version}, profile {settings.profile})"
    out.print(f"Starting {what} ...", highlight=False)
    return stack, runtime.version


async def _play(plan: Plan, folder: Path, settings: StackSettings, cut: float) -> dict[str, Any]:
    started = time.monotonic()
    stack, version = announced(settings)
    async with stack.running():
        rest = Rest(stack.url, stack.token, plan.project)
        show = _Show(plan)
        outage = Outage(stack, cut)

        def changed(progress: Progress) -> None:
            outage.watch(progress)
            show.change(progress)

        player = Player(rest, plan, stack.app_ids, changed)
        comparison = None
        blobs = blob_store(stack.blobs("retrain-trigger"))
        try:
            with show:
                await player.make_project()
                work = folder / "baseline"
                work.mkdir()
                counts = range(plan.batch, plan.budget + 1, plan.batch)
                comparison = asyncio.create_task(baseline(plan, rest, blobs, work, counts))
                progress = await player.play()
                await outage.over()
                out.print("Comparing with random labelling and full supervision ...")
                lines = await comparison
        finally:
            if comparison is not None and not comparison.done():
                comparison.cancel()
                with suppress(asyncio.CancelledError):
                    await comparison
            await rest.close()
            if isinstance(blobs, AzureBlobs):
                await blobs.close()
        apps = {"runtime_version": version, "app_ids": list(stack.app_ids)}
    report = _report(plan, progress, lines, apps, time.monotonic() - started)
    report |= {"profile": settings.profile, "cut_seconds": outage.seconds}
    out.print(reports.terminal(report))
    return report


def _report(
    plan: Plan, progress: Progress, lines: dict[str, Any], apps: dict[str, Any], seconds: float
) -> dict[str, Any]:
    enough = WANTED * lines["full_supervised_accuracy"]
    reached = [row["labels"] for row in progress.rounds if row["promoted"] and row["accuracy"] >= enough]
    return {
        "dataset": plan.data.name,
        "metric": plan.data.metric,
        "strategy": plan.strategy,
        "seed": plan.seed,
        "pool": len(plan.split.pool),
        "ingested": progress.ingested,
        "rounds": progress.rounds,
        "labels_used": progress.asked,
        "labels_accepted": progress.accepted,
        "labels_in_last_snapshot": progress.in_snapshot,
        "counts": {
            "ingested": progress.ingested,
            "asked": progress.asked,
            "accepted": progress.accepted,
            "in_last_snapshot": progress.in_snapshot,
        },
        "gate_delta": plan.delta,
        "evaluation_labels": len(plan.split.evaluation),
        "test_samples": len(plan.split.test),
        "final_accuracy": progress.rounds[-1]["accuracy"] if progress.rounds else 0.0,
        **lines,
        "labels_to_97_percent": min(reached, default=None),
        "events": dict(sorted(progress.events.items())),
        "dapr": apps,
        "wall_seconds": round(seconds, 1),
    }


class Outage:
    """Cuts the device from the cloud once, for so many seconds, when the first model is in service."""

    def __init__(self, stack: Stack, seconds: float) -> None:
        self._stack = stack
        self._wanted = seconds
        self._task: asyncio.Task[None] | None = None
        self.seconds = 0.0

    def watch(self, progress: Progress) -> None:
        if self._wanted and self._task is None and progress.model_version:
            self._task = asyncio.create_task(self._happen())

    async def over(self) -> None:
        if self._task is not None:
            await self._task

    async def _happen(self) -> None:
        began = time.monotonic()
        self._signal(signal.SIGUSR1)
        out.print(f"The device is cut from the cloud for {self._wanted:.0f} s.", highlight=False)
        await asyncio.sleep(self._wanted)
        self._signal(signal.SIGUSR2)
        self.seconds = round(time.monotonic() - began, 1)
        out.print("The device has its way to the cloud again.", highlight=False)

    def _signal(self, number: signal.Signals) -> None:
        if pid := self._stack.pid("wan"):
            os.kill(pid, number)


class _Show:
    """The loop while it runs: a live board on a terminal, a line a change elsewhere."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._live: Live | None = None
        self._said = ""

    def __enter__(self) -> "_Show":
        if out.is_terminal:
            self._live = Live(console=out, refresh_per_second=8, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def change(self, progress: Progress) -> None:
        if self._live is not None:
            self._live.update(self._board(progress))
            return
        accuracy = f"{progress.accuracy:.3f}" if progress.accuracy is not None else "-"
        version = (progress.model_version or "none")[:12]
        line = (
            f"{progress.phase}: ingested {progress.ingested}, scored {progress.scored}, asked {progress.asked}, "
            f"accepted {progress.accepted}, models judged {len(progress.rounds)}, serving {version}, "
            f"accuracy {accuracy}"
        )
        if line != self._said:
            self._said = line
            out.print(line, highlight=False, soft_wrap=True)

    def _board(self, progress: Progress) -> Table:
        board = Table.grid(padding=(0, 2))
        board.add_row(f"[bold]{self._plan.data.name}[/]", progress.phase, "training" if progress.training else "")
        funnel = (
            ("ingested", progress.ingested, progress.pool),
            ("scored", progress.scored, progress.pool),
            ("asked", progress.asked, self._plan.budget),
            ("accepted", progress.accepted, self._plan.budget),
            ("in snapshot", progress.in_snapshot, self._plan.budget),
        )
        for name, count, total in funnel:
            board.add_row(name, ProgressBar(total=max(total, 1), completed=count, width=40), f"{count} of {total}")
        accuracy = "no model yet" if progress.accuracy is None else f"{progress.accuracy:.3f}"
        promoted = sum(row["promoted"] for row in progress.rounds)
        judged = f"{promoted} promoted of {len(progress.rounds)} judged"
        board.add_row("model", (progress.model_version or "none yet")[:16], judged)
        board.add_row("accuracy", f"[bold]{accuracy}[/]", "on a test set that never enters the loop")
        return board
