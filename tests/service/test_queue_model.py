"""The queue against a model of it: many samples, two replicas, events that come twice, late, or in another order."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from conftest import Running, memory_ports, started
from crowd import claim, project, selected, submit
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from services.contracts.events import Event, LabelAccepted, LabelRetracted, SampleWithdrawn
from services.label_queue.app import create

SAMPLES = [f"smp_{number}" for number in range(3)]
PEOPLE = ["ann", "bob", "cyd"]
TTL, LONGEST = timedelta(seconds=120), timedelta(seconds=1800)
SLOW = ("SWEEP", "FLUSH", "READ_ON")  # what happens in the background happens when the model says so

one_of = st.sampled_from
replicas = st.integers(0, 1)


@dataclass
class Known:
    """What the model knows of a sample."""

    asked: bool = False
    withdrawn: bool = False
    labelled: int = 0
    retracted: bool = False
    holders: dict[int, str] = field(default_factory=dict)
    given: dict[int, Any] = field(default_factory=dict)  # epoch -> the answer that counted
    lease: int | None = None  # the epoch of whoever holds it
    since: datetime | None = None
    until: datetime | None = None

    def free(self, now: datetime) -> bool:
        is_open = self.asked and not self.withdrawn and not self.labelled
        return is_open and (self.lease is None or self.until is None or self.until <= now)


class Queue(RuleBasedStateMachine):
    """Anybody does anything through any replica; the model says what the answer must be."""

    def __init__(self) -> None:
        super().__init__()
        self.runner, self.folder, self.patch = asyncio.Runner(), TemporaryDirectory(), pytest.MonkeyPatch()
        self.patch.setenv("HALFSURE_LABEL_QUEUE_REFRESH_SECONDS", "0")
        for name in SLOW:
            self.patch.setenv(f"HALFSURE_LABEL_QUEUE_{name}_SECONDS", "3600")
        self.ports = memory_ports()
        self.stacks: list[AsyncExitStack] = [AsyncExitStack(), AsyncExitStack()]
        self.running: list[Running] = [self.start(number) for number in (0, 1)]
        for replica in self.running:
            self.do(replica.deliver(project()))
        self.model = {name: Known() for name in SAMPLES}
        self.grants: list[tuple[str, dict[str, Any]]] = []
        self.said: list[tuple[str, str]] = []

    def do(self, work: Any) -> Any:
        return self.runner.run(work)

    def start(self, number: int) -> Running:
        folder = Path(self.folder.name) / str(number)
        folder.mkdir(exist_ok=True)
        return self.do(self.stacks[number].enter_async_context(started(create, folder, self.ports, replica=number)))

    @property
    def now(self) -> datetime:
        return self.ports.clock.now()

    @rule(names=st.lists(one_of(SAMPLES), min_size=1, max_size=4), round_id=one_of(["rnd_1", "rnd_2"]), at=replicas)
    def select(self, names: list[str], round_id: str, at: int) -> None:
        events: list[Event] = [selected(name, round_id) for name in names]
        assert set(self.do(self.running[at].deliver_batch(events))) == {"SUCCESS"}
        for name in names:
            self.model[name].asked = True

    @rule(name=one_of(SAMPLES), times=st.integers(1, 2), at=replicas)
    def withdraw(self, name: str, times: int, at: int) -> None:
        gone = SampleWithdrawn(project="default", sample_id=name, who="w", why="privacy")
        self.do(self.running[at].deliver_batch([gone] * times))
        known = self.model[name]
        known.retracted |= bool(known.labelled)
        known.withdrawn, known.lease = True, None

    @rule(seconds=one_of([1, 60, 121, 1900]))
    def wait(self, seconds: int) -> None:
        self.ports.clock.step(seconds)  # type: ignore[attr-defined]

    @rule(who=one_of(PEOPLE), n=st.integers(1, 3), at=replicas)
    def claim(self, who: str, n: int, at: int) -> None:
        free = {name for name, known in self.model.items() if known.free(self.now)}
        tasks = self.do(claim(self.running[at], n, who))
        assert bool(tasks) == bool(free), (tasks, free)
        assert {task["sample_id"] for task in tasks} <= free
        assert len({task["id"] for task in tasks}) == len(tasks) <= n
        for task in tasks:
            known, epoch = self.model[task["sample_id"]], task["lease"]["epoch"]
            assert epoch > max(known.holders, default=0)
            known.holders[epoch], known.lease = who, epoch
            known.since, known.until = self.now, self.now + TTL
            self.grants.append((who, task))

    @precondition(lambda self: self.grants)
    @rule(pick=st.integers(0, 99), at=replicas, verb=one_of(["heartbeat", "release"]))
    def touch(self, pick: int, at: int, verb: str) -> None:
        who, task = self.grants[pick % len(self.grants)]
        known, epoch = self.model[task["sample_id"]], task["lease"]["epoch"]
        body = {"epoch": epoch, "annotator": who}
        answer = self.do(self.running[at].call("POST", f"/v1/tasks/{task['id']}:{verb}", "operator", json=body))
        mine = known.lease == epoch and known.since is not None and known.until is not None
        worn = mine and verb == "heartbeat" and self.now >= known.since + LONGEST
        if mine and not worn and known.until > self.now:
            assert answer.status_code == 200, answer.text
        elif not mine or worn:
            assert answer.status_code == 409, answer.text
        if answer.status_code == 200:
            known.until = max(known.until, min(self.now + TTL, known.since + LONGEST))
            known.lease = epoch if verb == "heartbeat" else None
        elif mine and not worn:
            known.lease = None  # it had run out, and was swept

    @precondition(lambda self: self.grants)
    @rule(pick=st.integers(0, 99), value=one_of(["cat", "dog"]), times=st.integers(1, 2), at=replicas)
    def submit(self, pick: int, value: str, times: int, at: int) -> None:
        who, task = self.grants[pick % len(self.grants)]
        known, epoch = self.model[task["sample_id"]], task["lease"]["epoch"]
        for _ in range(times):
            answer = self.do(submit(self.running[at], task, value, who))
            if known.withdrawn:
                wanted = 409
            elif epoch in known.given:
                wanted = 200 if known.given[epoch] == value else 409
            else:
                wanted = 409 if known.labelled else 201
            assert answer.status_code == wanted, answer.text
            if wanted == 201:
                known.given[epoch], known.labelled, known.lease = value, 1, None

    @rule(at=replicas)
    def sweep(self, at: int) -> None:
        service = self.running[at].service
        for name in ("sweep", "flush"):
            self.do(next(work for _, work in service._loops if work.__name__ == name)())

    @rule(at=replicas)
    def restart(self, at: int) -> None:
        self.do(self.stacks[at].aclose())
        self.running[at] = self.start(at)

    def teardown(self) -> None:
        try:
            self.finish()
        finally:
            for stack in self.stacks:
                self.do(stack.aclose())
            self.runner.close()
            self.patch.undo()
            self.folder.cleanup()

    def finish(self) -> None:
        """Whatever has happened: what is still open can be answered, and each label was said once."""
        self.wait(1900)
        while any(known.free(self.now) for known in self.model.values()):
            before = len(self.grants)
            self.claim("ann", 3, 0)
            for pick in range(before, len(self.grants)):
                self.submit(pick, "cat", 1, 1)
        for replica in self.running:
            self.do(replica.service.outbox.drain())
        events = [envelope for _, envelope in self.running[0].bus.take()]
        for kind, wanted in ((LabelAccepted, "labelled"), (LabelRetracted, "retracted")):
            said = Counter(event["subject"] for event in events if event["type"] == kind.type)
            assert said == Counter(name for name, known in self.model.items() if getattr(known, wanted)), kind


TestQueue = Queue.TestCase
TestQueue.settings = settings(max_examples=20, stateful_step_count=30)
