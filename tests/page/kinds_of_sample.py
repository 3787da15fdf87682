"""Small projects of every kind of sample, each with some that wait for an answer."""

import asyncio
import io
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from kinds import model
from page.looking import World
from page.stocking import Row, answered, bring, ingest, inline, project, queued
from PIL import Image
from worlds import LABELS, SPECS

from services.contracts.inputs import InputSpec, TabularColumn

N = 12
ASKED = {"first_batch": N, "batch": N, "min_pool": N, "settle_seconds": 0.2, "control": 0, "audit": 0}
CALM = {"policy": ASKED, "quality": {"gold_share": 0.0, "blind_share": 0.0}, "trigger": {"n": 100_000}}
TWICE = {**CALM, "policy": {**ASKED, "required_labels": 2}}
COLUMNS = [
    TabularColumn(name="temperature", mean=20.0, scale=5.0),
    TabularColumn(name="pressure", mean=1.0, scale=0.25),
    TabularColumn(name="mode", kind="category", categories=("auto", "manual")),
]
# Each touches the next, and none is another: that something is there is agreed, and where it is not.
ARGUED = [{"label": "dark", "x": x, "y": 0.1, "width": 0.3, "height": 0.3} for x in (0.1, 0.25, 0.4)]
TOPICS = ["billing", "bug", "urgent"]
LETTERS = [f"Dear team, invoice {n} is wrong, and the page shows an error." for n in range(N)]


def scene(n: int) -> bytes:
    """320 by 240 pixels: its upper left quarter is dark and its lower right one bright, the rest grey."""
    pixels = np.full((240, 320), 120 + n, np.uint8)
    pixels[:120, :160], pixels[120:, 160:] = 5, 250
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def row(n: int) -> Row:
    return {"temperature": 30.0 + n / 10, "pressure": 1.0, "mode": "auto"}


def window(n: int) -> list[Row]:
    return [{**row(n), "temperature": 20 + 5 * math.sin(at / 4 + n)} for at in range(48)]


async def stock(world: World, name: str, task: str, labels: Sequence[str], spec: InputSpec, **more: Any) -> None:
    """A project with N samples of its kind, each waiting for an answer."""
    bodies = {
        "image": lambda n: inline(scene(n), "image/png"),
        "text": lambda n: inline(LETTERS[n].encode(), "text/plain"),
        "tabular": lambda n: inline(json.dumps(row(n)).encode(), "application/json"),
        "series": lambda n: inline(json.dumps(window(n)).encode(), "application/json"),
    }[spec.kind]
    rest = await project(world, name, task, labels, spec, **{**CALM, **more})
    if spec.kind == "image":
        await bring(rest, *model(task))
    await ingest(rest, [bodies(n) for n in range(N)])
    await queued(rest, N)
    await rest.close()


async def every_kind(world: World) -> None:
    """Boxes that the model tells of after the answer and before it, and disputed ones; texts, rows and series."""
    picture, rows, text = SPECS["image"], InputSpec.tabular(COLUMNS), InputSpec.text(256)
    await asyncio.gather(
        stock(world, "scenes", "image-detection", LABELS, picture),
        stock(world, "told", "image-detection", LABELS, picture, suggestions="topk"),
        stock(world, "argued", "image-detection", LABELS, picture, **TWICE),
        stock(world, "letters", "text-multi-label", TOPICS, text),
        stock(world, "rows", "tabular-classification", ["good", "bad"], rows),
        stock(world, "machines", "series-classification", ["calm", "leak"], InputSpec.series(48, COLUMNS)),
    )
    rest = world.rest("argued")
    said = [(who, {"boxes": [box]}) for who, box in zip(("ada", "grace", "linus"), ARGUED, strict=True)]
    await answered(rest, said, 3)
    await rest.close()
