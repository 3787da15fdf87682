"""The workflow port on Dapr's engine: steps, events, idempotent starts, and kill -9 in the middle."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from conftest import wait_until

from services.cli.settings import StackSettings
from services.cli.stack import Stack

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

OFFSET = 2400


class Journeys:
    """The probe's workflows, over its REST."""

    def __init__(self, stack: Stack, client: httpx2.AsyncClient) -> None:
        self.stack = stack
        self._client = client

    async def start(self, name: str, **order: Any) -> float:
        async def taken() -> httpx2.Response | None:
            # Right after another start the engine may find a state that is half written, and says so: try again.
            answer = await self._client.post("/v1/journeys", json={"name": name, **order})
            return None if answer.status_code == 503 else answer

        answer = await wait_until(taken, 30)
        assert answer.status_code == 200, answer.text
        return answer.json()["started"]

    async def act(self, name: str, verb: str) -> None:
        answer = await self._client.post(f"/v1/journeys/{name}:{verb}")
        assert answer.status_code == 200, answer.text

    async def look(self, name: str) -> dict[str, Any]:
        try:
            answer = await self._client.get(f"/v1/journeys/{name}")
        except httpx2.HTTPError:
            return {"status": "away", "steps": []}
        return answer.json() if answer.status_code == 200 else {"status": "away", "steps": []}

    async def steps(self, name: str) -> list[str]:
        return [step for step, _ in (await self.look(name))["steps"]]

    async def until(self, name: str, status: str | None, seconds: float = 60) -> dict[str, Any]:
        async def there() -> bool:
            return (await self.look(name))["status"] == status

        await wait_until(there, seconds)
        return await self.look(name)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def journeys(tmp_path_factory: pytest.TempPathFactory, probe_stack: Any) -> AsyncIterator[Journeys]:
    folder = tmp_path_factory.mktemp("workflow")
    run_file = probe_stack(folder, Path(__file__).with_name("workflow_probe.py"))
    settings = StackSettings(home=folder / "home", run_file=run_file, port_offset=OFFSET)
    async with Stack(settings).running() as stack:
        headers = {"authorization": f"Bearer {stack.token}"}
        async with httpx2.AsyncClient(base_url=stack.url("probe"), headers=headers, timeout=30) as client:
            yield Journeys(stack, client)


async def test_steps_are_taken_in_order_and_an_event_ends_it(journeys: Journeys) -> None:
    await journeys.start("plain")
    await journeys.start("plain")
    assert (await journeys.look("plain"))["status"] == "running"
    await journeys.act("plain", "go")
    seen = await journeys.until("plain", "completed")
    assert [step for step, _ in seen["steps"]] == ["first", "failed: as it was told to", "last"]
    await journeys.start("plain")
    assert (await journeys.look("plain"))["status"] == "completed", "an instance that has ended is left alone"


async def test_a_step_costs_little(journeys: Journeys) -> None:
    started = await journeys.start("quick", slow=0)
    await journeys.act("quick", "go")
    seen = await journeys.until("quick", "completed")
    seconds = seen["steps"][-1][1] - started
    print(f"seven steps, one of them a wait of 0.2 s: {seconds:.2f} s")
    assert seconds < 3


@pytest.mark.parametrize("victim", ["probe", "probe-sidecar"])
async def test_kill_in_the_middle_and_it_goes_on(journeys: Journeys, victim: str) -> None:
    name = f"killed-{victim}"
    await journeys.start(name, slow=4)

    async def under_way() -> bool:
        return "slow-0" in await journeys.steps(name)

    await wait_until(under_way, 30)
    journeys.stack.kill(victim)
    await journeys.stack.wait_ready("probe-sidecar")
    await journeys.stack.wait_ready("probe")
    await journeys.until(name, "running")
    await journeys.act(name, "go")
    seen = await journeys.until(name, "completed", 90)
    steps = [step for step, _ in seen["steps"]]
    assert list(dict.fromkeys(steps)) == [
        "first",
        *(f"slow-{n}" for n in range(4)),
        "failed: as it was told to",
        "last",
    ], "an activity may be repeated, never skipped or taken out of order"


async def test_terminated_and_purged_it_can_be_started_anew(journeys: Journeys) -> None:
    await journeys.start("anew", slow=1)
    await journeys.act("anew", "terminate")
    await journeys.until("anew", "terminated")
    await journeys.act("anew", "purge")
    await journeys.until("anew", None)
    await journeys.start("anew")
    await journeys.act("anew", "go")
    await journeys.until("anew", "completed")
