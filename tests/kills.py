"""Annotators in processes of their own, killed at random, and the service under them; and what must hold after."""

import asyncio
import contextlib
import json
import random
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import orjson
from conftest import wait_until
from crowd import project, selected
from queues import QueueStack

from services.contracts.events import LabelAccepted
from services.contracts.ids import task_id

PROGRAM = Path(__file__).with_name("annotators.py")
READY_SECONDS = 180.0  # a busy machine takes its time to start a process
TARGETS = ("client", "client", "label-queue", "label-queue-sidecar")


@dataclass
class Outcome:
    """What the play has shown; `back_seconds` is how long a killed client's tasks took to be free again."""

    tasks: int
    annotators: int
    kills: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    accepted_twice: int = 0
    lost: int = 0
    back_seconds: float = 0.0
    held_by_killed: int = 0
    seconds: float = 0.0


class Crowd:
    """The processes, each with some annotators."""

    def __init__(self, queue: QueueStack, folder: Path, annotators: int, processes: int, rng: random.Random) -> None:
        self._queue = queue
        self._folder = folder
        self._rng = rng
        names = [f"annotator-{number}" for number in range(annotators)]
        self.groups = [names[at::processes] for at in range(processes)]
        self.processes = [self._start(at) for at in range(processes)]

    def journal(self, at: int) -> Path:
        return self._folder / f"journal-{at}.jsonl"

    def _start(self, at: int) -> subprocess.Popen[bytes]:
        url, token = self._queue.stack.url("label-queue"), self._queue.stack.token
        arguments = [url, token, str(self.journal(at)), str(self._rng.randrange(2**31)), *self.groups[at]]
        return subprocess.Popen([sys.executable, str(PROGRAM), *arguments])

    def kill(self) -> list[dict[str, Any]]:
        """`kill -9` one of them and start it anew; what it had claimed and not answered."""
        at = self._rng.choice([at for at, process in enumerate(self.processes) if process.poll() is None])
        self.processes[at].kill()
        self.processes[at].wait()
        open_: dict[tuple[str, int], dict[str, Any]] = {}
        for row in rows(self.journal(at)):
            key = (row["task"], row["epoch"])
            if row["what"] == "claimed":
                open_[key] = row
            else:
                open_.pop(key, None)
        self.processes[at] = self._start(at)
        return [row for row in open_.values() if time.time() - row["at"] < 60]

    @property
    def working(self) -> bool:
        return any(process.poll() is None for process in self.processes)

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def rows(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a journal; a kill may have cut the last one."""
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


class Watch:
    """Looks every second which leases of killed clients are over, and remembers how long the longest took."""

    def __init__(self, queue: QueueStack) -> None:
        self._queue = queue
        self._held: dict[tuple[str, int], float] = {}
        self.longest = 0.0

    def add(self, rows_: Sequence[dict[str, Any]]) -> None:
        self._held |= {(row["task"], row["epoch"]): time.monotonic() for row in rows_}

    async def run(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            asked = time.monotonic()
            leased = {(task["id"], task["epoch"]) for task in await listed(self._queue, "leased")}
            over = [key for key, killed in self._held.items() if killed < asked and key not in leased]
            self.longest = max([self.longest, *(time.monotonic() - self._held.pop(key) for key in over)])


async def listed(queue: QueueStack, state: str) -> list[dict[str, Any]]:
    """All tasks in a state, as reviewers see them; asked again while the service is away."""
    found: list[dict[str, Any]] = []
    query: dict[str, Any] = {"state": state, "limit": 500}
    while True:
        try:
            answer = await queue.client.get("/v1/tasks", params=query)
        except httpx2.TransportError:
            answer = None
        if answer is None or answer.status_code != 200:
            await asyncio.sleep(0.3)
            continue
        page = answer.json()
        found += page["items"]
        if page["cursor"] is None:
            return found
        query["cursor"] = page["cursor"]


async def play(
    queue: QueueStack,
    folder: Path,
    rng: random.Random,
    *,
    tasks: int,
    annotators: int,
    processes: int,
    kills: Sequence[str],
) -> Outcome:
    """Fill the queue by the broker, let all annotators at it, and kill what `kills` names, spread over the work.

    How far the work is, and no clock, says when: on a fast machine a few seconds are all of it.
    """
    outcome = Outcome(tasks, annotators)
    await queue.publish([project()])
    samples = [f"smp_{number}" for number in range(tasks)]
    await queue.publish([selected(sample, priority=rng.random()) for sample in samples])

    async def all_queued() -> bool:
        return (await queue.stats()).get("asked") == tasks

    await wait_until(all_queued, 120)
    began = time.monotonic()
    crowd, watch = Crowd(queue, folder, annotators, processes, rng), Watch(queue)
    watching = asyncio.create_task(watch.run())
    try:
        for at, target in enumerate(kills):
            await _worked_off(queue, tasks * (at + rng.uniform(0.3, 0.7)) / (len(kills) + 1))
            outcome.kills[target] += 1
            if target == "client":
                held = crowd.kill()
                outcome.held_by_killed += len(held)
                watch.add(held)
            else:
                queue.stack.kill(target)
                await queue.stack.wait_ready(target, READY_SECONDS)
        deadline = time.monotonic() + 480
        while crowd.working:
            assert time.monotonic() < deadline, f"still working: {await queue.stats()}"
            assert not watching.done(), watching.exception()
            await asyncio.sleep(0.2)
        assert [process.returncode for process in crowd.processes] == [0] * processes
        await asyncio.sleep(2.5)
    finally:
        watching.cancel()
        crowd.end()
    outcome.seconds = time.monotonic() - began
    outcome.back_seconds = watch.longest
    journals = [row for at in range(processes) for row in rows(crowd.journal(at)) if row["what"] == "accepted"]
    await _judge(queue, outcome, samples, journals)
    return outcome


async def _worked_off(queue: QueueStack, count: float) -> None:
    async def enough_accepted() -> bool:
        with contextlib.suppress(httpx2.TransportError):
            answer = await queue.client.get("/v1/stats")
            return answer.status_code == 200 and answer.json()["accepted"] >= count
        return False

    await wait_until(enough_accepted, 480)


async def _judge(
    queue: QueueStack, outcome: Outcome, samples: Sequence[str], journals: Sequence[dict[str, Any]]
) -> None:
    """Against the records, the events, and what the clients were told."""
    outcome.acknowledged = len(journals)
    told: dict[str, set[tuple[str, int]]] = defaultdict(set)
    for row in journals:
        told[row["task"]].add((row["who"], row["epoch"]))
    records = {task["id"]: task for task in await listed(queue, "accepted")}
    counted = {
        name: {(a["annotator"], a["epoch"]) for a in task["answers"] if a["kind"] == "counted"}
        for name, task in records.items()
    }
    by_sample: dict[str, set[str]] = defaultdict(set)
    for event in await queue.said(LabelAccepted):
        by_sample[event["data"]["sample_id"]].add(event["id"])
    twice = {task_id("default", sample) for sample in samples if len(by_sample[sample]) > 1}
    twice |= {name for name in records if len(counted[name]) > 1 or len(told[name]) > 1}
    outcome.accepted_twice = len(twice)
    lost = {task_id("default", sample) for sample in samples if not by_sample[sample]}
    lost |= {name for sample in samples if (name := task_id("default", sample)) not in records}
    lost |= {name for name, task in records.items() if task["label_revision"] != 1}
    lost |= {name for name, answers in told.items() if not answers <= counted.get(name, set())}
    outcome.lost = len(lost)


def summary(outcome: Outcome) -> str:
    return orjson.dumps(vars(outcome) | {"kills": dict(outcome.kills)}).decode()
