"""One seeded run: a small loop from its first sample to its last model, while things go wrong."""

import asyncio
import json
import random
import shutil
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from chaos.faults import Chaos, drawn
from chaos.stacks import ChaosStack
from following import Wire, follow

from services.cli.datasets import Dataset, Item, Split
from services.cli.player import Plan, Player, Progress
from services.cli.rest import Rest
from services.contracts.inputs import InputSpec, TabularColumn

POOL, EVALUATION, TEST, BUDGET, BATCH = 80, 24, 10, 16, 8
LABELS = ("low", "middle", "high")
READY_SECONDS = 120.0
REDELIVERY_SECONDS = 150.0  # twice what components/local/pubsub.yaml lets pass, at most


@dataclass
class Report:
    """What a run has shown."""

    seed: int
    faults: list[str]
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    stuck: str | None = None
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        return bool(self.lost or self.doubled or self.stuck)


class ChaosPlan(Plan):
    """A plan with a project of its own, that waits no longer than a small run needs."""

    @property
    def project(self) -> str:
        return self.data.name

    def document(self) -> dict[str, Any]:
        document = super().document()
        # A label that a killed sidecar held comes a minute late and looks new: how long the next round waits for a
        # model of it is the policy's to say.
        policy = {**document["policy"], "settle_seconds": 20, "wait_seconds": 60, "audit": 1, "control": 1}
        return {**document, "policy": policy, "trigger": {**document["trigger"], "max_age_seconds": 10}}


def plan_of(seed: int) -> ChaosPlan:
    """Rows of two numbers in three overlapping clouds, others for each seed."""
    rng = np.random.default_rng(seed)
    items = []
    for number in range(POOL + EVALUATION + TEST):
        label = number % 3
        x, y = rng.normal((label, -label), 0.5)
        row = {"x": round(float(x), 6), "y": round(float(y), 6)}
        items.append(Item(b"", "application/json", LABELS[label], row))
    rng.shuffle(items)  # type: ignore[arg-type]
    parts = Split(tuple(items[:POOL]), tuple(items[POOL : POOL + EVALUATION]), tuple(items[POOL + EVALUATION :]))
    spec = InputSpec.tabular([TabularColumn(name="x"), TabularColumn(name="y")])
    data = Dataset(f"chaos-{seed}", "tabular-classification", LABELS, spec, tuple(items))
    return ChaosPlan(data, parts, "uncertainty_coverage", BUDGET, BATCH, seed)


async def run(stack: ChaosStack, seed: int, disk: bool) -> Report:
    """Play, hurt, heal, and follow every id."""
    rng, plan = random.Random(seed), plan_of(seed)
    targets = [name for name in stack.processes if not name.startswith("portal")]
    chaos = Chaos(stack, drawn(rng, plan, targets, disk))
    report, began = Report(seed, []), time.monotonic()
    rest, wire = Rest(stack.url, stack.token, plan.project), Wire(stack.ports["redis"])
    player = Player(rest, plan, (), chaos.look)  # nobody's counts of events: they cost as much as the loop
    player.pause = 0.5  # looking costs a stack more than the loop of so few samples
    try:
        await player.make_project()
        progress = await player.play()
        await chaos.calm()
        await asyncio.gather(*(stack.wait_ready(name, READY_SECONDS) for name in stack.processes))
        await _all_scored(rest, progress)
        found = await follow(rest, plan, progress, Counter(dict.fromkeys(player.labels, 1)))
        found.lost += await _dead_letters(rest, stack, plan.project)
        wire.check()
        report = replace(report, lost=found.lost, doubled=found.doubled)
    except Exception as error:
        traceback.print_exception(error)
        report = replace(report, stuck=f"{type(error).__name__}: {error}"[:2000])
        await chaos.calm()
    finally:
        if report.failed:
            _keep(stack, wire, seed)
        wire.close()
        await _forget(rest, plan.project)
        await rest.close()
    left = [f"(not done) {fault.kind} {fault.target}".strip() for fault in chaos.waiting]
    return replace(report, faults=[*chaos.done, *left], seconds=round(time.monotonic() - began, 1))


async def _all_scored(rest: Rest, progress: Progress) -> None:
    """A loop may end without some of the pool: what a killed sidecar had in hand comes again after a good minute."""
    deadline = time.monotonic() + REDELIVERY_SECONDS
    while progress.scored < progress.pool and time.monotonic() < deadline:
        await asyncio.sleep(0.5)
        progress.scored = (await rest.get("select-uncertain", "/v1/stats"))["seen"]


async def _dead_letters(rest: Rest, stack: ChaosStack, project: str) -> list[str]:
    """Nothing that these faults do is a reason to give an event of the project up."""
    found = []
    for app in stack.app_ids:
        letters = await rest.get(app, "/v1/deadletters")
        own = [letter for letter in letters["items"] if (letter.get("event") or {}).get("project") == project]
        found += [f"{app} gave up {json.dumps(letter)[:500]}" for letter in own]
    return found


def _keep(stack: ChaosStack, wire: Wire, seed: int) -> None:
    """For whoever wants to know why: the logs, the messages since the run began, and what the store holds of it."""
    folder = Path("out/chaos") / f"seed-{seed}"
    shutil.copytree(stack.home.logs, folder, dirs_exist_ok=True)
    (folder / "messages.jsonl").write_text("\n".join(json.dumps(row) for row in wire.rows()))
    (folder / "records.json").write_text(json.dumps(wire.records(f"chaos-{seed}"), indent=1))


async def _forget(rest: Rest, project: str) -> None:
    """A project that is over costs the next ones nothing."""
    try:
        document = await rest.get("retrain-trigger", f"/v1/projects/{project}")
        match = {"if-match": f'"{document["revision"]}"'}
        await rest.call("DELETE", "retrain-trigger", f"/v1/projects/{project}", headers=match)
    except Exception as error:
        print(f"{project} is not deleted: {error}")
