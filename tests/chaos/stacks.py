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
from services.cli.process import ProcessSpec
from services.cli.replicas import ReplicatedStack
from services.cli.settings import StackSettings, default_root

PROGRAM = Path(__file__).with_name("serve.py")
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


class ChaosStack(ReplicatedStack):
    """Whose services do what the control file says."""

    def __init__(self, folder: Path, offset: int, replicas: int) -> None:
        settings = StackSettings(home=folder / "home", run_file=run_file(folder), port_offset=offset)
        super().__init__(settings, SEVERAL, replicas)
        self.control_file = folder.with_name(f"{folder.name}-control.json")  # beside the disk that gets full
        self.unsaved = False  # whether Redis may have acknowledged what is in no file

    def control(self, **wanted: float) -> None:
        """What all services' clocks and blob stores do from now on."""
        self.control_file.write_text(json.dumps(wanted))

    def specs(self, plan: Plan) -> list[ProcessSpec]:
        chaos = {"HALFSURE_CHAOS": str(self.control_file)}
        return [replace(spec, env={**spec.env, **chaos}) for spec in super().specs(plan)]


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
