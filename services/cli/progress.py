"""Shows how a build goes: a live line on a terminal, a line now and then elsewhere."""

import time
from types import TracebackType

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from services.cli.terminal import err

_SECONDS_BETWEEN_LINES = 15.0


class Steps:
    """The two steps of a Go build: download the modules, compile the packages."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._began = time.monotonic()
        self._told = 0.0
        self._downloads = 0
        self._compiled = 0
        self._total = 0
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[now]}"),
            console=err,
            transient=True,
            disable=not err.is_terminal,
        )
        self._task = self._progress.add_task(f"{title}: modules", total=None, now="")

    def __enter__(self) -> "Steps":
        err.print(
            f"Building {self._title}. This is done once and takes about six minutes on two cores.", soft_wrap=True
        )
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def compile(self, total: int) -> None:
        """The modules are there; `total` packages are to be compiled (those in Go's cache count as done)."""
        self._total = total
        self._progress.update(self._task, description=f"{self._title}: compiling", total=total)

    def said(self, line: str) -> None:
        """Take notice of a line of Go's output."""
        if line.startswith("go: downloading "):
            self._downloads += 1
            self._tell(line.removeprefix("go: downloading "))
        elif self._total:
            self._compiled += 1
            self._tell(line)

    def _tell(self, now: str) -> None:
        self._progress.update(self._task, completed=self._compiled or None, now=now[:60])
        if err.is_terminal or time.monotonic() - self._told < _SECONDS_BETWEEN_LINES:
            return
        self._told = time.monotonic()
        done = f"{self._compiled} of at most {self._total} packages" if self._total else f"{self._downloads} modules"
        err.print(f"  {self._told - self._began:4.0f} s  {done}: {now}", highlight=False, soft_wrap=True)
