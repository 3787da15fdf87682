"""`halfsure deadletters`: the messages that could not be handled, why, and what to do with them."""

from typing import Annotated, Any

import typer
from rich.table import Table

from services.cli.reaching import TokenOption, UrlOption, reach, run
from services.cli.rest import Refused, Rest
from services.cli.terminal import HomeOption, JsonOption, app, fail, out

shelf = typer.Typer(help="List, replay or discard messages that could not be handled.", no_args_is_help=True)
app.add_typer(shelf, name="deadletters")

Service = Annotated[str, typer.Argument(help="Whose shelf: ingest, infer, select-uncertain, label-queue, ...")]
Letters = Annotated[list[str] | None, typer.Argument(help="Ids of letters; none with --all.")]
AllOption = Annotated[bool, typer.Option("--all", help="Every letter on the shelf.")]


@shelf.command("list")
def listed(
    service: Service,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=500, help="How many to show.")] = 20,
    home: HomeOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
    json: JsonOption = False,
) -> None:
    """Show the newest letters with their reasons."""

    async def work(rest: Rest) -> list[dict[str, Any]]:
        return (await rest.get(service, "/v1/deadletters", limit=limit))["items"]

    rows = run(reach(home, url, token, "default"), work)
    if json:
        out.print_json(data=rows)
        return
    table = Table("letter", "topic", "tries", "first seen", "reason")
    for row in rows:
        told = row["dlq"]
        cells = (row["id"], row["topic"], str(told["attempts"]), told["first_seen"][:19], told["reason"])
        table.add_row(*(cell.replace("[", r"\[") for cell in cells))
    out.print(table)


@shelf.command()
def replay(
    service: Service,
    letters: Letters = None,
    every: AllOption = False,
    home: HomeOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Have the service handle letters again, as if they had just come; those that it still refuses stay."""
    _each(reach(home, url, token, "default"), service, "replay", None if every else letters or [])


@shelf.command()
def discard(
    service: Service,
    letters: Letters = None,
    every: AllOption = False,
    home: HomeOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Throw letters away, for good."""
    _each(reach(home, url, token, "default"), service, "discard", None if every else letters or [])


def _each(rest: Rest, service: str, verb: str, letters: list[str] | None) -> None:
    async def work(rest: Rest) -> tuple[int, list[str]]:
        names = await _all(rest, service) if letters is None else letters
        refused = []
        for name in names:
            try:
                await rest.post(service, f"/v1/deadletters/{name}/{verb}")
            except Refused as error:
                refused.append(str(error))
        return len(names) - len(refused), refused

    done, refused = run(rest, work)
    out.print(f"{verb}: {done}", highlight=False)
    for reason in refused:
        fail(reason)
    if refused:
        raise typer.Exit(1)


async def _all(rest: Rest, service: str) -> list[str]:
    """Oldest first, so that what followed from a letter follows it again."""
    return [row["id"] for row in await rest.everything(service, "/v1/deadletters")][::-1]
