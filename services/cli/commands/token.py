"""`halfsure token`: who may call this stack, with which role, in which projects."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, get_args

import typer
from rich.table import Table

from services.cli.home import Home
from services.cli.terminal import HomeOption, JsonOption, app, fail, load_settings, out
from services.cli.tokens import Grant, TokensFile
from services.runtime.access import Role

tokens = typer.Typer(help="Make, list and revoke the tokens of this stack.", no_args_is_help=True)
app.add_typer(tokens, name="token")

DAY = timedelta(days=1)


def _file(home: HomeOption) -> TokensFile:
    folder = Home(load_settings(home).home_path)
    folder.create()
    folder.secrets()
    return TokensFile(folder.tokens_file)


@tokens.command()
def create(
    subject: Annotated[str, typer.Argument(help="Whose it is; an annotator's answers are under this name.")],
    role: Annotated[str, typer.Option("--role", "-r", help=", ".join(get_args(Role)))] = "viewer",
    project: Annotated[
        list[str] | None, typer.Option("--project", "-p", help="A project it is for. Repeatable; all of them: '*'.")
    ] = None,
    days: Annotated[
        float | None, typer.Option("--days", min=0, help="How long it is good for (default: ever).")
    ] = None,
    rate: Annotated[float | None, typer.Option("--rate", min=0, help="Requests a second it may make.")] = None,
    home: HomeOption = None,
) -> None:
    """Make a token and print it: it is not kept anywhere, only its hash is. Running services take it at once."""
    if role not in get_args(Role):
        fail(f"there is no role {role!r}; they are {', '.join(get_args(Role))}")
        raise typer.Exit(2)
    now = datetime.now(UTC)
    until = now + days * DAY if days is not None else None
    token = _file(home).make(Grant(subject, role, project or ["default"], until, rate), now)
    out.print(token, soft_wrap=True, highlight=False)


@tokens.command("list")
def listed(home: HomeOption = None, json: JsonOption = False) -> None:
    """Show every token by the first digits of its hash."""
    rows = [{**row, "sha256": row["sha256"][:12]} for row in _file(home).rows()]
    if json:
        out.print_json(data=rows)
        return
    table = Table("token", "subject", "role", "projects", "made", "expires", "rate")
    for row in rows:
        times = [str(row.get(name, ""))[:19] for name in ("made_at", "expires_at")]
        cells = (row["sha256"], row["subject"], row["role"], ", ".join(row["projects"]), *times, row.get("rate", ""))
        table.add_row(*(str(cell).replace("[", r"\[") for cell in cells))
    out.print(table)


@tokens.command()
def revoke(
    name: Annotated[str, typer.Argument(help="A subject (all its tokens), or the first digits of a token's hash.")],
    home: HomeOption = None,
) -> None:
    """Take tokens away; running services refuse them from their next request on."""
    gone = _file(home).revoke(name)
    out.print(f"Revoked {len(gone)}: {', '.join(row['sha256'][:12] for row in gone)}", highlight=False)
