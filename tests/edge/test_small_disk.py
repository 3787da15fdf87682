"""A site with a disk for a tenth of what comes, fourteen days offline: the best is kept, and goes up once each.

On the real daprd, Redis, model and services. The days pass by the clock port alone, at the site and in the cloud: what
Redis and Service Bus forget by their own clocks is not aged.
"""

import base64
import contextlib
import io
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from conftest import wait_until
from edge.hosts import require_machine
from edge.noting import counted, noted
from edge.sites import AT_SITE, Sites
from PIL import Image
from worlds import LABELS, SIDE, SPECS, classifier

from services.cli.rest import Refused, Rest
from services.contracts.events import SampleSelected
from services.contracts.ids import sha256

pytestmark = [pytest.mark.edge, pytest.mark.timeout(900), pytest.mark.asyncio(loop_scope="module")]

SEEDS = (1, 2, 3)
SIZE, ROOM = 192, 40  # bytes of a picture, and how many of them the disk holds
SAMPLES, HAND = 10 * ROOM, 4  # that come, and how many of them at once
DAYS = 14
PROJECT = {
    "name": "yard",
    "task": "image-classification",
    "labels": LABELS,
    "input": SPECS["image"].model_dump(mode="json"),
    "policy": {"strategy": "margin", "batch": 8, "min_pool": 8, "settle_seconds": 1, "seed": 1},
}


def picture(rng: random.Random) -> bytes:
    """Noise around a brightness, which is what the model goes by; all of one size."""
    shade = rng.uniform(30, 225)
    pixels = np.array([[rng.gauss(shade, 8) for _ in range(SIDE)] for _ in range(SIDE)]).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    assert file.tell() <= SIZE
    return file.getvalue().ljust(SIZE, b"\0")  # what stands after a picture's end is of no matter


