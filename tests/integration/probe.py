"""A small service beside a real sidecar: counts what it hears once, and does what the sample's name says."""

import sys
from collections.abc import Sequence
from typing import Any

import uvicorn

from services.contracts.envelope import Message
from services.contracts.events import PolicyRef, SampleDiscarded, SampleWithdrawn
from services.runtime import telemetry
from services.runtime.access import needs
from services.runtime.dapr_ports import connect_dapr
from services.runtime.errors import Drop, Retry
from services.runtime.service import Service, transact
from services.runtime.settings import RuntimeSettings
from services.runtime.unit import Unit

HEARD: list[str] = []


async def count(batch: Sequence[Message[SampleWithdrawn]], unit: Unit) -> None:
    await unit.get_many(f"seen:{m.event.sample_id}" for m in batch)
    total = await unit.get("total") or {"n": 0}
    for message in batch:
        name = message.event.sample_id
        HEARD.append(name)
        if name.startswith("drop"):
            raise Drop("the name says so")
        if name.startswith("poison"):
            raise Retry("the name says so")
        if name.startswith("retry") and HEARD.count(name) < 3:
            raise Retry("the name says so")
        if await unit.get(f"seen:{name}"):
            continue
        total = {"n": total["n"] + 1}
        unit.put(f"seen:{name}", {"seen": True})
        unit.put("total", total, guard=True)
        unit.emit(SampleDiscarded(project="p", sample_id=name, policy=PolicyRef(id="x", version=1)), message)


async def relayed(batch: Sequence[Message[SampleDiscarded]], unit: Unit) -> None:
    total = await unit.get("relayed") or {"names": {}}
    names = {**total["names"], **{m.event.sample_id: m.id for m in batch}}
    unit.put("relayed", {"names": names}, guard=True)


def create(settings: RuntimeSettings) -> Service:
    service = Service("probe", settings, connect_dapr)
    service.on(SampleWithdrawn, emits=[SampleDiscarded], serial="x")(count)
    service.on(SampleDiscarded, serial="y")(relayed)

    @service.api.post("/v1/withdraw", dependencies=[needs("admin")])
    async def withdraw(body: dict[str, Any]) -> dict[str, Any]:
        async def emit(unit: Unit) -> None:
            for name in body["names"]:
                unit.emit(SampleWithdrawn(project="p", sample_id=name, who=body["who"], why="privacy"))

        await transact(service, emit)
        return {}

    @service.api.get("/v1/counts", dependencies=[needs("admin")])
    async def counts() -> dict[str, Any]:
        found = await service.state.get(["total", "relayed"])
        return {
            "total": found["total"].value["n"] if "total" in found else 0,
            "relayed": found["relayed"].value["names"] if "relayed" in found else {},
            "heard": HEARD,
        }

    return service


if __name__ == "__main__":
    settings = RuntimeSettings()
    telemetry.configure("probe", "info")
    uvicorn.run(create(settings).api, host="127.0.0.1", port=settings.app_port, log_level="warning")
    sys.exit(0)
