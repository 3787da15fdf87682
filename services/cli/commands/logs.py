"""`halfsure logs`: what the processes wrote."""

import time
from pathlib import Path
from typing import Annotated

import typer

from services.cli.home import Home
from services.cli.terminal import HomeOption, app, fail, load_settings, out

_COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_cyan", "bright_magenta", "bright_green")


@app.command()
def logs(
    names: Annotated[
        list[str] | None, typer.Argument(help="Processes, as `halfsure status` names them (default: all).")
    ] = None,
    home: HomeOption = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is written next.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Lines of each to begin with.")] = 20,
) -> None:
    """Print the logs of the processes, each line with the name of its process."""
    folder = Home(load_settings(home).home_path).logs
    files = {path.stem: path for path in sorted(folder.glob("*.log"))}
    unknown = sorted(set(names or ()) - files.keys())
    if unknown or not files:
        there = ", ".join(files) or "none yet"
        fail(f"no log of {', '.join(unknown) or 'anything'} in {folder}; there are: {there}")
        raise typer.Exit(1)
    chosen = {name: path for name, path in files.items() if not names or name in names}
    _print(chosen, lines, follow)


def _print(files: dict[str, Path], lines: int, follow: bool) -> None:
    width = max(len(name) for name in files)
    offsets: dict[str, int] = {}
    for name, path in files.items():
        text = path.read_bytes()
        offsets[name] = len(text)
        for line in text.decode("utf-8", "replace").splitlines()[-lines:] if lines else ():
            _line(name, width, line)
    try:
        while follow:
            time.sleep(0.3)
            for name, path in files.items():
                offsets[name] = _print_new(name, path, offsets[name], width)
    except KeyboardInterrupt:
        return


def _print_new(name: str, path: Path, offset: int, width: int) -> int:
    """Print the whole lines after the offset; returns where they end. A log that shrank was begun anew."""
    size = path.stat().st_size
    if size < offset:
        offset = 0
    with path.open("rb") as log:
        log.seek(offset)
        whole, newline, _ = log.read().rpartition(b"\n")
    for line in whole.decode("utf-8", "replace").splitlines():
        _line(name, width, line)
    return offset + len(whole) + len(newline)


def _line(name: str, width: int, line: str) -> None:
    colour = _COLOURS[sum(name.encode()) % len(_COLOURS)]
    text = line.replace("[", r"\[")
    out.print(f"[{colour}]{name:<{width}}[/] {text}", soft_wrap=True, highlight=False)
