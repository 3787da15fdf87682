"""Whatever is killed in the middle, the counts at the end are the same and no sample is asked for twice."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import redis

from services.cli.datasets import digits, split
from services.cli.player import Plan, Player, Progress
from services.cli.rest import Rest
from services.cli.settings import StackSettings
from services.cli.stack import Stack
from services.contracts.envelope import read
from services.contracts.events import TOPICS
from services.contracts.ids import event_id

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


async def everything(rest: Rest, app_id: str, path: str, **params: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = await rest.get(app_id, path, limit=500, **params, **cursor)
        rows += page["items"]
        if not page["cursor"]:
            return rows
        cursor = {"cursor": page["cursor"]}


async def check_counts(rest: Rest, plan: Plan, progress: Progress) -> None:
    """Settled point 14: ingested, asked, accepted and in the last snapshot; each label once, new in exactly one."""
    assert progress.ingested == progress.scored == len(plan.split.pool)
    assert progress.asked == progress.accepted == progress.in_snapshot == BUDGET
    tasks = await everything(rest, "label-queue", "/v1/tasks")
    asked = Counter(task["sample_id"] for task in tasks if task["state"] == "ACCEPTED" and task["round_id"])
    assert len(asked) == BUDGET
    assert set(asked.values()) == {1}
    runs = sorted(await everything(rest, "retrain-trigger", "/v1/runs"), key=lambda run: run["ended_at"])
    assert all(run["state"] == "SUCCEEDED" for run in runs)
    new: Counter[str] = Counter()
    seen: set[str] = set()
    for run in runs:
        snapshot = await rest.get("retrain-trigger", f"/v1/snapshots/{run['snapshot']['id']}/content")
        ids = [row["sample_id"] for row in snapshot["train"]]
        assert len(set(ids)) == len(ids)
        new.update(set(ids) - seen)
        seen |= set(ids)
    assert set(new) == set(asked)
    assert set(new.values()) == {1}


def check_wire(stack: Stack) -> None:
    """Every envelope that went over the broker: a CloudEvent 1.0 that the contract knows, its id made from its key."""
    bus = redis.Redis(port=stack.ports["redis"])
    seen: Counter[str] = Counter()
    for topic in TOPICS:
        for _, fields in bus.xrange(topic):
            envelope = json.loads(fields[b"data"])
            message = read(envelope)
            assert message.id == event_id(message.event.type, message.event.key)
            assert (message.event.topic, envelope["subject"]) == (topic, message.event.subject)
            seen[topic] += 1
    bus.close()
    assert {"sample-ingested", "sample-scored", "sample-selected", "label-accepted", "training", "model"} <= set(seen)


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
        player = Player(rest, plan, stack.app_ids, killer.look)
        await player.make_project()
        progress = await player.play()
        assert killer.killed == [victim for victim, _, _ in MOMENTS]
        await check_counts(rest, plan, progress)
        check_wire(stack)
        letters = [await rest.get(app, "/v1/deadletters") for app in APPS]
        assert not any(letter["items"] for letter in letters), json.dumps(letters)[:2000]
        await rest.close()
    shutil.rmtree(scratch / "home")
