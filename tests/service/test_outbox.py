"""The outbox over replicas and clocks: whoever is taken for dead, whenever, all that was stored goes out."""

import asyncio
from typing import Any

from conftest import wait_until

from services.contracts.envelope import NO_ORIGIN, wrap
from services.contracts.events import SampleWithdrawn
from services.runtime.errors import Unavailable
from services.runtime.memory import MemoryBus
from services.runtime.outbox import Outbox
from services.runtime.ports import Ports
from services.runtime.unit import Unit


class Away:
    """A broker that takes nothing."""

    async def publish(self, events: Any) -> Any:
        raise Unavailable("away")


def outbox(ports: Ports, publisher: Any, slot: int | None = None) -> Outbox:
    def wrapped(event: Any, origin: Any = NO_ORIGIN, **parts: Any) -> bytes:
        return wrap(event, siteid="test", service="test", origin=origin, **parts)

    return Outbox(ports.state, publisher, ports.clock, wrapped, slot)


async def say(ports: Ports, box: Outbox, name: str) -> None:
    """Something that is written and said at once."""
    await box.ready()
    unit = Unit(ports.state, box)
    await unit.get(name)
    unit.put(name, {"there": True}, guard=True)
    unit.emit(SampleWithdrawn(project="p", sample_id=name, who="w", why="privacy"))
    await unit.commit_all()


async def crash(box: Outbox) -> None:
    for task in box._tasks:
        task.cancel()
    await asyncio.gather(*box._tasks, return_exceptions=True)


def said(bus: MemoryBus) -> set[str]:
    return {envelope["subject"] for _, envelope in bus.take()}


async def test_a_replica_that_was_taken_for_dead_loses_nothing_when_it_then_crashes(ports: Ports) -> None:
    bus: Any = ports.publisher
    one, two = outbox(ports, Away(), 0), outbox(ports, bus, 1)
    await one.start()
    await two.start()
    ports.clock.step(900)  # type: ignore[attr-defined]
    await two._sweep_the_dead()
    await say(ports, one, "smp_after")
    await crash(one)
    again = outbox(ports, bus, 0)
    await again.start()
    await again.drain()
    assert said(bus) == {"smp_after"}
    for box in (two, again):
        await box.stop()


async def test_a_clock_that_was_put_back_hides_no_dead_replica(ports: Ports) -> None:
    bus: Any = ports.publisher
    two = outbox(ports, bus, 1)
    await two.start()
    ports.clock.step(900)  # type: ignore[attr-defined]
    one = outbox(ports, Away(), 0)
    await one.start()
    await say(ports, one, "smp_left")
    await crash(one)
    ports.clock.step(-900)  # type: ignore[attr-defined]
    await two._sweep_the_dead()
    assert said(bus) == {"smp_left"}
    await two.stop()


async def test_a_replica_whose_slot_is_taken_goes_on_in_another(ports: Ports) -> None:
    bus: Any = ports.publisher
    one = outbox(ports, Away())
    await one.start()
    await say(ports, one, "smp_before")
    ports.clock.step(900)  # type: ignore[attr-defined]
    two = outbox(ports, bus)
    await two.start()
    assert two.slot == one.slot == 0
    await say(ports, two, "smp_two")
    await one._save_slot()
    assert one.slot == 1
    for number in range(600):  # further than either has reserved
        await say(ports, one, f"smp_one_{number}")
        await say(ports, two, f"smp_two_{number}")
    await crash(one)
    await two.drain()
    ports.clock.step(900)  # type: ignore[attr-defined]
    await two._sweep_the_dead()
    both = {f"smp_{who}_{number}" for who in ("one", "two") for number in range(600)}
    assert said(bus) == {"smp_before", "smp_two", *both}
    await two.stop()


async def test_a_slot_is_looked_through_once_more_by_whoever_comes_next(ports: Ports) -> None:
    bus: Any = ports.publisher
    one = outbox(ports, Away())
    await one.start()
    await say(ports, one, "smp_first")
    two = outbox(ports, bus)
    await two.start()
    ports.clock.step(900)  # type: ignore[attr-defined]
    await two._sweep_the_dead()
    await say(ports, one, "smp_late")
    await crash(one)
    three = outbox(ports, bus)
    await three.start()
    assert three.slot == 0
    await wait_until(lambda: not three.waiting)
    assert said(bus) == {"smp_first", "smp_late"}
    for box in (two, three):
        await box.stop()
