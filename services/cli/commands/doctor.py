"""`halfsure doctor` and `setup`: what is there, and getting what is not."""

import asyncio
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from services.cli.backing import missing_backing
from services.cli.build import build_runtime
from services.cli.checks import Finding, examine
from services.cli.terminal import HomeOption, JsonOption, ProfileOption, app, load_settings, out
from services.cli.toolchain import NoRuntime, find_cli, find_runtime

_MARKS = {"ok": "[green]ok[/]", "optional": "[yellow]optional[/]", "missing": "[bold red]missing[/]"}


@app.command()
def doctor(home: HomeOption = None, profile: ProfileOption = None, json: JsonOption = False) -> None:
    """Say what is installed, in which version, what is missing and how to get it. Exit code 1 if a need is unmet."""
    findings = asyncio.run(examine(load_settings(home, profile)))
    complete = all(finding.verdict != "missing" for finding in findings)
    if json:
        out.print_json(data={"ok": complete, "findings": [asdict(finding) for finding in findings]})
    else:
        _print(findings)
        out.print()
        out.print("All that is needed is here." if complete else "Not all that is needed is here.")
    if not complete:
        raise typer.Exit(1)


@app.command()
def setup(
    with_cli: Annotated[bool, typer.Option("--with-cli", help="Build the `dapr` command, too.")] = False,
    mtls: Annotated[bool, typer.Option("--mtls", help="Build Dapr's sentry, too, for `halfsure up --mtls`.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Build even what is there already.")] = False,
    profile: ProfileOption = None,
) -> None:
    """Get the Dapr runtime: an installed 1.18 is used, else it is built once into a cache outside this folder.

    With a profile, what stands behind it here too: Azurite by npm, the Service Bus stand-in's library by pip.
    """
    settings = load_settings(None, profile)
    try:
        find_runtime(settings.dapr_bin)
        runtime_there = True
    except NoRuntime:
        runtime_there = False
    cli_there = find_cli() is not None
    if again or not runtime_there or (with_cli and not cli_there) or mtls:
        build_runtime(settings.root, runtime=again or not runtime_there, cli=with_cli, sentry=mtls, again=again)
    runtime = find_runtime(settings.dapr_bin)
    out.print(f"Dapr {runtime.version} in {runtime.folder}", soft_wrap=True, highlight=False)
    for name, get in missing_backing(settings):
        out.print(f"Getting {name} ...", highlight=False)
        get()
    if with_cli:
        out.print(f"Dapr CLI: {find_cli()}", soft_wrap=True, highlight=False)


def _print(findings: list[Finding]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        advice = f"\n[dim]{finding.advice}[/]" if finding.advice and finding.verdict != "ok" else ""
        table.add_row(finding.name, _MARKS[finding.verdict], finding.found.replace("[", r"\[") + advice)
    out.print(table)
