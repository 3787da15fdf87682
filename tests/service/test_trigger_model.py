"""The retrain trigger against a model of it: labels in any order and twice, runs that end well or badly, restarts."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from conftest import memory_ports, wait_until
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from training import Rehearsal, ask, evaluation, label, make, running, runs

from services.contracts.events import Event, LabelRetracted, SampleWithdrawn
from services.contracts.ids import sample_id

N, COOLDOWN, AGE, PAUSE = 3, 20.0, 60.0, 30.0
RULE = {"n": N, "min_per_class": 0, "cooldown_seconds": COOLDOWN, "max_age_seconds": AGE}
NUMBERS = st.integers(0, 7)  # even ones are dark, odd ones bright
OPEN = ("REQUESTED", "SUBMITTED", "RUNNING")

Snapshot = frozenset[tuple[str, int]]
"""(sample id, label revision) of all that is trained on."""


def name(number: int) -> str:
    return sample_id("default", f"train-{number}")


@dataclass
class Known:
    """What the model knows of a sample's label."""

    revision: int = 0
    stands: bool = False
    withdrawn: bool = False
    at: datetime | None = None
    used: bool = False  # some run that succeeded has this revision


class Trigger(RuleBasedStateMachine):
    """Events come as they like; the model says when a run begins, and over which labels."""

    def __init__(self) -> None:
        super().__init__()
        self.runner, self.folder, self.patch = asyncio.Runner(), TemporaryDirectory(), pytest.MonkeyPatch()
        for loop in ("CHECK", "TEND", "REFRESH"):  # they turn when the model says so
            self.patch.setenv(f"HALFSURE_RETRAIN_TRIGGER_{loop}_SECONDS", "3600")
        self.patch.setenv("HALFSURE_RETRAIN_TRIGGER_POOL_PATIENCE", "0")
        peers = {"ingest": lambda path, params: {"items": [], "cursor": None}}
        self.ports, self.backend = memory_ports(peers), Rehearsal()
        self.start()
        self.do(make(self.one, trigger=RULE))
        self.do(self.one.deliver_batch(evaluation(4)))
        self.model = {number: Known() for number in range(8)}
        self.past: list[Event] = []
        self.tried: set[Snapshot] = set()
        self.flown = 0
        self.active: Snapshot | None = None
        self.ended_at: datetime | None = None
        self.failed = False

    def do(self, work: Any) -> Any:
        return self.runner.run(work)

    def start(self) -> None:
        self.stack = AsyncExitStack()
        self.one = self.do(self.stack.enter_async_context(running(Path(self.folder.name), self.backend, self.ports)))

    @property
    def now(self) -> datetime:
        return self.ports.clock.now()

    def tell(self, *events: Event) -> None:
        self.past += events
        for event in events:
            assert self.do(self.one.deliver(event)) == ["SUCCESS"]
        self.look()

    @rule(number=NUMBERS)
    def accept(self, number: int) -> None:
        """A first label, or a newer one."""
        known = self.model[number]
        known.revision += 1
        if not known.withdrawn:
            waits = known.stands and not known.used
            known.stands, known.used, known.at = True, False, known.at if waits else self.now
        self.tell(label(number, revision=known.revision))

    @rule(number=NUMBERS)
    def retract(self, number: int) -> None:
        known = self.model[number]
        if not known.stands:
            return
        known.revision, known.stands = known.revision + 1, False
        fields = {"project": "default", "sample_id": name(number), "why": "wrong"}
        fields |= {"label_revision": known.revision, "previous_revision": known.revision - 1}
        self.tell(LabelRetracted.model_validate(fields))

    @rule(number=NUMBERS)
    def withdraw(self, number: int) -> None:
        known = self.model[number]
        known.withdrawn, known.stands = True, False
        self.tell(SampleWithdrawn(project="default", sample_id=name(number), who="w", why="privacy"))

    @precondition(lambda self: self.past)
    @rule(picks=st.lists(st.integers(0, 99), min_size=1, max_size=5))
    def repeat(self, picks: list[int]) -> None:
        """The broker brings old events again, in another order; nothing changes by them."""
        before = len(self.past)
        self.tell(*(self.past[pick % before] for pick in picks))
        del self.past[before:]

    @rule(seconds=st.sampled_from([1.0, 25.0, 61.0]))
    def wait(self, seconds: float) -> None:
        self.ports.clock.step(seconds)  # type: ignore[attr-defined]
        self.look()

    @rule(error=st.sampled_from([None, None, "not-trainable: because"]))
    def end(self, error: str | None) -> None:
        """The run that is active ends, well or badly."""
        if self.active is None:
            return
        self.backend.fail = error
        self.backend.hold.set()
        self.do(wait_until(self.landed))
        self.backend.hold.clear()
        flown, self.active, self.ended_at, self.failed = self.active, None, self.now, error is not None
        if not error:
            for number, known in self.model.items():
                known.used |= (name(number), known.revision) in flown
        self.look()

    @rule()
    def restart(self) -> None:
        self.do(self.stack.aclose())
        self.start()
        self.look()

    def look(self) -> None:
        """Once around all that the service does by itself, and what must have come of it."""
        self.do(self.turn())
        if self.due():
            self.active = self.snapshot()
            self.tried.add(self.active)
            self.flown += 1
        found = self.do(runs(self.one))
        assert len(found) == self.flown, [run["state"] for run in found]
        flying = [at for at, run in enumerate(found) if run["state"] in OPEN]
        assert flying == ([] if self.active is None else [0])
        if self.active is not None:
            content = self.do(ask(self.one, f"/v1/snapshots/{found[0]['snapshot']['id']}/content"))
            assert {(row["sample_id"], row["revision"]) for row in content["train"]} == self.active

    async def turn(self) -> None:
        self.backend.hold.clear()
        for loop in ("consider", "tend"):
            await next(work for _, work in self.one.service._loops if work.__qualname__ == f"Flights.{loop}")()

    async def landed(self) -> bool:
        return (await ask(self.one, "/v1/triggers/default"))["active_run"] is None

    def snapshot(self) -> Snapshot:
        return frozenset((name(number), known.revision) for number, known in self.model.items() if known.stands)

    def due(self) -> bool:
        """The rule of the contract, in the model's words."""
        new = [known for known in self.model.values() if known.stands and not known.used]
        ages = [(self.now - known.at).total_seconds() for known in new if known.at]
        wanted = len(new) >= N or max(ages, default=0.0) >= AGE
        classes = {number % 2 for number, known in self.model.items() if known.stands}
        pause = max(COOLDOWN, PAUSE) if self.failed else COOLDOWN
        rested = self.ended_at is None or (self.now - self.ended_at).total_seconds() >= pause
        free = self.active is None and self.snapshot() not in self.tried
        return wanted and len(classes) == 2 and rested and free

    def teardown(self) -> None:
        try:
            self.finish()
        finally:
            self.do(self.stack.aclose())
            self.runner.close()
            self.patch.undo()
            self.folder.cleanup()

    def finish(self) -> None:
        """Whatever has happened: in the end one run has seen the final labels, and no second one follows."""
        self.end(None)
        self.wait(61.0)
        self.end(None)
        seen = self.flown
        for _ in range(3):
            self.wait(61.0)
        assert self.flown == seen
        classes = {number % 2 for number, known in self.model.items() if known.stands}
        if len(classes) == 2 and any(known.stands and not known.used for known in self.model.values()):
            assert self.snapshot() in self.tried, "these labels were never trained on"


TestTrigger = Trigger.TestCase
TestTrigger.settings = settings(max_examples=10, stateful_step_count=25)
