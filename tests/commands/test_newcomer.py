"""A new user with the README alone: a fresh clone, a folder of pictures, and what the quick start says, typed.

People's answers are a stand-in's, given over the public REST to what the queue asks, as the page would.
"""

import json
import os
import random
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from commands.blocks import ROOT, blocks
from commands.test_pages import quick_start, report
from commands.world import OFFSET, SEED, photos
from conftest import require_runtime

from services.client import Client

pytestmark = [pytest.mark.loop, pytest.mark.timeout(1500)]

LIMIT = 15 * 60
COUNT = 120


class Terminal:
    """Types into a shell in the clone, and keeps what took how long."""

    def __init__(self, clone: Path) -> None:
        self.clone = clone
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HALFSURE_")}
        # Ports aside, so that a stack of the developer's own may run; no browser in a test.
        self.environment = {**kept, "HALFSURE_PORT_OFFSET": OFFSET, "BROWSER": "true", "COLUMNS": "200", "TERM": "dumb"}
        self.typed: list[dict[str, object]] = []

    def type(self, line: str, seconds: float = 600) -> str:
        began = time.monotonic()
        done = subprocess.run(
            ["bash", "-ec", line], cwd=self.clone, env=self.environment, capture_output=True, text=True, timeout=seconds
        )
        self.typed.append({"line": line, "seconds": round(time.monotonic() - began, 1)})
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    require_runtime()
    clone = tmp_path / "halfsure"
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(clone)], check=True)
    terminal = Terminal(clone)
    yield terminal
    down = [str(clone / ".venv" / "bin" / "halfsure"), "down"]
    if Path(down[0]).exists():
        subprocess.run(down, cwd=clone, env=terminal.environment, capture_output=True)


def environment(terminal: Terminal, set_up: str) -> None:
    """The README's `make setup` makes it; where no registry is to be reached, it is a copy of this checkout's."""
    if os.environ.get("HALFSURE_NEWCOMER_OFFLINE"):
        shutil.copytree(ROOT / ".venv", terminal.clone / ".venv", symlinks=True)
        for script in (terminal.clone / ".venv" / "bin").iterdir():
            if script.is_file() and not script.is_symlink() and script.read_bytes()[:2] == b"#!":
                script.write_bytes(script.read_bytes().replace(str(ROOT).encode(), str(terminal.clone).encode()))
        for link in (terminal.clone / ".venv").rglob("*halfsure*.pth"):
            link.write_text(str(terminal.clone) + "\n")
        for link in (terminal.clone / ".venv").rglob("_editable_impl_halfsure*"):
            link.write_text(link.read_text().replace(str(ROOT), str(terminal.clone)))
        return
    terminal.type(set_up, 1200)


def test_a_labelled_queue_and_a_first_model_in_a_quarter_of_an_hour(terminal: Terminal) -> None:
    truth = photos(terminal.clone / "photos", COUNT, random.Random(SEED + 1), by_class=False)
    page = list(blocks(terminal.clone / "README.md", terminal.clone))
    (set_up,) = [block.text.strip() for block in page if block.text.startswith("make setup")]
    first, second = [block.text for block in page if quick_start(block)]
    began = time.monotonic()
    environment(terminal, set_up)
    said = "".join(terminal.type(line) for line in first.splitlines())
    address, token = re.findall(r"(http://127\.0\.0\.1:\d+)/label\?token=([\w-]+)", said)[-1]
    waited, twentieth, answered = people(address, token, terminal.clone / "photos", truth)
    seconds = time.monotonic() - began
    shown = "".join(terminal.type(line) for line in second.splitlines())
    assert "ACTIVE" in shown
    assert len((terminal.clone / "labels.csv").read_text().splitlines()) == answered + 1
    told = {
        "seconds": round(seconds, 1),
        "limit": LIMIT,
        "met": seconds <= LIMIT,
        "environment": "copied" if os.environ.get("HALFSURE_NEWCOMER_OFFLINE") else "made by `make setup`",
        "first_question_after": round(waited - began, 1),
        "labelled_after": round(twentieth - began, 1),
        "labels": answered,
        "stack_rss_bytes": memory(terminal.clone),
        "typed": terminal.typed,
    }
    report().with_name("newcomer.json").write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(told, indent=1))
    assert seconds <= LIMIT


def people(address: str, token: str, folder: Path, truth: dict[str, str]) -> tuple[float, float, int]:
    """Answers what is asked until a model is in service: when the first question came, and the twentieth answer; how
    many were answered."""
    by_bytes = {(folder / name).read_bytes(): label for name, label in truth.items()}
    first, twentieth, answered = 0.0, 0.0, 0
    deadline = time.monotonic() + LIMIT
    with Client(address, token, "yard") as client:
        while time.monotonic() < deadline:
            told = client.label_queue.post_tasks_claim(json={"n": 5, "annotator": "newcomer"})
            for task in told["tasks"] if told else ():
                first = first or time.monotonic()
                value = by_bytes[client.ingest.get_sample_content(task["sample_id"])]
                body = {"annotator": "newcomer", "epoch": task["lease"]["epoch"], "value": value}
                client.label_queue.post_task_annotations(task["id"], json=body)
                answered += 1
            twentieth = twentieth or (time.monotonic() if answered >= 20 else 0.0)
            if any(one["state"] == "ACTIVE" for one in client.retrain_trigger.get_models()["items"]):
                return first, twentieth, answered
            time.sleep(0.2)
    raise AssertionError(f"no model came into service after {answered} answers")


def memory(clone: Path) -> int:
    """Bytes that the stack's processes hold; what they share is counted with each."""
    record = json.loads((clone / ".halfsure" / "stack.json").read_text())
    pids = [entry["pid"] for entry in record["processes"] if entry.get("pid")]
    return sum(psutil.Process(pid).memory_info().rss for pid in pids if psutil.pid_exists(pid))
