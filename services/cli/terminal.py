"""The command line's shell: the application, its consoles and the options that commands share."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console

from services.cli.settings import StackSettings

out = Console()
err = Console(stderr=True)

app = typer.Typer(
    name="halfsure",
    help="Active learning as a loop that closes by itself, on this machine.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
)

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="State folder (default: .halfsure here, or HALFSURE_HOME)."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


def fail(message: str) -> None:
    """Say on stderr what went wrong."""
    err.print(f"[bold red]error:[/] {_plain(message)}", soft_wrap=True, highlight=False)


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


def load_settings(home: Path | None) -> StackSettings:
    """Settings from the environment and the options; a bad one ends the command with the reason."""
    try:
        return StackSettings() if home is None else StackSettings(home=home)
    except ValidationError as error:
        for problem in error.errors():
            name = "HALFSURE_" + "__".join(str(part) for part in problem["loc"]).upper()
            fail(f"{name}={problem['input']}: {problem['msg']}")
        raise typer.Exit(2) from None
