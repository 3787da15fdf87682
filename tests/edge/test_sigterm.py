"""Row 2.18: every service is told to end while it has work in hand, as a container's runtime would do it."""

import asyncio
import contextlib
import json
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import psutil
import pytest
import pytest_asyncio
from conftest import wait_until
from edge.hosts import require_machine
from edge.network import Network
from edge.noting import counted, noted
from following import follow

from services.cli.datasets import digits, split
from services.cli.player import Plan, Player, Progress
from services.cli.rest import Rest
from services.cli.settings import StackSettings
from services.cli.stack import Stack
from services.cli.supervisor import connects

pytestmark = [pytest.mark.edge, pytest.mark.timeout(900), pytest.mark.asyncio(loop_scope="module")]

LONGEST = 10.0
BUDGET, BATCH = 40, 20
# Each service once, at a step of the loop at which it has work in hand.
MOMENTS = [
    ("ingest", "ingested", 200),
    ("infer", "ingested", 500),
    ("select-uncertain", "ingested", 800),
    ("uplink", "asked", 1),
    ("label-queue", "accepted", 12),
    ("retrain-trigger", "accepted", 20),
    ("portal", "accepted", 24),
]


class Ending:
    """Tells services to end, and sees how long they take."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._moments = list(MOMENTS)
        self._telling: asyncio.Task[None] | None = None
        self.seconds: dict[str, float] = {}

    def look(self, progress: Progress) -> None:
        """At the next moment, while the player's next request is under way."""
        if self._telling and not self._telling.done():
            return
        if self._telling:
            self._telling.result()
        if self._moments and getattr(progress, self._moments[0][1]) >= self._moments[0][2]:
            self._telling = asyncio.create_task(self.tell(self._moments.pop(0)[0]))

    async def finish(self) -> None:
        """Those that a loop which has closed in the meantime left no moment for."""
        if self._telling:
            await self._telling
        for victim, *_ in self._moments:
            await self.tell(victim)

    async def tell(self, victim: str) -> None:
        pid, told = self._stack.supervisor.kill(victim, signal.SIGTERM), time.monotonic()
        await wait_until(lambda: not psutil.pid_exists(pid), LONGEST)
        self.seconds[victim] = round(time.monotonic() - told, 2)
        process = self._stack.processes[victim]
        await wait_until(lambda: process.pid not in (None, pid), 60)
        assert process.exit_code in (0, -signal.SIGTERM), f"{victim} ended with {process.exit_code}"
        await self._stack.wait_ready(victim, 60)


@pytest.fixture(scope="module")
def host() -> Iterator[None]:
    """A host of its own, with all ports."""
    require_machine()
    network = Network("hs-")
    network.add("one")
    with contextlib.closing(network), network.entered("one"):
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(host: None, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    settings = StackSettings(profile="iotedge", home=tmp_path_factory.mktemp("sigterm") / "home", start_timeout=240)
    async with Stack(settings).running() as running:
        yield running


async def test_every_service_ends_within_ten_seconds_and_nothing_is_lost(stack: Stack) -> None:
    data = digits()
    plan = Plan(data, split(data, 0), "uncertainty_coverage", BUDGET, BATCH, 0)
    rest, ending = Rest(stack.url, stack.token, plan.project), Ending(stack)
    player = Player(rest, plan, stack.app_ids, ending.look)
    await player.make_project()
    # The page's stream of events never ends by itself.
    async with rest.stream("portal", "/v1/events"):
        progress = await player.play()
        await ending.finish()
    found = await follow(rest, plan, progress, Counter(dict.fromkeys(player.labels, 1)))
    letters = [await rest.get(app, "/v1/deadletters") for app in stack.app_ids if app != "portal"]
    await rest.close()
    noted(sigterm_seconds=ending.seconds)
    counted("sigterm", lost=len(found.lost), doubled=len(found.doubled))
    assert not found, found
    assert not any(letter["items"] for letter in letters), json.dumps(letters)[:2000]
    assert ending.seconds.keys() == {victim for victim, *_ in MOMENTS} == set(stack.app_ids)
    assert max(ending.seconds.values()) < LONGEST


async def test_what_is_under_way_is_ended_and_nothing_new_is_taken(stack: Stack) -> None:
    picture = split(digits(), 0).test[0].content
    address = ("127.0.0.1", stack.ports["ingest"])
    reader, writer = await asyncio.open_connection(*address)
    lines = (
        "POST /v1/samples?project=digits HTTP/1.1",
        "Host: ingest",
        f"Authorization: Bearer {stack.token}",
        "Content-Type: image/png",
        f"Content-Length: {len(picture)}",
        "Expect: 100-continue",
    )
    writer.write("\r\n".join([*lines, "", ""]).encode())
    assert b"100" in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    ending = Ending(stack)
    told = asyncio.create_task(ending.tell("ingest"))

    async def nobody_else_is_let_in() -> bool:
        return not await connects(*address)

    await wait_until(nobody_else_is_let_in, 5)
    assert stack.processes["ingest"].exit_code is None or stack.pid("ingest") is not None
    writer.write(picture)
    answer = await asyncio.wait_for(reader.read(), 10)
    assert answer.startswith((b"HTTP/1.1 201", b"HTTP/1.1 200")), answer[:300]
    writer.close()
    await told
    rest = Rest(stack.url, stack.token, "digits")
    record = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert (await rest.get("ingest", f"/v1/samples/{record['sample_id']}"))["state"] in ("STORED", "BUFFERED")
    await rest.close()
