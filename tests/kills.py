"""Annotators in processes of their own, killed at random, and the service under them; and what must hold after."""

import asyncio
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

import orjson
from conftest import wait_until
from crowd import project, selected
from queues import QueueStack, chunks

from services.contracts.events import LabelAccepted
from services.contracts.ids import task_id

PROGRAM = Path(__file__).with_name("annotators.py")
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
    """Fill the queue by the broker, let all annotators at it, and kill what `kills` names, a few seconds apart."""
    outcome = Outcome(tasks, annotators)
    await queue.publish([project()])
    samples = [f"smp_{number}" for number in range(tasks)]
    await queue.publish([selected(sample, priority=rng.random()) for sample in samples])

    async def all_queued() -> bool:
        return (await queue.stats()).get("asked") == tasks

    await wait_until(all_queued, 120)
    began = time.monotonic()
    crowd = Crowd(queue, folder, annotators, processes, rng)
    watches: list[asyncio.Task[float]] = []
    try:
        for target in kills:
            await asyncio.sleep(rng.uniform(2, 4))
            if not crowd.working:
                break
            outcome.kills[target] += 1
            if target == "client":
                held = crowd.kill()
                outcome.held_by_killed += len(held)
                watches += [asyncio.create_task(_until_back(queue, row)) for row in held]
            else:
                queue.stack.kill(target)
                await queue.stack.wait_ready(target, 60)
        deadline = time.monotonic() + 480
        while crowd.working:
            assert time.monotonic() < deadline, f"still working: {await queue.stats()}"
            await asyncio.sleep(0.2)
        assert [process.returncode for process in crowd.processes] == [0] * processes
        outcome.back_seconds = max(await asyncio.gather(*watches), default=0.0)
    finally:
        for watch in watches:
            watch.cancel()
        crowd.end()
    outcome.seconds = time.monotonic() - began
    journals = [row for at in range(processes) for row in rows(crowd.journal(at)) if row["what"] == "accepted"]
    await _judge(queue, outcome, samples, journals)
    return outcome


async def _until_back(queue: QueueStack, row: dict[str, Any]) -> float:
    """Seconds from the kill until the lease that a killed client had is over."""
    began = time.monotonic()
    while True:
        try:
            answer = await queue.client.get(f"/v1/tasks/{row['task']}")
            if answer.status_code == 200:
                task = answer.json()
                if task["state"] != "LEASED" or task["epoch"] != row["epoch"]:
                    return time.monotonic() - began
        except Exception as error:
            if "httpx" not in type(error).__module__:
                raise
        await asyncio.sleep(0.5)


async def _judge(
    queue: QueueStack, outcome: Outcome, samples: Sequence[str], journals: Sequence[dict[str, Any]]
) -> None:
    """Against the records, the events, and what the clients were told."""
    outcome.acknowledged = len(journals)
    told: dict[str, set[tuple[str, int]]] = defaultdict(set)
    for row in journals:
        told[row["task"]].add((row["who"], row["epoch"]))
    records = {}
    for part in chunks(samples, 50):
        for answer in await asyncio.gather(*(queue.client.get(f"/v1/tasks/{task_id('default', s)}") for s in part)):
            records[answer.json()["id"]] = answer.json()
    counted = {
        name: {(a["annotator"], a["epoch"]) for a in task["answers"] if a["kind"] == "counted"}
        for name, task in records.items()
    }
    events = await queue.said(LabelAccepted)
    by_sample: dict[str, set[str]] = defaultdict(set)
    for event in events:
        by_sample[event["data"]["sample_id"]].add(event["id"])
    twice = [s for s in samples if len(by_sample[s]) > 1]
    twice += [name for name in records if len(counted[name]) > 1 or len(told[name]) > 1]
    outcome.accepted_twice = len(set(twice))
    lost = {name for name, task in records.items() if task["state"] != "ACCEPTED" or task["label_revision"] != 1}
    lost |= {name for name, answers in told.items() if not answers <= counted[name]}
    lost |= {s for s in samples if not by_sample[s]}
    outcome.lost = len(lost) + len(samples) - len(records)


def summary(outcome: Outcome) -> str:
    return orjson.dumps(vars(outcome) | {"kills": dict(outcome.kills)}).decode()
