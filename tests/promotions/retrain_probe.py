"""retrain-trigger that stops at a point of its runs as long as a file is there, so that a kill hits exactly that point.

    python retrain_probe.py FOLDER       FOLDER/PROJECT.POINT holds the runs of a project at a point

It is the whole service with its own backend `command`; the points lie between what it does and what it does next.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from functools import wraps
from pathlib import Path
from typing import Any

from services.retrain_trigger.backends.command import CommandBackend
from services.retrain_trigger.flights import Flights
from services.retrain_trigger.pipeline import Pipeline
from services.retrain_trigger.registry import Registry
from services.retrain_trigger.runs import Runs
from services.runtime import __main__ as program

FOLDER = Path(sys.argv[1])
PROJECTS: dict[str, str] = {}  # run or model version -> project


async def held(project: str | None, point: str) -> None:
    """Wait as long as the file is there; what has got here is seen by another file."""
    place = FOLDER / f"{project}.{point}"
    while place.exists():
        (FOLDER / f"{project}.{point}.reached").touch()
        await asyncio.sleep(0.05)


def before(kind: type, name: str, point: str, whose: Callable[..., str | None]) -> None:
    method = getattr(kind, name)

    @wraps(method)
    async def slower(self: Any, *args: Any, **kwargs: Any) -> Any:
        await held(whose(*args), point)
        return await method(self, *args, **kwargs)

    setattr(kind, name, slower)


def after(kind: type, name: str, point: str, whose: Callable[..., str | None]) -> None:
    method: Callable[..., Awaitable[Any]] = getattr(kind, name)

    @wraps(method)
    async def slower(self: Any, *args: Any, **kwargs: Any) -> Any:
        answer = await method(self, *args, **kwargs)
        await held(whose(*args), point)
        return answer

    setattr(kind, name, slower)


def of_order(order: dict[str, Any]) -> str | None:
    return PROJECTS.get(order["run_id"])


def _remember() -> None:
    """Which project a run and a version are of, from the first time that anybody has to do with them."""
    get, opened, package = Runs.get, Runs._open, Registry.package

    async def remembering_get(self: Any, run: str) -> Any:
        record = await get(self, run)
        if record:
            PROJECTS[run] = record["project"]
        return record

    async def remembering_open(self: Any, unit: Any, document: Any, *args: Any) -> Any:
        record, created = await opened(self, unit, document, *args)
        PROJECTS[record["run_id"]] = document.name
        return record, created

    async def remembering_package(self: Any, project: str, *args: Any) -> Any:
        answer = await package(self, project, *args)
        PROJECTS[answer[0]] = project
        return answer

    Runs.get, Runs._open, Registry.package = remembering_get, remembering_open, remembering_package  # type: ignore


def _hold_everywhere() -> None:
    # The snapshot is in the blob store, and no record speaks of it.
    before(Runs, "_open", "snapshot", lambda _, document, *__: document.name)
    # The run is recorded and said to be requested, and no workflow is there.
    before(Flights, "launch", "launch", PROJECTS.get)
    # The job is with the backend, and the engine does not know.
    after(Pipeline, "submit", "submit", of_order)
    # The candidate is registered; it is promoted, and its run's record says nothing of it; the run is closed.
    after(Pipeline, "register", "register", of_order)
    after(Registry, "promote", "promote", lambda version, *_: PROJECTS.get(version))
    after(Pipeline, "end", "end", of_order)


def _hold_the_trainer() -> None:
    """The process that trains is there, and then the one that judges, neither with its job yet."""
    method = CommandBackend._follow

    async def follow(self: Any, process: Any, job: Path, task: str = "train") -> int | str:
        await held(PROJECTS.get(job.parent.name), task)
        return await method(self, process, job, task)

    CommandBackend._follow = follow  # type: ignore[method-assign]


if __name__ == "__main__":
    _remember()
    _hold_everywhere()
    _hold_the_trainer()
    sys.exit(program.main(["retrain-trigger"]))
