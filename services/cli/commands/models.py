"""`halfsure models`, `halfsure api`: the models of a project, and every route there is."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from services.cli.reaching import ProjectOption, TokenOption, UrlOption, reach, run
from services.cli.rest import Rest
from services.cli.terminal import HomeOption, JsonOption, app, out

TRIGGER = "retrain-trigger"
models = typer.Typer(help="List a project's models, promote one, or roll back.", no_args_is_help=True)
app.add_typer(models, name="models")

Why = Annotated[str, typer.Option("--reason", help="Kept with the change, for whoever asks later.")]


@models.command("list")
def listed(
    project: ProjectOption = "default",
    home: HomeOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the versions, newest first: state, what they are judged by, and what the gate said."""

    async def work(rest: Rest) -> list[dict[str, Any]]:
        return (await rest.get(TRIGGER, "/v1/models", limit=100))["items"]

    rows = run(reach(home, url, token, project), work)
    if as_json:
        out.print_json(data=rows)
        return
    table = Table("version", "state", "labels", "judged by", "value", "gate")
    for row in rows:
        metrics = row.get("metrics") or {}
        name = metrics.get("metric", "accuracy")
        value = f"{metrics[name]:.3f}" if metrics.get(name) is not None else "-"
        said = "; ".join((row.get("gate") or {}).get("reasons", []))
        table.add_row(row["version"], row["state"], ", ".join(row.get("labels", [])), name, value, said)
    out.print(table)


@models.command()
def promote(
    version: Annotated[str, typer.Argument(help="As `halfsure models list` names it.")],
    reason: Why = "by hand",
    share: Annotated[float, typer.Option("--share", min=0.0, max=1.0, help="Of the traffic.")] = 1.0,
    project: ProjectOption = "default",
    home: HomeOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Put a version into service, for all or for a share of the traffic."""
    _post(reach(home, url, token, project), f"/v1/models/{version}:activate", {"share": share, "reason": reason})


@models.command()
def rollback(
    reason: Why = "by hand",
    project: ProjectOption = "default",
    home: HomeOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Put the previous version back into service."""
    _post(reach(home, url, token, project), "/v1/models:rollback", {"reason": reason})


def _post(rest: Rest, path: str, body: dict[str, Any]) -> None:
    out.print_json(data=run(rest, lambda rest: rest.post(TRIGGER, path, json=body)))


@app.command()
def api(
    method: Annotated[str, typer.Argument(help="GET, POST, PUT or DELETE.")],
    service: Annotated[str, typer.Argument(help="ingest, infer, select-uncertain, label-queue, retrain-trigger, ...")],
    path: Annotated[str, typer.Argument(help="Such as /v1/tasks, or /v1/openapi.json for all of them.")],
    query: Annotated[list[str] | None, typer.Argument(help="name=value, for the query.")] = None,
    body: Annotated[str | None, typer.Option("--json", help="The body, as JSON.")] = None,
    file: Annotated[Path | None, typer.Option("--file", help="The body, as it is.", exists=True)] = None,
    header: Annotated[list[str] | None, typer.Option("--header", "-H", help="name: value, such as if-match.")] = None,
    project: ProjectOption = "default",
    home: HomeOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Call any route, as the page does: what has no command of its own has this one.

    [dim]halfsure api GET label-queue /v1/tasks state=DISPUTED[/]
    [dim]halfsure api POST label-queue /v1/tasks/tsk_...:resolve --json '{"value": "cat"}'[/]
    [dim]halfsure api POST infer /v1/predict --json '{"inputs": [{"row": {"x": 1.5}}]}'[/]
    """
    given: dict[str, Any] = {"params": dict(_pair(one, "=") for one in query or [])}
    given["headers"] = dict(_pair(one, ":") for one in header or [])
    if body is not None:
        given["json"] = json.loads(body)
    if file is not None:
        given["content"] = file.read_bytes()
    verb = method.upper()

    async def work(rest: Rest) -> Any:
        if verb == "POST":
            return await rest.post(service, path, **given)
        return await rest.call(verb, service, path, **given)

    answer = run(reach(home, url, token, project), work)
    if isinstance(answer, str):
        print(answer)
    elif answer is not None:
        out.print_json(data=answer)


def _pair(text: str, mark: str) -> tuple[str, str]:
    name, found, value = text.partition(mark)
    if not found:
        raise typer.BadParameter(f"{text!r} is not of the form name{mark}value")
    return name.strip(), value.strip()