class Yard:
    """One site of the project, and what came to it."""

    def __init__(self, sites: Sites, name: str, rest: Rest) -> None:
        self.sites = sites
        self.name = name
        self.rest = rest
        self.shas: dict[str, str] = {}

    async def bring(self, pictures: list[bytes]) -> None:
        """A few at once: more than a tenth of the disk would not be scored before it has to compete."""
        rows = [{"data": base64.b64encode(raw).decode(), "media_type": "image/png"} for raw in pictures]
        content = "\n".join(map(json.dumps, rows)).encode()
        headers = {"content-type": "application/x-ndjson"}
        answer = await self.rest.post("ingest", "/v1/samples:batch", content=content, headers=headers)
        for row, raw in zip(answer["results"], pictures, strict=True):
            assert row["status"] in (200, 202), row
            self.shas[row["sample_id"]] = sha256(raw)
        await wait_until(self._scored, 60)

    async def _scored(self) -> bool:
        standing = (await self.buffer())["standing"]
        return not standing.get("arriving") and not standing.get("unscored")

    async def settled(self) -> bool:
        """The newcomers' share is free."""
        return (await self.buffer())["bytes"] <= SIZE * ROOM * 9 // 10

    async def buffer(self) -> dict[str, Any]:
        return await self.rest.get("ingest", "/v1/buffer")

    async def kept(self) -> set[str]:
        rows = await self.rest.everything("ingest", "/v1/samples")
        return {row["sample_id"] for row in rows if row["state"] in ("BUFFERED", "STORED")}

    async def worth(self) -> dict[str, float]:
        """The margin score of every sample that was scored, as infer said it."""
        stories = {sample: await self.rest.get("ingest", f"/v1/samples/{sample}/history") for sample in self.shas}
        scored = {
            sample: row["data"]["scores"]["margin"]
            for sample, story in stories.items()
            for row in story["events"]
            if row["type"] == "sample.scored"
        }
        return scored

    async def asked(self) -> set[str]:
        """About whom the site has asked, whatever became of it."""
        found = set()
        for sample in self.shas:
            with contextlib.suppress(Refused):  # gone before it was scored
                row = await self.rest.get("select-uncertain", f"/v1/decisions/{sample}")
                found |= {sample} if (row["decision"] or {}).get("round_id") else set()
        return found

    async def uploads_wait(self) -> int:
        return (await self.rest.get("uplink", "/v1/uplink"))["up"]["waiting"]

    def crossed(self) -> Counter[str]:
        events = self.sites.crossed(SampleSelected.type)
        return Counter(row["subject"] for row in events if row["siteid"] == self.name)

    async def in_cloud(self) -> set[str]:
        return {name.rpartition("/")[2] for name in await self.sites.contents("samples/yard/")}


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all clocks obey."""
    return tmp_path_factory.mktemp("clock") / "control.json"


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory, control: Path) -> Iterator[Sites]:
    require_machine()
    with contextlib.ExitStack() as closing:
        names = [f"site-{seed}" for seed in SEEDS]
        made = Sites(tmp_path_factory.mktemp("disk"), closing, names, HALFSURE_CHAOS=str(control))
        closing.enter_context(made.people())
        yield made


@pytest_asyncio.fixture(params=SEEDS, loop_scope="module")
async def yard(request: pytest.FixtureRequest, sites: Sites, control: Path) -> AsyncIterator[Yard]:
    """A site of its own for each seed; the project and its model are in the cloud before."""
    name = f"site-{request.param}"
    rest = sites.rest(name, "yard")
    await rest.post("retrain-trigger", "/v1/projects", json=PROJECT)
    artefact, manifest = classifier()
    model = {"artefact": base64.b64encode(artefact).decode(), "manifest": manifest.model_dump(mode="json")}
    await rest.post("retrain-trigger", "/v1/models", json=model)
    sites.open(name, HALFSURE_CHAOS=str(control), HALFSURE_INGEST_BUFFER_BYTES=str(SIZE * ROOM))

    async def model_serves() -> bool:
        with contextlib.suppress(Refused):
            return any(one["active"] for one in (await rest.get("infer", "/v1/loaded-models"))["items"])
        return False

    await wait_until(model_serves, 60)
    yield Yard(sites, name, rest)
    await rest.close()
    sites.close(name)


class Calendar:
    """Lets days pass, from where the last test has stopped."""

    def __init__(self, control: Path) -> None:
        self._control = control
        self.seconds = json.loads(control.read_text())["clock"] if control.exists() else 0.0

    def step(self, seconds: float) -> None:
        self.seconds += seconds
        self._control.with_suffix(".tmp").write_text(json.dumps({"clock": self.seconds}))
        self._control.with_suffix(".tmp").replace(self._control)


async def test_a_tenth_of_the_room_and_fourteen_days_offline(yard: Yard, sites: Sites, control: Path) -> None:
    seed, calendar = int(yard.name.rpartition("-")[2]), Calendar(control)
    print("seed", seed)
    rng = random.Random(seed)
    pictures = [picture(rng) for _ in range(SAMPLES)]
    hands = [pictures[start : start + HAND] for start in range(0, SAMPLES, HAND)]
    sites.cut(yard.name)
    # Row 2.15: for less than the promised time, nothing that was asked about goes, however full it is.
    soon = hands[: 2 * ROOM // HAND]
    for hand in soon:
        await yard.bring(hand)
    promised = await yard.asked()
    assert promised
    assert promised <= await yard.kept()
    for hand in hands[len(soon) :]:
        calendar.step(DAYS * 86_400 / (len(hands) - len(soon)))
        await yard.bring(hand)
        assert (await yard.buffer())["bytes"] <= SIZE * ROOM
    await wait_until(yard.settled)
    kept, worth, asked = await yard.kept(), await yard.worth(), await yard.asked()
    gone = yard.shas.keys() - kept
    dropped = (await yard.buffer())["dropped"]
    assert dropped["samples"] == len(gone) == sum(dropped["by_reason"].values())
    assert dropped["by_reason"].keys() <= {"value", "ttl", "unscored", "discarded"}
    means = mean(worth[one] for one in kept & worth.keys()), mean(worth[one] for one in gone & worth.keys())
    assert not yard.crossed()
    assert not set(yard.shas.values()) & await yard.in_cloud()
    wanted = asked & kept
    assert len(wanted) > 4
    sites.mend(yard.name)
    await _all_is_up(yard, wanted)
    lost, doubled = await _compared(yard, wanted)
    _note(seed, means, lost, doubled, {"kept": len(kept), "went_up": len(wanted), "dropped": dropped["by_reason"]})
    assert means[0] >= means[1]
    assert (lost, doubled) == (0, 0)
    await _only_what_is_asked_about_is_there(yard)
    await _uploaded_copies_go_first(yard, rng)


async def _all_is_up(yard: Yard, wanted: set[str]) -> None:
    async def up() -> bool:
        return wanted <= yard.crossed().keys() and not await yard.uploads_wait()

    await wait_until(up, 120)

    async def queued() -> bool:
        tasks = await yard.rest.everything("label-queue", "/v1/tasks")
        return wanted <= {task["sample_id"] for task in tasks}

    await wait_until(queued, 60)


async def _compared(yard: Yard, wanted: set[str]) -> tuple[int, int]:
    """(lost, doubled) of what was kept and asked about: its event, its task, its content."""
    tasks = Counter(task["sample_id"] for task in await yard.rest.everything("label-queue", "/v1/tasks"))
    crossed, there = yard.crossed(), await yard.in_cloud()
    lost = sum(not (crossed[one] and tasks[one] and yard.shas[one] in there) for one in wanted)
    doubled = sum(max(crossed[one], tasks[one]) > 1 for one in yard.shas)
    return lost, doubled


async def _only_what_is_asked_about_is_there(yard: Yard) -> None:
    """Row 0.18; and what was let go before it could be sent is on the shelf by name, and in no queue."""
    asked = await yard.asked()
    own = set(yard.shas.values()) & await yard.in_cloud()
    assert own <= {yard.shas[one] for one in asked}
    letters = await yard.sites.dead_letters(yard.rest, AT_SITE)
    assert {letter["event"]["type"] for letter in letters} <= {SampleSelected.type}
    shelved = {letter["event"]["subject"] for letter in letters}
    assert not shelved & await yard.kept()
    assert shelved <= asked
    unasked = [sha for one, sha in yard.shas.items() if one not in asked]
    assert not [sha for sha in unasked if sha in yard.sites.wire()]


async def _uploaded_copies_go_first(yard: Yard, rng: random.Random) -> None:
    """Row 0.16: a copy at the site goes once the cloud has one that was checked, and is then the first to go."""
    before = await yard.kept()
    await yard.bring([picture(rng) for _ in range(HAND)])
    await wait_until(yard.settled)
    went = before - await yard.kept()
    assert went
    assert {yard.shas[one] for one in went} <= await yard.in_cloud()
    records = [await yard.rest.get("ingest", f"/v1/samples/{one}") for one in went]
    assert {record["expired"]["reason"] for record in records} == {"uploaded"}


def _note(seed: int, means: tuple[float, float], lost: int, doubled: int, more: dict[str, Any]) -> None:
    kept, dropped = (round(one, 4) for one in means)
    more |= {"kept_mean_score": kept, "dropped_mean_score": dropped}
    counted(f"small disk, seed {seed}", lost=lost, doubled=doubled, **more)
    noted(kept_mean_score=kept, dropped_mean_score=dropped)
