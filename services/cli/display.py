"""What the terminal shows of a stack."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

_COLOURS = {"ready": "green", "starting": "yellow", "waiting": "dim", "restarting": "red", "failed": "red"}


def process_table(entries: Iterable[Mapping[str, Any]], title: str | None = None) -> Table:
    """One line a process, from the entries of a stack's record."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in ("process", "state", "pid", "restarts", "at"):
        table.add_column(column, no_wrap=True, justify="right" if column in ("pid", "restarts") else "left")
    for entry in entries:
        state = str(entry["state"])
        table.add_row(
            entry["name"],
            f"[{_COLOURS.get(state, 'default')}]{state}[/]",
            str(entry["pid"] or "-"),
            str(entry["restarts"]),
            entry["url"],
        )
    return table


def announce(console: Console, urls: Mapping[str, str], token: str, home: str) -> None:
    """The addresses and the token, once the stack is up."""
    console.print()
    console.print("[bold]halfsure is up.[/]")
    for app_id, url in urls.items():
        console.print(f"  {app_id:<18}{url}")
    console.print()
    if "portal" in urls:
        console.print("Label, watch and decide in your browser (the token is in the address; the page hides it):")
        console.print(f"  [bold]{urls['portal']}/?token={token}[/]", soft_wrap=True, highlight=False)
        console.print()
    if urls:
        first = next(iter(urls.values()))
        console.print("Every route but the health ones needs the token:")
        console.print(f"  {token}", soft_wrap=True, highlight=False)
        console.print("For example:")
        console.print(f'  curl -H "Authorization: Bearer {token}" {first}/v1/info', soft_wrap=True, highlight=False)
        console.print()
    console.print(f"State, logs and the token file are in {home}.", soft_wrap=True, highlight=False)


def age(since: float) -> str:
    """Seconds since a time, as `1 h 02 min`, `3 min 10 s` or `8 s`."""
    seconds = max(0, int(time.time() - since))
    if seconds >= 3600:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
    return f"{seconds // 60} min {seconds % 60:02d} s" if seconds >= 60 else f"{seconds} s"
