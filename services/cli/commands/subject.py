"""`halfsure subject`: hand out, or erase, all that is kept of one data subject."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from services.cli import subject as subjects
from services.cli.reaching import ProjectOption, TokenOption, UrlOption, reach, run
from services.cli.terminal import HomeOption, app, out

commands = typer.Typer(
    help="All that is kept of whom samples are about, by a tag or an attribute that the samples came with.",
    no_args_is_help=True,
)
app.add_typer(commands, name="subject")

TagOption = Annotated[str | None, typer.Option("--tag", help="The subject's tag.")]
AttributeOption = Annotated[str | None, typer.Option("--attribute", help="NAME=VALUE of the subject's samples.")]


@commands.command()
def export(
    file: Annotated[Path, typer.Argument(help="The zip to write: subject.json, and the contents by sample id.")],
    tag: TagOption = None,
    attribute: AttributeOption = None,
    project: ProjectOption = "default",
    home: HomeOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Write what every service has of the subject: records, histories, decisions, labels, runs that used them."""
    where = _where(tag, attribute)
    done = run(reach(home, url, token, project), lambda rest: subjects.export(rest, project, where, file))
    out.print(f"{file}: {done['samples']} samples, {done['contents']} contents", soft_wrap=True, highlight=False)


@commands.command()
def erase(
    tag: TagOption = None,
    attribute: AttributeOption = None,
    reason: Annotated[Literal["privacy", "consent"], typer.Option("--reason", help="Why.")] = "privacy",
    project: ProjectOption = "default",
    home: HomeOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Withdraw every sample of the subject: contents are erased everywhere, tombstones are kept."""
    where = _where(tag, attribute)
    count = run(reach(home, url, token, project), lambda rest: subjects.erase(rest, where, reason))
    out.print(f"{count} samples withdrawn; their contents are being erased", highlight=False)


def _where(tag: str | None, attribute: str | None) -> dict[str, str]:
    if tag is None and (attribute is None or "=" not in attribute):
        raise subjects.NoSubject("say whose data is meant: --tag TAG, or --attribute NAME=VALUE")
    given = {"tag": tag, "attribute": attribute}
    return {name: value for name, value in given.items() if value is not None}
