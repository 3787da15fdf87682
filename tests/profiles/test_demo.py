"""The demo on each profile: the same code, the same counts; also when the device is cut from the cloud meanwhile."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import require_runtime

from services.cli.ports import still_busy
from services.cli.profiles import Profile
from services.cli.settings import StackSettings
from services.cli.stack import Stack

pytestmark = [pytest.mark.profiles, pytest.mark.timeout(600)]

OFFSET = 15_000
COUNTS = {"ingested": 1237, "asked": 120, "accepted": 120, "in_last_snapshot": 120}


def run(profile: Profile, folder: Path, *command: str) -> str:
    """One command in a folder of its own, and nothing left of it; what it said."""
    require_runtime()
    temporary = folder / "tmp"
    temporary.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HALFSURE_")}
    environment |= {"HALFSURE_PORT_OFFSET": str(OFFSET), "TMPDIR": str(temporary)}
    words = [sys.executable, "-m", "services.cli.main", *command, "--profile", profile]
    ended = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=550)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    settings = StackSettings(profile=profile, home=folder / "none", port_offset=OFFSET)
    assert still_busy(Stack(settings).ports.numbers.values()) == []
    assert [process for process in psutil.process_iter(["cmdline"]) if _mentions(process, str(folder))] == []
    assert list(temporary.iterdir()) == []
    return ended.stdout


def play(profile: Profile, folder: Path, *more: str) -> dict[str, Any]:
    """One demo's report."""
    run(profile, folder, "demo", *more)
    name = "demo" if profile == "local" else f"demo-{profile}"
    return json.loads((folder / "out" / name / "report.json").read_text())


def _mentions(process: psutil.Process, text: str) -> bool:
    return process.pid != os.getpid() and any(text in part for part in process.info["cmdline"] or ())


@pytest.mark.parametrize(
    ("profile", "more"),
    [("local", ()), ("azure", ()), ("iotedge", ()), ("iotedge", ("--cut", "30"))],
    ids=["local", "azure", "iotedge", "iotedge-cut"],
)
def test_the_loop_closes_with_the_same_counts(profile: Profile, more: tuple[str, ...], tmp_path: Path) -> None:
    report = play(profile, tmp_path, *more)
    assert report["profile"] == profile
    assert report["counts"] == COUNTS
    assert report["final_accuracy"] >= 0.97 * report["full_supervised_accuracy"]
    assert report["labels_to_97_percent"] <= 130
    assert sum(row["promoted"] for row in report["rounds"]) >= 3
    assert (report["cut_seconds"] >= 30) == bool(more)


@pytest.mark.parametrize("profile", ["azure", "iotedge"])
def test_a_sample_goes_all_the_way(profile: Profile, tmp_path: Path) -> None:
    """Row 2.20."""
    assert "which infer serves" in run(profile, tmp_path, "smoke")
