"""The stack with two projects, and the browser."""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from conftest import require_runtime, wait_until
from page.kinds_of_sample import every_kind
from page.looking import OUT, World
from page.stocking import imported, ingest, project, queued

from services.cli.datasets import Dataset, digits, split
from services.cli.settings import StackSettings
from services.cli.stack import Stack

async_api = pytest.importorskip("playwright.async_api", reason="`make test-page` installs what drives a browser")

OFFSET = 9000
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
# What is asked in the two projects: one that learns, and one with enough to label for every test.
LEARNING = {"policy": {"batch": 30, "min_pool": 200}, "trigger": {"n": 20, "min_per_class": 0}}
WAITING = {"policy": {"first_batch": 400, "batch": 400, "min_pool": 400}, "trigger": {"n": 100_000}}


@pytest.fixture(scope="session")
def report() -> Iterator[dict[str, Any]]:
    """What is measured, written in the end; what nobody measured here stays null."""
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / "report.json"
    # The queue's own suites write into the same file.
    unmeasured = dict.fromkeys(("accepted_twice", "lost", "claim_p95_ms"))
    found: dict[str, Any] = {}
    yield found
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(unmeasured | known | found, indent=1, sort_keys=True) + "\n")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    require_runtime()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        if os.environ.get("HALFSURE_REQUIRE_DAPR"):
            pytest.fail("There is no chromium; `make test-page` installs Debian's.")
        pytest.skip("There is no chromium; `make test-page` installs Debian's.")
    home = tmp_path_factory.mktemp("labels") / "home"
    async with (
        Stack(StackSettings(home=home, port_offset=OFFSET)).running() as stack,
        async_api.async_playwright() as play,
    ):
        browser = await play.chromium.launch(executable_path=chromium, args=FLAGS)
        made = World(stack, browser)
        data = digits()
        await asyncio.gather(_learning(made, data), _waiting(made, data))
        yield made
        await browser.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def kinds(world: World) -> World:
    """The world with a project of every kind of sample."""
    await every_kind(world)
    return world


async def _waiting(world: World, data: Dataset) -> None:
    """400 samples that wait for an answer, and no model."""
    rest = await project(world, "waiting", data.task, data.labels, data.input, **WAITING)
    await ingest(rest, [item.body for item in data.items[-420:]])
    await queued(rest, 400)
    await rest.close()


async def _learning(world: World, data: Dataset) -> None:
    """A project that has learnt from 60 labels of three people, and asks on."""
    parts = split(data, 1)
    rest = await project(world, "learning", data.task, data.labels, data.input, **LEARNING)
    await imported(rest, [{**one.body, "value": one.label} for one in parts.evaluation])
    truth = await ingest(rest, [one.body for one in parts.pool[:400]])
    labels = dict(zip(truth, (one.label for one in parts.pool), strict=False))
    done = 0
    while done < 60:
        who = ("ada", "grace", "linus")[done % 3]
        body = {"annotator": who, "n": min(5, 60 - done)}
        answer = await rest.post("label-queue", "/v1/tasks:claim", json=body)
        for task in (answer or {"tasks": []})["tasks"]:
            said = {"annotator": who, "epoch": task["lease"]["epoch"], "seconds": 1.5 + done % 4}
            said["value"] = labels[task["sample_id"]]
            await rest.post("label-queue", f"/v1/tasks/{task['id']}/annotations", json=said)
            done += 1
        await asyncio.sleep(0 if answer else 0.2)

    async def ready() -> bool:
        models = (await rest.get("retrain-trigger", "/v1/models"))["items"]
        return len(models) >= 2 and (await rest.get("label-queue", "/v1/stats"))["queued"] >= 10

    await wait_until(ready, 240)
    await rest.close()
