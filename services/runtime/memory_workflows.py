"""The workflow engine in memory: the `test` profile, held to the same suite as Dapr's."""

import asyncio
import contextlib
import copy
from dataclasses import dataclass, field
from typing import Any

from services.runtime.workflow import (
    Activities,
    ActivityFailed,
    External,
    Status,
    Step,
    Timer,
    Workflow,
    patiently,
)


@dataclass
class _Instance:
    name: str
    order: Any
    history: list[tuple[bool, Any]] = field(default_factory=list)  # (succeeded, outcome) of each step
    raised: dict[str, list[Any]] = field(default_factory=dict)
    status: Status = "running"
    output: Any = None


class MemoryWorkflows:
    """The engine in one process. It may outlive a service, as the store does: `start` again resumes.

    Timers end at once, and so do waits with a time limit for events that are not there yet.
    """

    def __init__(self) -> None:
        self.instances: dict[str, _Instance] = {}
        self._registered: dict[str, tuple[Workflow, Activities]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._raised = asyncio.Condition()
        self._ready = False

    @property
    def ready(self) -> bool:
        return self._ready

    def register(self, name: str, workflow: Workflow, activities: Activities) -> None:
        self._registered[name] = (workflow, activities)

    async def start(self) -> None:
        self._ready = True
        for name, instance in self.instances.items():
            if instance.status == "running":
                self._drive(name)

    async def stop(self) -> None:
        self._ready = False
        tasks, self._tasks = self._tasks, {}
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)

    async def run(self, name: str, instance: str, order: Any) -> None:
        if instance not in self.instances:
            self.instances[instance] = _Instance(name, copy.deepcopy(order))
            self._drive(instance)

    async def status(self, instance: str) -> Status | None:
        found = self.instances.get(instance)
        return found.status if found else None

    async def raise_event(self, instance: str, name: str, data: Any = None) -> None:
        if found := self.instances.get(instance):
            async with self._raised:
                found.raised.setdefault(name, []).append(data)
                self._raised.notify_all()

    async def terminate(self, instance: str) -> None:
        if (found := self.instances.get(instance)) and found.status == "running":
            found.status = "terminated"
            if task := self._tasks.pop(instance, None):
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def purge(self, instance: str) -> None:
        if (found := self.instances.get(instance)) and found.status != "running":
            del self.instances[instance]

    def _drive(self, instance: str) -> None:
        self._tasks[instance] = asyncio.create_task(self._play(self.instances[instance]))

    async def _play(self, instance: _Instance) -> None:
        workflow, activities = self._registered[instance.name]
        steps = workflow(copy.deepcopy(instance.order))
        past = list(instance.history)
        succeeded, outcome = True, None
        try:
            while True:
                step = steps.send(outcome) if succeeded else steps.throw(ActivityFailed(outcome))
                if past:
                    succeeded, outcome = past.pop(0)
                    continue
                succeeded, outcome = await self._take(instance, step, activities)
                instance.history.append((succeeded, outcome))
        except StopIteration as end:
            instance.status, instance.output = "completed", end.value
        except ActivityFailed as error:
            instance.status, instance.output = "failed", str(error)

    async def _take(self, instance: _Instance, step: Step, activities: Activities) -> tuple[bool, Any]:
        await asyncio.sleep(0)
        if isinstance(step, Timer):
            return True, None
        if isinstance(step, External):
            return True, await self._event(instance, step)
        try:
            return True, copy.deepcopy(await patiently(activities[step.name], copy.deepcopy(step.input)))
        except Exception as error:
            return False, f"{step.name}: {type(error).__name__}: {error}"

    async def _event(self, instance: _Instance, step: External) -> Any:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0 if step.seconds is not None else None), self._raised:
                await self._raised.wait_for(lambda: instance.raised.get(step.name))
        waiting = instance.raised.get(step.name)
        return waiting.pop(0) if waiting else None
