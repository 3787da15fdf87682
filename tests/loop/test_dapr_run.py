"""Row 4.9: `dapr run -f` with a simulated source reaches a trained model on a laptop, without our supervisor."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
import yaml
from conftest import wait_until

from services.cli.datasets import Split, digits, split
from services.cli.player import Plan, Player
from services.cli.rest import Rest
from services.cli.settings import StackSettings, default_root
from services.cli.specs import shared_environment
from services.cli.stack import Stack
from services.cli.toolchain import find_cli

pytestmark = [pytest.mark.loop, pytest.mark.timeout(600)]

BATCH = 20


def shifted_run_file(folder: Path, offset: int) -> tuple[Path, dict[str, int]]:
    """dapr/ as it is, with its ports moved out of the way of a stack that may be running here."""
    root = default_root()
    for name in ("config.yaml", "resiliency.yaml", "subscriptions.yaml"):
        (folder / name).write_text((root / "dapr" / name).read_text())
    run: dict[str, Any] = yaml.safe_load((root / "dapr" / "dapr.yaml").read_text())
    common = run["common"]
    common["resourcesPaths"] = [str(root / "components" / "local"), "."]
    for name in ("placementHostAddress", "schedulerHostAddress"):
        host, port = common[name].split(":")
        common[name] = f"{host}:{int(port) + offset}"
    common |= {"appLogDestination": "console", "daprdLogDestination": "console"}
    for app in run["apps"]:
        app["appDirPath"] = str(root)
        for name in ("appPort", "daprHTTPPort", "daprGRPCPort", "metricsPort", "daprInternalGRPCPort"):
            app[name] += offset
    (folder / "dapr.yaml").write_text(yaml.safe_dump(run))
    return folder / "dapr.yaml", {app["appID"]: app["appPort"] for app in run["apps"]}


async def test_dapr_run_reaches_a_model_from_no_label_at_all(scratch: Path, tmp_path: Path, offset: int) -> None:
    """Row D1 too: no evaluation set is brought, nothing comes from outside but label submissions."""
    cli = find_cli()
    assert cli, "the Dapr CLI is missing: halfsure setup --with-cli"
    folder = scratch / "dapr"
    folder.mkdir()
    run_file, ports = shifted_run_file(folder, offset)
    settings = StackSettings(home=scratch / "home", port_offset=offset)
    stack = Stack(settings, only_infrastructure=True)
    async with stack.running():
        plan = stack.plan()
        inner = scratch / "runtime" / ".dapr"
        inner.mkdir(parents=True)
        (inner / "bin").symlink_to(plan.dapr_bin)
        (inner / "config.yaml").write_text((folder / "config.yaml").read_text())
        environment = {
            **os.environ,
            **shared_environment(plan, plan.places[0]),
            "HALFSURE_STATE_DIR": str(scratch / "state"),
            "DAPR_RUNTIME_PATH": str(scratch / "runtime"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        with dapr_run(cli, run_file, environment, tmp_path):
            await _reaches_a_model(stack, ports)
    clear(scratch)


@contextlib.contextmanager
def dapr_run(cli: Path, run_file: Path, environment: dict[str, str], folder: Path) -> Iterator[None]:
    """`dapr run -f`; it is known to leave apps behind, so whatever is left of its session ends here too."""
    with (folder / "dapr.log").open("w") as log:
        command = [str(cli), "run", "-f", str(run_file)]
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True)
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            for child in psutil.process_iter():
                with contextlib.suppress(psutil.Error, ProcessLookupError):
                    if os.getsid(child.pid) == process.pid:
                        child.kill()
            process.wait(30)


def clear(folder: Path) -> None:
    for child in folder.iterdir():
        shutil.rmtree(child)


async def _reaches_a_model(stack: Stack, ports: dict[str, int]) -> None:
    async with httpx2.AsyncClient(trust_env=False) as client:
        for port in ports.values():

            async def ready(port: int = port) -> bool:
                try:
                    return (await client.get(f"http://127.0.0.1:{port}/readyz")).is_success
                except httpx2.HTTPError:
                    return False

            await wait_until(ready, 90)
    data = digits()
    parts = split(data, 1)
    few = Split(parts.pool[:300], (), parts.test)
    plan = Plan(data, few, "uncertainty_coverage", 2 * BATCH, BATCH, 1)
    rest = Rest(lambda app_id: f"http://127.0.0.1:{ports[app_id]}", stack.token, plan.project)
    player = Player(rest, plan, list(ports))
    await player.make_project()
    progress = await player.play()
    assert progress.model_version
    assert progress.accuracy
    assert progress.accuracy > 0.6
    await rest.close()
