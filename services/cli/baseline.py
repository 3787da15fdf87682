"""What random labelling and full supervision give on the same split: the training code, in a process of its own."""

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from services.cli.datasets import Item
from services.cli.player import Plan
from services.cli.rest import Rest
from services.runtime.ports import Blobs

RANDOM_ORDERS = 3  # random labellings, of which the mean is shown


class BaselineFailed(Exception):
    """The offline comparison could not be made."""


async def baseline(plan: Plan, rest: Rest, blobs: Blobs, folder: Path, counts: Sequence[int]) -> dict[str, Any]:
    """{baseline_random: [{labels, accuracy}], full_supervised_accuracy} by the project's own extractor and trainer."""
    project = await rest.get("retrain-trigger", f"/v1/projects/{plan.project}")
    extractor = folder / "extractor.onnx"
    extractor.write_bytes(await blobs.get(project["extractor"]["artefact"]["uri"]))
    manifest = json.loads(await blobs.get(project["extractor"]["manifest"]["uri"]))
    rng = np.random.default_rng(plan.seed)
    orders = [rng.permutation(len(plan.split.pool)) for _ in range(RANDOM_ORDERS)]
    wanted = [(count, order[:count]) for order in orders for count in counts]
    job = {
        "task": plan.data.task,
        "labels": plan.data.labels,
        "extractor": {"path": str(extractor), "manifest": manifest},
        "samples": _refs(plan.split.pool, folder / "pool"),
        "test": _refs(plan.split.test, folder / "test"),
        "subsets": [{"labels": count, "ids": [f"s{i}" for i in chosen]} for count, chosen in wanted],
        "params": {"seed": plan.seed},
    }
    answer = await _curve(folder, job)
    means = []
    for count in counts:
        found = [row["accuracy"] for row in answer["baseline"] if row["labels"] == count and row["accuracy"]]
        if found:
            means.append({"labels": count, "accuracy": round(float(np.mean(found)), 4)})
    return {"baseline_random": means, "full_supervised_accuracy": round(answer["full_supervised_accuracy"], 4)}


def _refs(items: Sequence[Item], folder: Path) -> list[dict[str, Any]]:
    folder.mkdir()
    for index, item in enumerate(items):
        (folder / str(index)).write_bytes(item.content)
    prefix = "s" if folder.name == "pool" else "t"
    return [
        {"sample_id": f"{prefix}{i}", "path": str(folder / str(i)), "media_type": item.media_type, "label": item.label}
        for i, item in enumerate(items)
    ]


async def _curve(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    path = folder / "curve.json"
    path.write_text(json.dumps(job))
    process = await asyncio.create_subprocess_exec(
        *("nice", "-n", "10", sys.executable, "-m", "services.retrain_trigger.trainer", "--curve", str(path)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise BaselineFailed(f"the offline comparison failed: {err.decode()[-500:]}")
    return json.loads(out)
