"""A small service whose workflow notes each step it takes in its own state."""

import asyncio
import time
from collections.abc import Generator
from typing import Any

import uvicorn

from services.runtime import telemetry
from services.runtime.access import needs
from services.runtime.dapr_ports import connect_dapr
from services.runtime.service import Service, transact
from services.runtime.settings import RuntimeSettings
from services.runtime.unit import Unit
from services.runtime.workflow import Activity, ActivityFailed, External, Step, Timer


def journey(order: dict[str, Any]) -> Generator[Step, Any, Any]:
    first = yield Activity("note", {**order, "step": "first"})
    yield Timer(order.get("pause", 0.0))
    for number in range(order.get("slow", 0)):
        yield Activity("slow", {**order, "step": f"slow-{number}"})
    try:
        yield Activity("fail", order)
    except ActivityFailed as error:
        yield Activity("note", {**order, "step": f"failed: {error}"})
    late = yield External("never", 0.2)
    word = yield External("go")
    yield Activity("note", {**order, "step": "last"})
    return [first, late, word]


def create(settings: RuntimeSettings) -> Service:
    service = Service("probe", settings, connect_dapr)

    async def note(order: dict[str, Any]) -> str:
        async def add(unit: Unit) -> None:
            key = f"trace:{order['name']}"
            known = await unit.get(key) or {"steps": []}
            unit.put(key, {"steps": [*known["steps"], [order["step"], time.time()]]}, guard=True)

        await transact(service, add)
        return order["step"]

    async def slow(order: dict[str, Any]) -> str:
        await asyncio.sleep(0.5)
        return await note(order)

    async def fail(_: dict[str, Any]) -> None:
        raise ValueError("as it was told to")

    async def begin() -> None:
        service.workflows.register("journey", journey, {"note": note, "slow": slow, "fail": fail})
        await service.workflows.start()

    async def end() -> None:
        await service.workflows.stop()

    service.on_start(begin)
    service.on_stop(end)
    service.check("workflows", lambda: None if service.workflows.ready else "the workflow engine is not there yet")

    @service.api.post("/v1/journeys", dependencies=[needs("admin")])
    async def start(body: dict[str, Any]) -> dict[str, Any]:
        started = time.time()
        await service.workflows.run("journey", body["name"], body)
        return {"started": started}

    @service.api.post("/v1/journeys/{name}:{verb}", dependencies=[needs("admin")])
    async def act(name: str, verb: str) -> dict[str, Any]:
        if verb == "go":
            await service.workflows.raise_event(name, "go", {"word": verb})
        elif verb == "terminate":
            await service.workflows.terminate(name)
        else:
            await service.workflows.purge(name)
        return {}

    @service.api.get("/v1/journeys/{name}", dependencies=[needs("admin")])
    async def look(name: str) -> dict[str, Any]:
        found = (await service.state.get([f"trace:{name}"])).get(f"trace:{name}")
        return {"status": await service.workflows.status(name), "steps": found.value["steps"] if found else []}

    return service


if __name__ == "__main__":
    settings = RuntimeSettings()
    telemetry.configure("probe", "info")
    uvicorn.run(create(settings).api, host="127.0.0.1", port=settings.app_port, log_level="warning")
