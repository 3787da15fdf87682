"""What this version leaves in its stores, for later versions to be tested on: `python -m tests.versions.record`.

A small loop is played on the real stack; every record and every content of it becomes a line of a gzipped file that
is named after the version. To be run once, before a version is released.
"""

import asyncio
import base64
import gzip
import json
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import redis

from services.cli.datasets import Dataset, Item, Split
from services.cli.player import Plan, Player
from services.cli.rest import Rest
from services.cli.settings import StackSettings
from services.cli.stack import Stack
from services.contracts.inputs import InputSpec, TabularColumn

HERE = Path(__file__).parent
POOL, EVALUATION, TEST, BUDGET, BATCH = 40, 20, 10, 16, 8
LABELS = ("low", "high")
# What a restart makes anew: workflows, what waited for the broker, answers to Idempotency-Keys.
LEFT_OUT = ("dapr.internal.", "||outbox", "||idem:")


def plan() -> Plan:
    """Rows of two numbers in two overlapping clouds."""
    rng, items = np.random.default_rng(11), []
    for number in range(POOL + EVALUATION + TEST):
        x, y = rng.normal((number % 2, -(number % 2)), 0.4)
        row = {"x": round(float(x), 6), "y": round(float(y), 6)}
        items.append(Item(b"", "application/json", LABELS[number % 2], row))
    spec = InputSpec.tabular([TabularColumn(name="x"), TabularColumn(name="y")])
    parts = Split(tuple(items[:POOL]), tuple(items[POOL : POOL + EVALUATION]), tuple(items[POOL + EVALUATION :]))
    data = Dataset("upgrade", "tabular-classification", LABELS, spec, tuple(items))
    return Plan(data, parts, "uncertainty_coverage", BUDGET, BATCH, 0)


def lines(port: int, blobs: Path) -> list[dict[str, Any]]:
    """Every record by its key in Redis, and every content by its name."""
    found: list[dict[str, Any]] = []
    with redis.Redis(port=port) as store:
        for key in sorted(key.decode() for key in store.scan_iter(count=1000)):
            if "||" in key and store.type(key) == b"hash" and not any(part in key for part in LEFT_OUT):
                found.append({"key": key, "value": json.loads(store.hget(key, "data"))})
    for path in sorted(path for path in blobs.rglob("*") if path.is_file()):
        name = path.relative_to(blobs).as_posix()
        found.append({"blob": name, "content": base64.b64encode(path.read_bytes()).decode()})
    return found


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        home, played = Path(folder) / "home", plan()
        async with Stack(StackSettings(home=home)).running() as stack:
            rest = Rest(stack.url, stack.token, played.project)
            player = Player(rest, played, stack.app_ids)
            await player.make_project()
            print(await player.play())
            await rest.close()
            rows = lines(stack.ports["redis"], home / "blobs")
    file = HERE / f"{version('halfsure')}.jsonl.gz"
    text = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)
    file.write_bytes(gzip.compress(text.encode(), mtime=0))
    print(f"{file}: {len(rows)} lines, {file.stat().st_size} bytes")


if __name__ == "__main__":
    asyncio.run(main())
