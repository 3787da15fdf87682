"""`halfsure export` and `import`: labels go out and come in, in the formats of the field."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from services.cli.reaching import QUEUE, ProjectOption, TokenOption, UrlOption, reach, run
from services.cli.rest import Rest
from services.cli.terminal import HomeOption, JsonOption, app, err, fail, out

LINES = 1000  # of JSON lines in one request, so that progress is seen and little is sent again
LINED = ("jsonl", "csv")
ENDINGS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}

FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format",
        "-f",
        help="jsonl, csv, parquet, label-studio, coco, azureml, yolo, huggingface or an installed one "
        "(default: by the name, else jsonl).",
    ),
]


@app.command()
def export(
    file: Annotated[Path | None, typer.Argument(help="Where to write; none, or -: to the terminal.")] = None,
    form: FormatOption = None,
    snapshot: Annotated[str | None, typer.Option("--snapshot", help="The labels that a run had, snp_...")] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="Only if labels are still at this ETag.")] = None,
    project: ProjectOption = "default",
    home: HomeOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
    json: JsonOption = False,
) -> None:
    """Write all accepted labels to a file, in any of the formats; a file is there when it is whole, or not at all."""
    chosen = form or (ENDINGS.get(file.suffix, "jsonl") if file else "jsonl")
    query = {"format": chosen, "snapshot": snapshot, "revision": revision}
    asked = {name: value for name, value in query.items() if value is not None}
    to_terminal = file is None or str(file) == "-"

    async def work(rest: Rest) -> dict[str, Any]:
        async with rest.stream(QUEUE, "/v1/export", **asked) as answer:
            total = int(answer.headers.get("x-total-count", 0))
            etag = answer.headers.get("etag", "").strip('"')
            draft = None if to_terminal or file is None else file.with_name(f".{file.name}.draft")
            sink = sys.stdout.buffer if draft is None else draft.open("wb")
            size = 0
            try:
                with _bar("labels", total if chosen in LINED else None) as advance:
                    async for piece in answer.aiter_bytes():
                        sink.write(piece)
                        size += len(piece)
                        advance(piece.count(b"\n") if chosen in LINED else len(piece))
            except BaseException:
                if draft is not None:
                    sink.close()
                    draft.unlink(missing_ok=True)
                raise
            if draft is None:
                sink.flush()
            elif file is not None:
                sink.close()
                draft.replace(file)
        return {
            "file": None if to_terminal else str(file),
            "format": chosen,
            "labels": total,
            "bytes": size,
            "etag": etag,
        }

    told = run(reach(home, url, token, project), work)
    if json and not to_terminal:
        out.print_json(data=told)
    elif not to_terminal:
        err.print(f"{told['labels']:,} labels in {file} ({told['bytes']:,} bytes), at {told['etag']}", highlight=False)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="What to read.")],
    form: FormatOption = None,
    split: Annotated[
        str | None, typer.Option("--split", help="train, evaluation or gold (default: what each row says, else train).")
    ] = None,
    project: ProjectOption = "default",
    home: HomeOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
    json: JsonOption = False,
) -> None:
    """Bring labels made elsewhere, with their samples. Safe to repeat: what is there already stays as it is.

    Exit code 1 if any row was refused; each is told with its reason.
    """
    chosen = form or ENDINGS.get(file.suffix, "jsonl")
    asked = {"format": chosen, **({"split": split} if split else {})}
    counts = {"new": 0, "known": 0, "refused": 0}
    refused: list[dict[str, Any]] = []
    size = file.stat().st_size

    async def work(rest: Rest) -> None:
        with _bar("bytes", size) as advance:
            for at, content in _portions(file, chosen):
                answer = await rest.call("POST", QUEUE, "/v1/import", params=asked, content=content)
                for row in answer["results"]:
                    counts[{201: "new", 200: "known"}.get(row["status"], "refused")] += 1
                    if row["status"] not in (200, 201):
                        refused.append({**row, "line": at + row.get("line", 0)})
                advance(len(content))

    run(reach(home, url, token, project), work)
    if json:
        out.print_json(data={**counts, "results": refused})
    else:
        for row in refused[:20]:
            fail(f"row {row['line'] + 1}: {row['problem']['detail']}")
        if len(refused) > 20:
            fail(f"... and {len(refused) - 20} more; --json tells all")
        err.print(f"{counts['new']:,} new, {counts['known']:,} known, {counts['refused']:,} refused", highlight=False)
    if refused:
        raise typer.Exit(1)


def _portions(file: Path, form: str) -> Iterator[tuple[int, bytes]]:
    """JSON lines and rows of a table a thousand at a time, with the number of the first; any other file whole."""
    if form not in LINED:
        yield 0, file.read_bytes()
        return
    with file.open("rb") as lines:
        records = filter(bytes.strip, lines) if form == "jsonl" else _rows(lines)
        head = next(records, b"") if form == "csv" else b""
        number = 0
        while part := list(islice(records, LINES)):
            yield number, head + b"".join(part)
            number += len(part)


def _rows(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The rows of a table as they are written; one goes on over the lines that its quotes enclose."""
    row, quotes = b"", 0
    for line in lines:
        row, quotes = row + line, quotes + line.count(b'"')
        if quotes % 2 == 0:
            if row.strip():
                yield row
            row, quotes = b"", 0
    if row:
        yield row


@contextmanager
def _bar(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, nothing elsewhere; the function takes what has been done since the last call."""
    column = MofNCompleteColumn() if what == "labels" and total is not None else DownloadColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), column, TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.advance(task, done)
