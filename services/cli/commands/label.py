"""`halfsure label`: the labelling page of a stack that runs here."""

import webbrowser
from typing import Annotated
from urllib.parse import urlencode

import typer

from services.cli.home import Home
from services.cli.terminal import HomeOption, app, fail, load_settings, out


@app.command()
def label(
    home: HomeOption = None,
    project: Annotated[str | None, typer.Option("--project", "-p", help="Project (default: the only one).")] = None,
    browse: Annotated[bool, typer.Option("--open/--no-open", help="Open a browser, or only say the address.")] = True,
) -> None:
    """Open the page that people label on.

    Every key press is a label: digits choose, Space skips, u takes back, ? shows all keys. What is labelled while
    the network or the server is away stays in the browser and is sent later, once.
    """
    folder = Home(load_settings(home).home_path)
    processes = {entry["name"]: entry for entry in folder.record().get("processes", ())}
    if not folder.is_locked() or "portal" not in processes:
        fail(f"no portal runs in {folder.path}; `halfsure up` starts it")
        raise typer.Exit(1)
    token = {"token": folder.secrets().admin, **({"project": project} if project else {})}
    address = f"{processes['portal']['url']}/label?{urlencode(token)}"
    out.print(address, soft_wrap=True, highlight=False)
    if browse and not webbrowser.open(address):
        out.print("No browser was found; open the address yourself.", highlight=False)
