"""Workflows: generators that survive crashes; the port, and Dapr's engine behind it.

A workflow is a generator function of its input that yields steps and is sent their outcomes. It is run again from
the start after a crash, with the outcomes so far, so it may know no clock, no chance and no I/O; its activities do,
and may be run twice.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Generator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, Protocol

import structlog
from grpc.aio import AioRpcError

from services.runtime.errors import Retry, Unavailable

log = structlog.get_logger()

PATIENCE = 600.0  # seconds that an activity goes on against a dependency that is away
RECONNECT = 2.0


@dataclass(frozen=True)
class Activity:
    """A step: run the activity `name`; its outcome is what it returns (JSON)."""

    name: str
    input: Any = None


@dataclass(frozen=True)
class Timer:
    """A step: wait; the outcome is None."""

    seconds: float


@dataclass(frozen=True)
class External:
    """A step: wait for an event that somebody raises; the outcome is its data, None when it does not come in time."""

    name: str
    seconds: float | None = None


Step = Activity | Timer | External
Workflow = Callable[[Any], Generator[Step, Any, Any]]
Activities = Mapping[str, Callable[[Any], Awaitable[Any]]]
Status = Literal["running", "completed", "failed", "terminated"]


class ActivityFailed(Exception):
    """Thrown into a workflow at the step whose activity raised."""


class Interrupted(Exception):
    """The service stopped under an activity; it is run again by whoever comes next."""


class Workflows(Protocol):
    """The engine that drives a service's workflows."""

    @property
    def ready(self) -> bool:
        """Whether steps are being worked on."""
        ...

    def register(self, name: str, workflow: Workflow, activities: Activities) -> None:
        """Before `start`: what a name stands for."""
        ...

    async def start(self) -> None:
        """Begin to work, in the background; what an earlier process left unfinished goes on."""
        ...

    async def stop(self) -> None: ...

    async def run(self, name: str, instance: str, order: Any) -> None:
        """Start an instance; one that exists, in whatever state, is left alone. Raises Unavailable."""
        ...

    async def status(self, instance: str) -> Status | None:
        """None: there is no such instance. Raises Unavailable."""
        ...

    async def raise_event(self, instance: str, name: str, data: Any = None) -> None:
        """Hand an event to an instance; it is kept until the workflow waits for it. Raises Unavailable."""
        ...

    async def terminate(self, instance: str) -> None:
        """End an instance where it stands; an activity that is running is not stopped. Raises Unavailable."""
        ...

    async def purge(self, instance: str) -> None:
        """Forget an instance that has ended. Raises Unavailable."""
        ...


async def patiently(activity: Callable[[Any], Awaitable[Any]], order: Any, patience: float = PATIENCE) -> Any:
    """What `activity` returns; tried again, ever slower, while something that it needs is away."""
    loop = asyncio.get_running_loop()
    deadline, pause = loop.time() + patience, 0.05
    while True:
        try:
            return await activity(order)
        except Retry as error:
            if loop.time() + pause > deadline:
                raise
            log.warning("activity waits", reason=str(error), seconds=pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 5.0)


