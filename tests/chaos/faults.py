"""What is done to a running loop: kinds of faults, and which of them a seed chooses, when and to whom."""

import asyncio
import contextlib
import json
import random
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis
from chaos.stacks import ChaosStack

from services.cli.player import Plan, Progress
from services.cli.process import signal_group
from services.contracts.events import TOPICS

KINDS = ("kill", "kill", "kill", "pause", "duplicate", "full_store", "full_disk", "slow_store", "slow_disk", "clock")
STEPS = (
    ("ingested", 0.2),
    ("ingested", 0.6),
    ("scored", 0.5),
    ("accepted", 0.05),
    ("accepted", 0.3),
    ("accepted", 0.6),
)
REPLAYED = 60  # events of a topic that come again
SHORT, LONG = 1.0, 4.0  # seconds
SAVED_SECONDS = 2.5  # after which Redis has written what a full disk kept it from writing


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong in the loop of a project, once `count` has reached `least`."""

    project: str
    kind: str
    target: str
    count: str
    least: int
    seconds: float
    seed: int


def drawn(rng: random.Random, plan: Plan, targets: Sequence[str], disk: bool) -> list[Fault]:
    """Three to five faults of a run, in the order of the steps of the loop that they belong to."""
    kinds = [kind for kind in KINDS if disk or kind != "full_disk"]
    sizes = {"accepted": plan.budget}
    found = []
    for _ in range(rng.randint(3, 5)):
        kind, (count, share) = rng.choice(kinds), rng.choice(STEPS)
        least = round(share * sizes.get(count, len(plan.split.pool)))
        target = rng.choice(targets) if kind in ("kill", "pause") else ""
        seconds, seed = rng.uniform(SHORT, LONG), rng.randrange(2**31)
        found.append(Fault(plan.project, kind, target, count, least, seconds, seed))
    return sorted(found, key=lambda fault: (fault.count == "accepted", fault.least))


@dataclass
class Chaos:
    """Does what is due, and undoes what must not last."""

    stack: ChaosStack
    waiting: list[Fault]
    done: list[str] = field(default_factory=list)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def look(self, progress: Progress) -> None:
        """Called whenever the counts are new."""
        for fault in [fault for fault in self.waiting if getattr(progress, fault.count) >= fault.least]:
            if fault.target and self.stack.pid(fault.target) is None:
                continue  # it is being started again; its turn comes
            if fault.target == "redis" and self.stack.unsaved:
                continue
            self.waiting.remove(fault)
            self._tasks.append(asyncio.create_task(_DO[fault.kind](self.stack, fault)))
            self.done.append(f"{fault.kind} {fault.target}".strip())

    async def calm(self) -> None:
        """Wait until everything that lasts for a while is over."""
        for task in self._tasks:
            await task
        self._tasks.clear()


async def _kill(stack: ChaosStack, fault: Fault) -> None:
    with contextlib.suppress(ProcessLookupError):
        stack.kill(fault.target)


async def _pause(stack: ChaosStack, fault: Fault) -> None:
    pid = stack.pid(fault.target)
    if pid is None:
        return
    signal_group(pid, signal.SIGSTOP)
    await asyncio.sleep(fault.seconds)
    signal_group(pid, signal.SIGCONT)


def _with_redis(work: Callable[[Any, Fault], Any]) -> Callable[[ChaosStack, Fault], Any]:
    async def do(stack: ChaosStack, fault: Fault) -> None:
        async with redis.asyncio.Redis(port=stack.ports["redis"], socket_timeout=10) as bus:
            for _ in range(100):
                with contextlib.suppress(redis.RedisError, OSError):
                    return await work(bus, fault)
                await asyncio.sleep(0.1)  # it may have been killed itself

    return do


@_with_redis
async def _duplicate(bus: Any, fault: Fault) -> None:
    """Events of the project come again: late, in another order, some of them twice."""
    rng = random.Random(fault.seed)
    again = []
    for topic in rng.sample(TOPICS, len(TOPICS)):
        rows = [fields for _, fields in await bus.xrevrange(topic, count=REPLAYED)]
        own = [fields for fields in rows if json.loads(fields[b"data"])["project"] == fault.project]
        again += [(topic, fields) for fields in own for _ in range(rng.randint(1, 2))]
    rng.shuffle(again)
    for topic, fields in again:
        await bus.xadd(topic, fields)


@_with_redis
async def _full_store(bus: Any, fault: Fault) -> None:
    """Redis refuses all that would need memory."""
    await bus.config_set("maxmemory-policy", "noeviction")
    await bus.config_set("maxmemory", "1")
    await asyncio.sleep(fault.seconds)
    await bus.config_set("maxmemory", "0")


@_with_redis
async def _slow_store(bus: Any, fault: Fault) -> None:
    """Redis answers in gasps.

    It is asked first whether it is there: a Redis 6.2 that is paused while it still loads its file ends itself.
    """
    for _ in range(round(fault.seconds * 2)):
        await bus.ping()
        await bus.client_pause(400, all=True)
        await asyncio.sleep(0.5)


async def _full_disk(stack: ChaosStack, fault: Fault) -> None:
    """Not a byte is left where the state, the contents and Redis' own file are.

    Redis takes no writes then, but what it took just before is in no file until there is room again, and it tries once
    a second: a Redis that is killed meanwhile loses what it had acknowledged, unless it is told to write at once
    (appendfsync always). Two faults at the same moment are more than a store on one disk can bear.
    """
    stack.unsaved = True
    filler = stack.home.path / f"filler-{fault.seed}"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError) as _:
        while file.write(bytes(1 << 20)):
            pass
    await asyncio.sleep(fault.seconds)
    filler.unlink()
    await asyncio.sleep(SAVED_SECONDS)
    stack.unsaved = any(stack.home.path.glob("filler-*"))  # another such fault may not be over


async def _slow_disk(stack: ChaosStack, fault: Fault) -> None:
    stack.control(blobs=0.15)
    await asyncio.sleep(2 * fault.seconds)
    stack.control()


async def _clock(stack: ChaosStack, fault: Fault) -> None:
    """All clocks jump, ahead or back, and later jump home."""
    rng = random.Random(fault.seed)
    stack.control(clock=rng.choice([-1, 1]) * rng.uniform(30, 900))
    await asyncio.sleep(fault.seconds)
    stack.control()


_DO: dict[str, Callable[[ChaosStack, Fault], Any]] = {
    "kill": _kill,
    "pause": _pause,
    "duplicate": _duplicate,
    "full_store": _full_store,
    "full_disk": _full_disk,
    "slow_store": _slow_store,
    "slow_disk": _slow_disk,
    "clock": _clock,
}
