"""`halfsure new` and `apply`: a project's document, and putting it to the loop."""

import shutil
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from services.cli.datasets import DataProblem
from services.cli.reaching import TokenOption, UrlOption, reach, run
from services.cli.rest import Refused, Rest
from services.cli.settings import default_root
from services.cli.starting import Wanted, document, look
from services.cli.terminal import HomeOption, JsonOption, app, fail, out
from services.contracts.tasks import answer_of, kind_of

OWNER = "retrain-trigger"


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="The project's name: small letters, digits, dots and dashes.")],
    data: Annotated[
        Path, typer.Option("--data", help="A folder of pictures or texts, or a table: it is looked at only.")
    ],
    labels: Annotated[str | None, typer.Option("--labels", help="cat,dog (default: the folders of --data).")] = None,
    answer: Annotated[
        str | None, typer.Option("--answer", help="classification (the default), multi-label, detection.")
    ] = None,
    label_column: Annotated[
        str | None,
        typer.Option("--label-column", help="A table's column that has labels: no input, and it names them."),
    ] = None,
    stream_column: Annotated[
        str | None, typer.Option("--stream-column", help="A table's column that names the stream a row is a point of.")
    ] = None,
    key_column: Annotated[str | None, typer.Option("--key-column", help="A table's column of names of rows.")] = None,
    window: Annotated[int, typer.Option("--window", min=1, max=8640, help="Points of a stream in a sample.")] = 32,
    trainer: Annotated[bool, typer.Option("--trainer", help="Write a trainer to change, too.")] = False,
) -> None:
    """Write NAME.yaml: label schema, policy and trainer of a project for this data, with a word on each line.

    [dim]halfsure new yard --data photos/ --labels cat,dog[/]
    [dim]halfsure new press --data readings.csv --labels good,bad[/]
    [dim]halfsure new dock --data photos/ --labels crate --answer detection[/]
    """
    file, script = Path(f"{name}.yaml"), Path(f"{name}-train.py")
    told = tuple(part.strip() for part in labels.split(",") if part.strip()) if labels else ()
    try:
        seen = look(data, Wanted(answer, told, label_column, stream_column, key_column, window))
    except DataProblem as problem:
        fail(str(problem))
        raise typer.Exit(2) from None
    detector = answer_of(seen.task) == "detection"
    if trainer and kind_of(seen.task) != "image":
        fail("the trainers to change are for pictures; docs/training.md has the contract for all kinds")
        raise typer.Exit(2)
    for target in (file, script) if trainer or detector else (file,):
        if target.exists():
            fail(f"{target} is there already; move it away first")
            raise typer.Exit(1)
    file.write_text(document(name, file.name, seen))
    out.print(f"{file}: {seen.task}, {len(seen.labels)} labels. Read it, then: halfsure apply {file}", soft_wrap=True)
    if trainer or detector:
        shutil.copyfile(default_root() / "examples" / ("detector" if detector else "trainer") / "train.py", script)
        out.print(f"{script}: a trainer. Stacks that are started with this environment train by it:", soft_wrap=True)
        out.print("  export HALFSURE_RETRAIN_TRIGGER_BACKEND=command", highlight=False)
        command = f'"python {script.resolve()}"'
        out.print(f"  export HALFSURE_RETRAIN_TRIGGER_COMMAND={command}", highlight=False, soft_wrap=True)


@app.command()
def apply(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A project's document, YAML or JSON.")],
    home: HomeOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
    json: JsonOption = False,
) -> None:
    """Make the project that a file describes, or change it to what the file says; the same again is harmless."""
    try:
        body = yaml.safe_load(file.read_text())
    except yaml.YAMLError as error:
        fail(f"{file} is no YAML: {error}")
        raise typer.Exit(2) from None
    if not isinstance(body, dict) or not isinstance(body.get("name"), str):
        fail(f"{file} describes no project: it has no name")
        raise typer.Exit(2)
    before, after = run(reach(home, url, token, body["name"]), lambda rest: _put(rest, body))
    if json:
        out.print_json(data=after)
        return
    what = "made" if before is None else "changed" if before["revision"] != after["revision"] else "as it was"
    out.print(f"{after['name']}: {what}, revision {after['revision']}", highlight=False)


async def _put(rest: Rest, body: dict[str, Any]) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """The project before, if there was one, and now. Raises Refused."""
    path = f"/v1/projects/{body['name']}"
    try:
        before = await rest.get(OWNER, path)
    except Refused as refused:
        if refused.status != 404:
            raise
        return None, await rest.post(OWNER, "/v1/projects", json=body)
    match = {"if-match": f'"{before["revision"]}"'}
    return before, await rest.call("PUT", OWNER, path, json=body, headers=match)
