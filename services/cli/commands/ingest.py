"""`halfsure ingest`: send a folder of pictures, or tables, to ingest."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from services.cli.rest import Rest
from services.cli.settings import StackSettings
from services.cli.stack import Stack
from services.cli.terminal import HomeOption, JsonOption, app, err, fail, load_settings, out
from services.cli.upload import NothingToSend, Rows, Tally, Upload, found, ledger_at
from services.contracts.events import Trigger
from services.contracts.ids import digest

SHOWN = 10  # refusals


@app.command()
def ingest(
    path: Annotated[Path, typer.Argument(help="A folder, looked through to its depths, or one file.")],
    project: Annotated[str, typer.Option("--project", "-p", help="The project that the samples are for.")] = "default",
    stream: Annotated[str | None, typer.Option("--stream", help="Where they are from, such as a camera.")] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="A tag for each of them; may be repeated.")] = None,
    trigger: Annotated[
        Trigger, typer.Option("--trigger", help="Why they are sent: `manual` for pictures taken by hand.")
    ] = "backfill",
    key_column: Annotated[
        str | None, typer.Option("--key-column", help="A table's column that names each row; it is no input then.")
    ] = None,
    texts: Annotated[bool, typer.Option("--texts", help="Send texts (.txt .md), not pictures and tables.")] = False,
    points: Annotated[
        bool, typer.Option("--points", help="A table's rows are the points of a stream, for a project of series.")
    ] = False,
    sequence_column: Annotated[
        str | None,
        typer.Option("--sequence-column", help="Of --points, the column that counts them (default: the row's number)."),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Send all of it, also what was sent or refused before.")
    ] = False,
    url: Annotated[
        str | None, typer.Option("--url", help="Address of an ingest elsewhere (default: the stack of --home).")
    ] = None,
    token: Annotated[
        str | None,
        typer.Option("--token", envvar="HALFSURE_TOKEN", help="Needed with --url; better in HALFSURE_TOKEN."),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send pictures, tables and texts to the loop.

    Pictures (.png .jpg .jpeg .webp .bmp .gif .tif .tiff) are a sample each; of tables (.csv .jsonl .ndjson .json)
    each row is one, or with --points the point of a stream. What was sent is noted in the state folder, by size and
    time of change: a run that was stopped goes on where it was, and a second run sends nothing twice. Should the notes
    be lost, ingest knows the samples themselves. Ends with 1 when something was refused.

    [dim]halfsure ingest photos/ --project yard --stream gate --tag night[/]
    [dim]halfsure ingest readings.csv --project press --key-column id[/]
    [dim]halfsure ingest letters/ --project post --texts[/]
    [dim]halfsure ingest press-1.csv --project press --points --stream press-1 --sequence-column n[/]
    [dim]HALFSURE_TOKEN=… halfsure ingest photos/ --url https://halfsure.example/api/ingest[/]
    """
    settings = load_settings(home)
    if points and key_column is not None:
        raise typer.BadParameter("a point is named by its number; --key-column is for rows that are samples")
    rows = Rows(key_column, points, sequence_column)
    try:
        where, secret = _address(settings, url, token)
        files = found(path, texts)
    except NothingToSend as problem:
        fail(str(problem))
        raise typer.Exit(2) from None
    said = {"stream_id": stream, "tags": tag or [], "trigger": trigger}
    notes = settings.home_path / "ingest" / f"{digest(where, project)}.sqlite"
    rest = Rest(lambda _: where, secret, project)

    async def send(moved: Callable[[Tally], None]) -> Tally:
        try:
            with ledger_at(notes, again) as ledger:
                return await Upload(rest, ledger, said, rows).send(files, moved)
        finally:
            await rest.close()

    try:
        with _Bar(sum(file.size for file in files)) as bar:
            tally = asyncio.run(send(bar.move))
    except ConnectionError as error:
        fail(f"{error}. What was sent is noted: the same command goes on.")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        err.print("Stopped. What was sent is noted: the same command goes on.")
        raise typer.Exit(130) from None
    _say(tally, as_json)
    if tally.refused:
        raise typer.Exit(1)


def _address(settings: StackSettings, url: str | None, token: str | None) -> tuple[str, str]:
    """Where ingest is, and the token for it. Raises NothingToSend."""
    if url is not None:
        if token is None:
            raise NothingToSend("--url needs a token: put it into HALFSURE_TOKEN")
        return url.rstrip("/"), token
    stack = Stack(settings)
    if token is None and not stack.home.tokens_file.exists():
        raise NothingToSend(f"no stack has run in {stack.home.path}; start one with `halfsure up`, or name --url")
    return stack.url("ingest"), token or stack.token


def _say(tally: Tally, as_json: bool) -> None:
    if as_json:
        names = ("new", "known", "gathering", "files", "skipped")
        row: dict[str, Any] = {name: getattr(tally, name) for name in names}
        row["refused"] = [{"place": place, "why": why} for place, why in tally.refused]
        print(json.dumps(row))
        return
    out.print(f"{tally.new} new samples, {tally.known} that ingest knew, from {tally.files} files", highlight=False)
    if tally.gathering:
        out.print(f"{tally.gathering} points wait for others of their window", highlight=False)
    if tally.skipped:
        before = f", {tally.refused_before} of them refused then" if tally.refused_before else ""
        out.print(f"{tally.skipped} files were sent before{before} (--again sends them anew)", highlight=False)
    if tally.refused:
        out.print(f"{len(tally.refused)} were refused:", highlight=False)
    for place, why in tally.refused[:SHOWN]:
        out.print(f"  {place}: {why}", highlight=False, markup=False, soft_wrap=True)
    if len(tally.refused) > SHOWN:
        out.print(f"  ... and {len(tally.refused) - SHOWN} more (--json lists them all)", highlight=False)


class _Bar:
    """How far it is, in bytes of the files; nothing where stderr is no terminal."""

    def __init__(self, total: int) -> None:
        columns = (BarColumn(bar_width=32), DownloadColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
        self._progress = Progress(*columns, console=err, transient=True, disable=not err.is_terminal)
        self._task = self._progress.add_task("", total=max(total, 1))

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def move(self, tally: Tally) -> None:
        words = f"{tally.new} new, {tally.known} known, {len(tally.refused)} refused"
        self._progress.update(self._task, completed=tally.bytes, description=words)
