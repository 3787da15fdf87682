"""Which curves are drawn, each once: results are kept by data set, model, strategy, seed and the code behind them."""

import hashlib
import json
import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench.selection.curves import COLD, play
from bench.selection.datasets import DATASETS, NotHere, load, pages
from bench.selection.learners import HEADS
from bench.selection.peers import LIBRARIES, PEERS
from services.select_uncertain.strategies import DEFAULT_STRATEGY, STRATEGIES

ROOT = Path(__file__).parents[2]
OURS = ("random", DEFAULT_STRATEGY)
EVERYWHERE = (
    "modal/margin",
    "skactiveml/coreset",
    "skactiveml/badge",
    "skactiveml/falcun",
    "skactiveml/clue",
)
"""The libraries' strategies that are measured on every data set."""
SMALL = ("wine", "iris", "breast_cancer", "diabetes")
THOROUGH = ("digits",)
"""Where all of our strategies are measured. All of the libraries' are on these and on the small sets."""
TIMES = 3
"""Times the seeds on `THOROUGH`, for what is measured everywhere and LEADING: the mean of ten curves crosses 97 %
up to 15 labels from where that of ten others does."""
LEADING = "skactiveml/maxherding"
"""The library's strategy that needs the fewest labels on `THOROUGH`; it takes too long on a large set."""
MLP_SETS = ("digits",)
HEAD_SETS = ("digits", "breast_cancer")
"""Where the head that is chosen by folds, and its calibration, is measured: it costs sixteen fits a batch."""


@dataclass(frozen=True, order=True)
class Run:
    """One learning curve."""

    dataset: str
    learner: str
    seed: int
    strategy: str

    @property
    def library(self) -> str:
        return LIBRARIES.get(self.strategy.partition("/")[0], "halfsure")

    @property
    def file(self) -> str:
        words = json.dumps([asdict(self), _code(self.strategy in PEERS, self.learner in HEADS), _state(self)])
        return f"{hashlib.sha256(words.encode()).hexdigest()[:24]}.json"


def planned(seeds: int, datasets: Sequence[str]) -> list[Run]:
    """Every curve; a strategy's together, so that a run that is stopped leaves few of them in pieces."""
    return [
        Run(dataset, learner, seed, strategy)
        for dataset in datasets
        for learner, strategy, times in _wanted(dataset)
        for seed in range(times * seeds)
    ]


def _wanted(dataset: str) -> Iterator[tuple[str, str, int]]:
    """Models and strategies on a data set, and how many times the seeds."""
    thorough = dataset in THOROUGH
    most = [*OURS, DEFAULT_STRATEGY + COLD, *EVERYWHERE, *([LEADING] if thorough else [])]
    yield from (("lr", name, TIMES if thorough else 1) for name in most)
    heads = HEADS if dataset in HEAD_SETS else HEADS[:2]
    yield from ((head, DEFAULT_STRATEGY, 1) for head in heads)
    if dataset in MLP_SETS:
        yield from (("mlp", name, 1) for name in most)
    more = [*(STRATEGIES if thorough else ()), *(PEERS if dataset in (*SMALL, *THOROUGH) else ())]
    yield from (("lr", name, 1) for name in more if name not in most)


def possible(datasets: Sequence[str], console: Console) -> list[str]:
    """The data sets that this machine can make; what the others lack is said."""
    found = []
    for name in datasets:
        try:
            load(name)
            found.append(name)
        except NotHere as reason:
            console.print(f"{name} is left out: {reason}", style="yellow")
    return found


def kept(runs: Sequence[Run], folder: Path) -> dict[Run, dict[str, Any]]:
    """The curves that are there already; of a strategy only where it is complete."""
    paths = {run: folder / run.file for run in runs}
    lacking = {(r.dataset, r.learner, r.strategy) for r, path in paths.items() if not path.exists()}
    whole = {run: path for run, path in paths.items() if (run.dataset, run.learner, run.strategy) not in lacking}
    return {run: json.loads(path.read_text()) for run, path in whole.items()}


def results(runs: Sequence[Run], folder: Path, workers: int, console: Console) -> dict[Run, dict[str, Any]]:
    """Every run's curve, from the folder where it is there already."""
    folder.mkdir(parents=True, exist_ok=True)
    known = {run: folder / run.file for run in runs}
    missing = [run for run, path in known.items() if not path.exists()]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("learning curves", total=len(runs), completed=len(runs) - len(missing))
        for run in _played(missing, folder, workers):
            progress.update(bar, advance=1, description=f"{run.dataset}, {run.learner}")
    return {run: json.loads(path.read_text()) for run, path in known.items()}


def _played(runs: Sequence[Run], folder: Path, workers: int) -> Iterator[Run]:
    jobs = [(run, folder) for run in runs]
    if workers == 1:
        yield from map(_keep, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(workers, maxtasksperchild=2000) as pool:
        yield from pool.imap_unordered(_keep, jobs, chunksize=2)


def _keep(job: tuple[Run, Path]) -> Run:
    from threadpoolctl import threadpool_limits

    run, folder = job
    with threadpool_limits(1):
        result = play(run.dataset, run.learner, run.strategy, run.seed)
    path = folder / run.file
    path.with_suffix(".tmp").write_text(json.dumps(result))
    path.with_suffix(".tmp").replace(path)
    return run


@cache
def _code(peer: bool, head: bool) -> str:
    """Hash of what can change a curve."""
    files = [ROOT / "bench" / "selection" / f"{name}.py" for name in ("curves", "datasets", "learners")]
    files += [ROOT / "services" / "contracts" / "uncertainty.py"]
    files += sorted((ROOT / "services" / "select_uncertain" / "strategies").glob("*.py")) if not peer else []
    files += [ROOT / "bench" / "selection" / "peers.py"] if peer else []
    if head:
        trainer = ROOT / "services" / "retrain_trigger"
        files += [trainer / f"{name}.py" for name in ("calibration", "heads", "label_spreading")]
    digest = hashlib.sha256(json.dumps(versions()).encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _state(run: Run) -> str:
    return pages()[2] if run.dataset == "manpages" else ""


@cache
def versions() -> dict[str, str]:
    """What was measured with what."""
    found = {}
    for name in ("numpy", "scikit-learn", "scikit-activeml", "modAL-python", "small-text"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


assert set(MLP_SETS) <= set(DATASETS)
