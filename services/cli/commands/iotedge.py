"""`halfsure iotedge manifest` and `halfsure iotedge check`: what an IoT Edge device is told to run."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from services.cli.edge.deployment import Images, Unfilled, fill, manifest, rendered
from services.cli.edge.resources import read_components
from services.cli.edge.rules import Wanted, faults
from services.cli.runfile import read_run_file
from services.cli.settings import default_root
from services.cli.terminal import app, fail, out

TEMPLATE = Path("deploy/iotedge/deployment.template.json")

iotedge = typer.Typer(help="The deployment manifest of an IoT Edge device: make it, check it.", no_args_is_help=True)
app.add_typer(iotedge, name="iotedge")


def wanted(root: Path) -> Wanted:
    """What a device of this checkout must run."""
    return Wanted(read_run_file(root / "dapr/dapr.yaml"), read_components(root / "components/iotedge"))


@iotedge.command("manifest")
def make(
    registry: Annotated[str, typer.Option("--registry", help="Where the images are.")] = Images.registry,
    tag: Annotated[str, typer.Option("--tag", help="Version of the services' images.")] = Images.tag,
    filled: Annotated[
        bool, typer.Option("--filled", help="With the environment's values for ${PLACEHOLDERS}: secrets too.")
    ] = False,
) -> None:
    """Print the manifest, made of the list of services and of components/iotedge.

    halfsure iotedge manifest > deploy/iotedge/deployment.template.json
    halfsure iotedge manifest --filled > /dev/shm/edge-1.json && \\
      az iot edge set-modules --hub-name HUB --device-id edge-1 --content /dev/shm/edge-1.json
    """
    needs = wanted(default_root())
    text = rendered(manifest(needs.run_file, needs.components, Images(registry, tag)))
    try:
        print(fill(text, os.environ) if filled else text, end="")
    except Unfilled as error:
        fail(str(error))
        raise typer.Exit(1) from None


@iotedge.command("check")
def check(
    files: Annotated[list[Path] | None, typer.Argument(help=f"Manifests to check (default: {TEMPLATE}).")] = None,
) -> None:
    """Check manifests without a device: fields, sizes, routes, environment, secrets, confinement."""
    root = default_root()
    wrong = 0
    for file in files or [root / TEMPLATE]:
        try:
            document = json.loads(file.read_text())
            found = faults(document, wanted(root))
        except (OSError, ValueError) as error:
            document, found = {}, [f"cannot be read as JSON: {error}"]
        for fault in found:
            fail(f"{file.name}: {fault}")
        wrong += len(found)
        if not found:
            modules = document["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"]
            out.print(f"{file.name}: {len(modules)} modules in order", highlight=False)
    if wrong:
        raise typer.Exit(1)
