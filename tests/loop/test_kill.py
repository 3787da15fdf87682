"""Whatever is killed in the middle, the counts at the end are the same and no sample is asked for twice."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from following import Wire, follow

from services.cli.datasets import digits, split
from services.cli.player import Plan, Player, Progress
from services.cli.rest import Rest
from services.cli.settings import StackSettings
from services.cli.stack import Stack

pytestmark = [pytest.mark.loop, pytest.mark.timeout(900)]

BUDGET, BATCH = 60, 20
APPS = ("ingest", "infer", "select-uncertain", "label-queue", "retrain-trigger")


class Killer:
    """Kills each victim once, as soon as the loop has come as far as its moment."""

    def __init__(self, stack: Stack, moments: list[tuple[str, str, int]]) -> None:
        self._stack = stack
        self._moments = moments
        self.killed: list[str] = []

    def look(self, progress: Progress) -> None:
        while self._moments:
            victim, count, least = self._moments[0]
            if getattr(progress, count) < least or self._stack.pid(victim) is None:
                return
            self._stack.kill(victim)
            self.killed.append(victim)
            self._moments.pop(0)


# Each service and each sidecar once, at a step of the loop at which it has work in hand.
MOMENTS = [
    ("ingest", "ingested", 100),
    ("ingest-sidecar", "ingested", 300),
    ("infer", "ingested", 500),
    ("infer-sidecar", "ingested", 700),
    ("select-uncertain", "ingested", 900),
    ("select-uncertain-sidecar", "ingested", 1100),
    ("label-queue", "accepted", 12),
    ("retrain-trigger", "accepted", 20),
    ("label-queue-sidecar", "accepted", 32),
    ("retrain-trigger-sidecar", "accepted", 40),
    ("infer", "accepted", 40),
]


async def test_kill_9_of_every_service_and_sidecar_changes_no_count(scratch: Path, offset: int) -> None:
    data = digits()
    plan = Plan(data, split(data, 0), "uncertainty_coverage", BUDGET, BATCH, 0)
    async with Stack(StackSettings(home=scratch / "home", port_offset=offset)).running() as stack:
        rest = Rest(stack.url, stack.token, plan.project)
        killer = Killer(stack, list(MOMENTS))
        player, wire = Player(rest, plan, stack.app_ids, killer.look), Wire(stack.ports["redis"])
        await player.make_project()
        progress = await player.play()
        assert killer.killed == [victim for victim, _, _ in MOMENTS]
        assert not (found := await follow(rest, plan, progress, Counter(dict.fromkeys(player.labels, 1)))), found
        seen = wire.check()
        assert {"sample-ingested", "sample-scored", "sample-selected", "label-accepted", "training", "model"} <= set(
            seen
        )
        wire.close()
        letters = [await rest.get(app, "/v1/deadletters") for app in APPS]
        assert not any(letter["items"] for letter in letters), json.dumps(letters)[:2000]
        await rest.close()
    shutil.rmtree(scratch / "home")
