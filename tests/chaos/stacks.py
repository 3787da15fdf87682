"""A stack whose services obey a control file, with more replicas if wanted, on a disk of its own."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import yaml

from services.cli.plan import Plan
from services.cli.ports import PortPlan
from services.cli.process import ProcessSpec
from services.cli.settings import StackSettings, default_root
from services.cli.specs import applications
from services.cli.stack import Stack

PROGRAM = Path(__file__).with_name("serve.py")
SHIFT = 20  # between the ports of two replicas
SEVERAL = ("ingest", "infer", "label-queue", "portal")  # what deploy/k8s/README.md lets have several
DISK = "768m"


def run_file(folder: Path) -> Path:
    """The project's own run file, with `serve.py` instead of the services' own start."""
    source = default_root() / "dapr"
    shutil.copytree(source, folder / "dapr", ignore=shutil.ignore_patterns("runtime", ".dapr"))
    document = yaml.safe_load((source / "dapr.yaml").read_text())
    document["common"]["resourcesPaths"] = [str(default_root() / "components" / "local"), "."]
    document["common"]["env"]["PYTHONPATH"] = str(default_root())
    for app in document["apps"]:
        app["appDirPath"] = str(default_root())
        app["command"] = ["python", str(PROGRAM), app["appID"]]
    path = folder / "dapr" / "dapr.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


class ChaosStack(Stack):
    """`processes` has `<app-id>-2` and `<app-id>-2-sidecar` for second replicas; control plane and Redis are shared."""

    def __init__(self, folder: Path, offset: int, replicas: int) -> None:
        super().__init__(StackSettings(home=folder / "home", run_file=run_file(folder), port_offset=offset))
        self._replicas = replicas
        self.control_file = folder / "control.json"
        self.unsaved = False  # whether Redis may have acknowledged what is in no file

    def control(self, **wanted: float) -> None:
        """What all services' clocks and blob stores do from now on."""
        self.control_file.write_text(json.dumps(wanted))

    def specs(self, plan: Plan) -> list[ProcessSpec]:
        first = super().specs(plan)
        others = [spec for number in range(1, self._replicas) for spec in _replica(plan, number)]
        chaos = {"HALFSURE_CHAOS": str(self.control_file)}
        return [replace(spec, env={**spec.env, **chaos}) for spec in [*first, *others]]


def _replica(plan: Plan, number: int) -> list[ProcessSpec]:
    keys = [app.app_id.replace("-", "_") for app in plan.run_file.apps]
    shifted = {name: port + SHIFT * number * any(name.startswith(key) for key in keys) for name, port in
               plan.ports.numbers.items()}  # fmt: skip
    found = applications(replace(plan, ports=PortPlan(shifted)))
    return [_named(spec, number) for spec in found if spec.name.removesuffix("-sidecar") in SEVERAL]


def _named(spec: ProcessSpec, number: int) -> ProcessSpec:
    app, sidecar = spec.name.removesuffix("-sidecar"), "-sidecar" * spec.name.endswith("-sidecar")
    name = f"{app}-{number + 1}{sidecar}"
    env = {**spec.env, "HALFSURE_REPLICA": str(number)}
    if scratch := spec.env.get("HALFSURE_STATE_DIR"):
        env["HALFSURE_STATE_DIR"] = f"{scratch}-{number + 1}"
        Path(env["HALFSURE_STATE_DIR"]).mkdir(parents=True, exist_ok=True)
    return replace(spec, name=name, env=env, log=spec.log.with_name(f"{name}.log"))


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Makes the folder a disk that can be filled; whether that was possible (Linux, root)."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    done = shutil.which("mount") is not None and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield done
    finally:
        if done:
            subprocess.run(["umount", "--lazy", str(folder)], check=False)
