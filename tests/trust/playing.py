"""A small loop on the real stack, with one data subject in it, that is backed up while it runs."""

import asyncio
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.cli.datasets import Item, Split, digits, split
from services.cli.player import ENDED, Plan, Player, Progress
from services.cli.rest import Rest
from services.cli.stack import Stack

OFFSET = 9000
BUDGET, BATCH, MOMENT = 20, 10, 4  # labels in all and in a round, and how many there are when the backup begins
PERSON = "person-4711-of-the-test"
Command = Callable[..., subprocess.CompletedProcess[str]]


@dataclass
class Played:
    """The stack after the play, and what was there when its backup began and in the end."""

    stack: Stack
    rest: Rest
    plan: Plan
    home: Path
    file: Path
    token: str
    person: dict[str, Item]  # sample -> what was brought of the data subject
    before: dict[str, Any]
    after: dict[str, Any]
    stop: Callable[[], Awaitable[None]]


async def bring(rest: Rest, items: list[Item]) -> dict[str, Item]:
    """Samples of the data subject, who is named in an attribute and a tag."""
    found = {}
    for item in items:
        body = {**item.body, "attributes": {"person": PERSON}, "tags": ["subject"]}
        found[(await rest.post("ingest", "/v1/samples", json=body))["sample_id"]] = item
    return found


async def play(stack: Stack, home: Path, file: Path, halfsure: Command, stop: Callable[[], Awaitable[None]]) -> Played:
    """Play to the last label; the backup is made on the way, by the command."""
    plan = small_plan()
    rest = Rest(stack.url, stack.token, plan.project)
    backup = Backup(rest, halfsure, home, file)
    player = Player(rest, plan, stack.app_ids, backup.look)
    await player.make_project()
    person = await bring(rest, list(plan.split.pool[:12]))
    await player.play()
    assert backup.task is not None
    await backup.task
    after = await facts(rest)
    print(f"{len(backup.before['labels'])} labels before, {backup.during} came during the backup, {BUDGET} in all")
    assert MOMENT <= len(backup.before["labels"]) < len(after["labels"]) == BUDGET
    return Played(stack, rest, plan, home, file, stack.token, person, backup.before, after, stop)


def small_plan() -> Plan:
    parts = split(digits(), 0)
    few = Split(parts.pool[:80], parts.evaluation[:60], parts.test[:40])
    return Plan(digits(), few, "uncertainty_coverage", BUDGET, BATCH, 0)


async def facts(rest: Rest) -> dict[str, Any]:
    """What must outlive the wiping: samples, accepted labels, snapshots with their rows, models with their hashes."""
    tasks = await rest.everything("label-queue", "/v1/tasks")
    runs = [run for run in await rest.everything("retrain-trigger", "/v1/runs") if run["state"] in ENDED]
    names = [run["snapshot"]["id"] for run in runs]
    read = [await rest.get("retrain-trigger", f"/v1/snapshots/{name}/content") for name in names]
    models = await rest.everything("retrain-trigger", "/v1/models")
    return {
        "samples": {row["sample_id"]: row["content"] for row in await rest.everything("ingest", "/v1/samples")},
        "labels": {row["sample_id"]: row["value"] for row in tasks if row["state"] == "ACCEPTED" and row["round_id"]},
        "snapshots": dict(zip(names, read, strict=True)),
        "models": {row["version"]: row["artefact"]["sha256"] for row in models},
    }


class Backup:
    """Runs the command, once, in the middle of a play."""

    def __init__(self, rest: Rest, halfsure: Command, home: Path, file: Path) -> None:
        self._rest, self._run = rest, lambda: halfsure("backup", str(file), "--home", str(home))
        self.task: asyncio.Task[None] | None = None
        self.before: dict[str, Any] = {}
        self.during = 0  # labels that came while it was made

    def look(self, progress: Progress) -> None:
        if progress.accepted >= MOMENT and self.task is None:
            self.task = asyncio.create_task(self._go())

    async def _go(self) -> None:
        self.before = await facts(self._rest)
        done = await asyncio.to_thread(self._run)
        assert done.returncode == 0, done.stdout + done.stderr
        labels = (await facts(self._rest))["labels"]
        self.during = len(labels) - len(self.before["labels"])
