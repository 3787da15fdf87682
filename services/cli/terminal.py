"""The command line's shell: the application, its consoles and the options that commands share."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console

from services.cli.profiles import Profile
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
ProfileOption = Annotated[
    Profile | None,
    typer.Option(
        "--profile",
        help="local: Redis and a folder. azure: Service Bus, PostgreSQL, Blob Storage, or what stands in for them here."
        " iotedge: a device and its cloud. (default: local, or HALFSURE_PROFILE)",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


def fail(message: str) -> None:
    """Say on stderr what went wrong."""
    err.print(f"[bold red]error:[/] {_plain(message)}", soft_wrap=True, highlight=False)


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


def load_settings(home: Path | None, profile: Profile | None = None) -> StackSettings:
    """Settings from the environment and the options; a bad one ends the command with the reason."""
    try:
        given = {"home": home, "profile": profile}
        return StackSettings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        for problem in error.errors():
            name = "HALFSURE_" + "__".join(str(part) for part in problem["loc"]).upper()
            fail(f"{name}={problem['input']}: {problem['msg']}")
        raise typer.Exit(2) from None
