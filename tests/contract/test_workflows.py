"""The workflow engine in memory keeps the port's promises (Dapr's: tests/integration/test_workflow.py)."""

import asyncio
from collections.abc import Generator
from typing import Any

from conftest import wait_until

from services.runtime.errors import Unavailable
from services.runtime.memory_workflows import MemoryWorkflows
from services.runtime.workflow import Activity, ActivityFailed, External, Step, Timer


def journey(order: dict[str, Any]) -> Generator[Step, Any, Any]:
    first = yield Activity("note", "first")
    yield Timer(3600)
    try:
        yield Activity("fail", order)
    except ActivityFailed as error:
        yield Activity("note", f"failed: {error}")
    late = yield External("never", 0.2)
    word = yield External("go")
    yield Activity("note", "last")
    return [first, late, word]


class Steps:
    """The activities, and what they were called with."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.away = 0

    async def note(self, step: str) -> str:
        if self.away:
            self.away -= 1
            raise Unavailable("the store")
        self.taken.append(step)
        return step

    async def fail(self, _: Any) -> None:
        raise ValueError("as it was told to")


def engine(steps: Steps, workflows: MemoryWorkflows | None = None) -> MemoryWorkflows:
    workflows = workflows or MemoryWorkflows()
    workflows.register("journey", journey, {"note": steps.note, "fail": steps.fail})
    return workflows


async def until(workflows: MemoryWorkflows, status: str | None) -> None:
    async def there() -> bool:
        return await workflows.status("one") == status

    await wait_until(there)


async def test_steps_are_taken_in_order_and_an_event_ends_it() -> None:
    steps = Steps()
    workflows = engine(steps)
    await workflows.start()
    await workflows.run("journey", "one", {})
    await workflows.run("journey", "one", {})
    await workflows.raise_event("one", "go", {"word": "go"})
    await until(workflows, "completed")
    assert steps.taken == ["first", "failed: fail: ValueError: as it was told to", "last"]
    assert workflows.instances["one"].output == ["first", None, {"word": "go"}]
    await workflows.run("journey", "one", {})
    assert await workflows.status("one") == "completed", "an instance that has ended is left alone"


async def test_after_a_restart_no_step_is_taken_again() -> None:
    steps = Steps()
    workflows = engine(steps)
    await workflows.start()
    await workflows.run("journey", "one", {})
    await wait_until(lambda: len(steps.taken) == 2)
    await asyncio.sleep(0.01)
    await workflows.stop()
    assert await workflows.status("one") == "running"
    later = Steps()
    engine(later, workflows)
    await workflows.start()
    await workflows.raise_event("one", "go")
    await until(workflows, "completed")
    assert later.taken == ["last"]


async def test_what_is_away_for_a_moment_is_waited_for() -> None:
    steps = Steps()
    steps.away = 2
    workflows = engine(steps)
    await workflows.start()
    await workflows.run("journey", "one", {})
    await workflows.raise_event("one", "go")
    await until(workflows, "completed")
    assert steps.taken[0] == "first"


async def test_terminated_and_purged_it_can_be_started_anew() -> None:
    steps = Steps()
    workflows = engine(steps)
    await workflows.start()
    await workflows.run("journey", "one", {})
    await workflows.purge("one")
    assert await workflows.status("one") == "running", "only what has ended is forgotten"
    await workflows.terminate("one")
    await until(workflows, "terminated")
    await workflows.purge("one")
    await until(workflows, None)
    await workflows.run("journey", "one", {})
    await workflows.raise_event("one", "go")
    await until(workflows, "completed")
