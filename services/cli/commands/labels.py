"""`halfsure tasks` and `annotators`: what waits in the label queue, and who answers well."""

from typing import Annotated, Any

import typer
from rich.table import Table

from services.cli.reaching import QUEUE, ProjectOption, TokenOption, UrlOption, reach, run
from services.cli.rest import Rest
from services.cli.terminal import HomeOption, JsonOption, app, out
from services.contracts.values import words


@app.command()
def tasks(
    state: Annotated[
        list[str] | None,
        typer.Option("--state", "-s", help="queued, leased, labeled, disputed, accepted, ... Repeatable."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many to show.")] = 20,
    project: ProjectOption = "default",
    home: HomeOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
    json: JsonOption = False,
) -> None:
    """Show how many tasks are in which state, and the first of those you ask for.

    With --state disputed, a reviewer sees the answer that is most probably right.
    """

    async def work(rest: Rest) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        counts = await rest.get(QUEUE, "/v1/stats")
        rows: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while state and len(rows) < limit:
            asked = {"state": state, "limit": min(limit - len(rows), 500), **cursor}
            page = await rest.get(QUEUE, "/v1/tasks", **asked)
            rows += page["items"]
            if not page["cursor"]:
                break
            cursor = {"cursor": page["cursor"]}
        return counts, rows[:limit]

    counts, rows = run(reach(home, url, token, project), work)
    if json:
        out.print_json(data={"stats": counts, "tasks": rows})
        return
    names = ("queued", "leased", "labeled", "disputed", "accepted", "skipped", "retracted", "gold")
    out.print("  ".join(f"{name} {counts.get(name, 0):,}" for name in names), highlight=False)
    if rows:
        out.print(_task_table(rows))


def _task_table(rows: list[dict[str, Any]]) -> Table:
    table = Table("task", "sample", "state", "answers", "label", "suggested")
    for row in rows:
        hint = row.get("suggested_answer")
        suggested = f"{words(hint['value'])} ({hint['confidence']:.0%})" if hint else ""
        value = "" if row["value"] is None else words(row["value"])
        cells = (row["id"], row["sample_id"], row["state"], _given(row["answers"]), value, suggested)
        table.add_row(*map(_plain, cells))
    return table


def _given(answers: list[dict[str, Any]] | int) -> str:
    """What was answered, for those who may know; else how often."""
    if isinstance(answers, int):
        return str(answers)
    return ", ".join(words(answer["value"]) for answer in answers if answer["kind"] == "counted")


@app.command()
def annotators(
    project: ProjectOption = "default",
    home: HomeOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
    json: JsonOption = False,
) -> None:
    """Show how well each annotator answers: gold samples, agreement, and how far suggestions sway them."""

    async def work(rest: Rest) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        return (await rest.get(QUEUE, "/v1/annotators"))["items"], await rest.get(QUEUE, "/v1/agreement")

    rows, told = run(reach(home, url, token, project), work)
    if json:
        out.print_json(data={"annotators": rows, "agreement": told})
        return
    table = Table("annotator", "answers", "median s", "gold", "agreement", "reliability", "blind gap")
    for row in rows:
        seconds, reliable = row["median_seconds"], row["reliability"]
        gap = row["blind_gap"]
        table.add_row(
            _plain(row["annotator"]),
            f"{row['answers']:,}",
            "" if seconds is None else f"{seconds:.1f}",
            _share(row["gold"]),
            _share(row["agreement"]),
            "" if reliable is None else f"{reliable:.0%}",
            "" if gap["gap"] is None else f"{gap['gap']:+.0%} [{gap['interval'][0]:+.0%}, {gap['interval'][1]:+.0%}]",
        )
    out.print(table)
    alpha = told["alpha"]
    if alpha["value"] is not None:
        edges = " to ".join(f"{edge:.2f}" for edge in alpha["interval"] or ())
        out.print(f"Krippendorff's alpha {alpha['value']:.2f} ({edges}) over {told['tasks']:,} tasks", highlight=False)


def _share(part: dict[str, Any]) -> str:
    if part["share"] is None:
        return ""
    low, high = part["interval"]
    return f"{part['share']:.0%} ({low:.0%} to {high:.0%}, n={part['n']})"


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