class DaprWorkflows:
    """Dapr Workflow: history in the actor state store, steps over the sidecar; needs placement and scheduler.

    The SDK's worker has threads of its own; activities are handed to the service's event loop.
    """

    def __init__(self) -> None:
        self._registered: dict[str, tuple[Workflow, Activities]] = {}
        self._client: Any = None
        self._runtime: Any = None
        self._starting: asyncio.Task[None] | None = None
        self._running: set[Future[Any]] = set()
        self._ready = False
        self._stopping = False

    @property
    def ready(self) -> bool:
        return self._ready

    def register(self, name: str, workflow: Workflow, activities: Activities) -> None:
        self._registered[name] = (workflow, activities)

    async def start(self) -> None:
        from dapr.ext.workflow.aio import DaprWorkflowClient

        self._client = DaprWorkflowClient()
        self._starting = asyncio.create_task(self._start_worker(asyncio.get_running_loop()))

    async def stop(self) -> None:
        self._stopping, self._ready = True, False
        if self._starting:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        for activity in tuple(self._running):
            activity.cancel()
        if self._runtime:
            await asyncio.to_thread(self._runtime.shutdown)
        if self._client:
            # The SDK's client has a channel and no way to close it.
            await self._client._DaprWorkflowClient__obj.aclose()

    async def run(self, name: str, instance: str, order: Any) -> None:
        # An id whose instance has ended could be used again, so it is the caller who purges first.
        if await self.status(instance) is None:
            await self._call("schedule_new_workflow", name, input=order, instance_id=instance)

    async def status(self, instance: str) -> Status | None:
        state = await self._call("get_workflow_state", instance, fetch_payloads=False)
        if state is None:
            return None
        ended: dict[str, Status] = {"COMPLETED": "completed", "FAILED": "failed", "TERMINATED": "terminated"}
        return ended.get(state.runtime_status.name, "running")

    async def raise_event(self, instance: str, name: str, data: Any = None) -> None:
        await self._call("raise_workflow_event", instance, name, data=data)

    async def terminate(self, instance: str) -> None:
        await self._call("terminate_workflow", instance)

    async def purge(self, instance: str) -> None:
        await self._call("purge_workflow", instance)

    async def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return await getattr(self._client, method)(*args, **kwargs)
        except AioRpcError as error:
            raise Unavailable(f"workflow engine: {error.details()}") from error

    async def _start_worker(self, loop: asyncio.AbstractEventLoop) -> None:
        """In the background: the sidecar may want to see the app healthy before it hands out work."""
        while True:
            self._runtime = self._worker(loop)
            try:
                await asyncio.to_thread(self._runtime.start)
                self._ready = True
                return
            except Exception as error:
                log.warning("the workflow engine is not there yet", reason=str(error))
                await asyncio.to_thread(self._runtime.shutdown)
            await asyncio.sleep(RECONNECT)

    def _worker(self, loop: asyncio.AbstractEventLoop) -> Any:
        from dapr.ext.workflow import WorkflowRuntime
        from dapr.ext.workflow.logger import LoggerOptions

        # Its loggers pass on to the root's; a handler of their own would say everything twice.
        runtime = WorkflowRuntime(logger_options=LoggerOptions(log_handler=logging.NullHandler()))
        for name, (workflow, activities) in self._registered.items():
            runtime.register_workflow(_orchestrator(workflow), name=name)
            for activity_name, activity in activities.items():
                runtime.register_activity(self._handed_over(loop, activity), name=activity_name)
        return runtime

    def _handed_over(self, loop: asyncio.AbstractEventLoop, activity: Callable[[Any], Awaitable[Any]]) -> Any:
        async def run(_: Any, order: Any = None) -> Any:
            if self._stopping:
                raise Interrupted()
            future = asyncio.run_coroutine_threadsafe(patiently(activity, order), loop)
            self._running.add(future)
            future.add_done_callback(self._running.discard)
            try:
                return await asyncio.wrap_future(future)
            except asyncio.CancelledError as error:
                raise Interrupted() from error

        return run


def _orchestrator(workflow: Workflow) -> Any:
    """`workflow` as Dapr's SDK wants it: a generator of its tasks."""

    def orchestrate(context: Any, order: Any) -> Generator[Any, Any, Any]:
        steps = workflow(order)
        outcome: Any = None
        failure: ActivityFailed | None = None
        while True:
            try:
                step = steps.throw(failure) if failure else steps.send(outcome)
            except StopIteration as end:
                return end.value
            outcome, failure = yield from _taken(context, step)

    return orchestrate


def _taken(context: Any, step: Step) -> Generator[Any, Any, tuple[Any, ActivityFailed | None]]:
    """The outcome of a step, or how it failed."""
    from dapr.ext.workflow._durabletask.task import TaskFailedError

    while True:
        try:
            return (yield _task(context, step)), None
        except TaskFailedError as error:
            if error.details.error_type != Interrupted.__name__:
                return None, ActivityFailed(error.details.message)
        except TimeoutError:
            return None, None


def _task(context: Any, step: Step) -> Any:
    if isinstance(step, Activity):
        return context.call_activity(step.name, input=step.input)
    if isinstance(step, Timer):
        return context.create_timer(timedelta(seconds=step.seconds))
    patience = None if step.seconds is None else timedelta(seconds=step.seconds)
    return context.wait_for_external_event(step.name, timeout=patience)
