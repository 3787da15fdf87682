"""A picture with a thing in it, from ingest to an accepted box: four services on memory ports, and their events."""

import contextlib
import io
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from conftest import Running, nobody, started, wait_until
from crowd import claim, submit
from kinds import model, project
from PIL import Image
from worlds import SIDE, packaged

from services.contracts.events import ModelActivated
from services.infer import app as infer
from services.ingest import app as ingest
from services.label_queue import app as label_queue
from services.runtime.memory import MemoryBlobs, MemoryBus, MemoryPeers, MemoryState, SteppedClock
from services.runtime.memory_workflows import MemoryWorkflows
from services.runtime.ports import Ports
from services.select_uncertain import app as select_uncertain

TASK = "image-detection"
N = 6


def picture(shade: int, corner: int) -> bytes:
    """Grey, with a quarter of this shade: up to 76 it is dark."""
    pixels = np.full((SIDE, SIDE), 128, np.uint8)
    pixels[: SIDE // 2, : SIDE // 2] = shade
    pixels[-1, -1] = 120 + corner
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


class Four:
    """The services, and the broker between them."""

    def __init__(self, services: dict[str, Running]) -> None:
        self.of = services
        self.said: list[dict[str, Any]] = []

    async def pump(self) -> None:
        """Hand what was published to whoever subscribes to it."""
        for one in self.of.values():
            for topic, envelope in await one.published():
                self.said.append(envelope)
                for other in self.of.values():
                    if any(kind.topic == topic for kind in other.service.inbox.subscriptions):
                        assert await other.deliver_raw(topic, [envelope]) == ["SUCCESS"]

    async def until(self, kind: str, number: int) -> list[dict[str, Any]]:
        """The data of a kind of event, once there are so many."""

        async def enough() -> list[dict[str, Any]]:
            await self.pump()
            found = [one["data"] for one in self.said if one["type"] == f"io.halfsure.{kind}.v1"]
            return found if len(found) >= number else []

        return await wait_until(enough, 60)


@contextlib.asynccontextmanager
async def four(folder: Path) -> AsyncIterator[Four]:
    clock, blobs = SteppedClock(datetime(2026, 1, 1, tzinfo=UTC)), MemoryBlobs()
    async with contextlib.AsyncExitStack() as stack:
        services: dict[str, Running] = {}
        for module in (ingest, infer, select_uncertain, label_queue):
            name = module.__name__.split(".")[1]
            (folder / name).mkdir()
            empty: dict[str, Any] = {"items": [], "cursor": None}
            peers = MemoryPeers({"ingest": lambda path, params, empty=empty: empty, "retrain-trigger": nobody})
            ports = Ports(MemoryState(clock), MemoryBus(), blobs, clock, peers, MemoryWorkflows())
            services[name] = await stack.enter_async_context(started(module.create, folder / name, ports))
        yield Four(services)


async def test_a_doubtful_box_is_asked_about_and_accepted(tmp_path: Path) -> None:
    async with four(tmp_path) as loop:
        blobs = loop.of["infer"].blobs
        policy = {"batch": 2, "low_water": 1, "min_pool": N, "settle_seconds": 3600, "control": 0, "audit": 0}
        more = {"policy": {**policy, "strategy": "margin", "aggregate": "max"}, "suggestions": "topk"}
        told = await project(blobs, TASK, quality={"gold_share": 0.0, "blind_share": 0.0}, **more)
        source = await packaged(blobs, "default", *model(TASK))
        for running in loop.of.values():
            await running.deliver(told)
        active = ModelActivated(project="default", version="mdl_1", activation_epoch=1, **source)
        for name in ("infer", "select_uncertain", "label_queue"):
            await loop.of[name].deliver(active)
        await loop.until("model.loaded", 1)
        sent: dict[str, int] = {}
        for corner, shade in enumerate((0, 30, 60, 75, 78, 128)):
            content = picture(shade, corner)
            answer = await loop.of["ingest"].call(
                "POST", "/v1/samples", content=content, headers={"content-type": "image/png"}
            )
            assert answer.status_code == 201, answer.text
            sent[answer.json()["sample_id"]] = shade
        scored = await loop.until("sample.scored", N)
        assert {row["model_version"] for row in scored} == {"mdl_1"}
        found = {sent[row["sample_id"]]: [box["label"] for box in row.get("detections", [])] for row in scored}
        assert found == {0: ["dark"], 30: ["dark"], 60: ["dark"], 75: ["dark"], 78: [], 128: []}
        asked = await loop.until("sample.selected", 2)
        # The two at the threshold, one just found and one just missed.
        assert {sent[row["sample_id"]] for row in asked} == {75, 78}
        await loop.pump()
        box = {"label": "dark", "x": 0.0, "y": 0.0, "width": 0.5, "height": 0.45}
        for task in await claim(loop.of["label_queue"], 2):
            shown = task["suggestion"]["value"]["boxes"]
            assert len(shown) == (sent[task["sample_id"]] == 75)
            answer = await submit(loop.of["label_queue"], task, {"boxes": [box]})
            assert (answer.status_code, answer.json()["state"]) == (201, "ACCEPTED")
        for label in await loop.until("label.accepted", 2):
            assert label["value"] == {"boxes": [box]}
            assert label["predicted"]["value"]["boxes"] == ([] if sent[label["sample_id"]] == 78 else label_box())
        await loop.pump()
        stats = (await loop.of["select_uncertain"].call("GET", "/v1/stats")).json()
        assert stats["states"]["LABELED"] == 2
        assert (await loop.of["label_queue"].call("GET", "/v1/stats")).json()["by_class"] == {"dark": 2}
        coco = (await loop.of["label_queue"].call("GET", "/v1/export?format=coco")).json()
        assert [row["bbox"] for row in coco["annotations"]] == [[0, 0, SIDE / 2, 0.45 * SIDE]] * 2


def label_box() -> list[dict[str, Any]]:
    """What the detector says of the first quarter."""
    return [{"label": "dark", "x": 0.0, "y": 0.0, "width": 0.5, "height": 0.5}]
