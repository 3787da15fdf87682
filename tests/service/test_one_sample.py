"""Row D4: no duplicates by content, ever: the same bytes are the same sample and one task, from whatever site."""

from pathlib import Path
from typing import Any

import crowd
from conftest import Running, started
from worlds import png, project

from services.contracts.events import SampleIngested
from services.ingest.app import create as ingest
from services.label_queue.app import create as label_queue

SITES = ("north", "south")


async def test_the_same_bytes_from_two_sites_and_twice_are_one_sample_and_one_task(tmp_path: Path) -> None:
    names = []
    for name in (*SITES, "cloud"):
        (tmp_path / name).mkdir()
    for site in SITES:
        async with started(ingest, tmp_path / site, siteid=site) as running:
            await running.deliver(await project(running.blobs))
            answers = [await _send(running, png(7)) for _ in range(2)]
            assert [answer.status_code for answer in answers] == [201, 200]
            said = [row for _, row in await running.published() if row["type"] == SampleIngested.type]
            assert [row["siteid"] for row in said] == [site]
            names += [answer.json()["sample_id"] for answer in answers]
    assert len(set(names)) == 1
    async with started(label_queue, tmp_path / "cloud") as cloud:
        await cloud.deliver(crowd.project())
        for number, site in enumerate(SITES):
            asked = crowd.selected(names[0], round_id=f"rnd_{number}")
            assert await cloud.deliver_batch([asked], siteid=site) == ["SUCCESS"]
        (task,) = await crowd.claim(cloud, 5)
        assert task["sample_id"] == names[0]
        assert (await crowd.submit(cloud, task, "cat")).status_code == 201
        assert await cloud.deliver_batch([crowd.selected(names[0], round_id="rnd_9")], siteid="south") == ["SUCCESS"]
        assert await crowd.claim(cloud, 5) == []


async def _send(running: Running, content: bytes) -> Any:
    return await running.call("POST", "/v1/samples", content=content, headers={"content-type": "image/png"})
