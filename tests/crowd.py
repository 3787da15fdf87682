"""Annotators for tests of the label queue: tasks for them, and what they do over REST."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from conftest import Running

from services.contracts.events import ProjectUpdated, SampleSelected
from services.contracts.inputs import InputSpec

CONTENT = {"uri": "blob:samples/default/x", "sha256": "0" * 64, "bytes": 1, "media_type": "image/png"}
LABELS = ["cat", "dog", "owl"]


def project(name: str = "default", revision: int = 1, **more: Any) -> ProjectUpdated:
    document = {
        "name": name,
        "task": "image-classification",
        "labels": LABELS,
        "input": InputSpec.image(4, 4, 1).model_dump(mode="json"),
        "revision": revision,
        "extractor": {"artefact": CONTENT, "manifest": CONTENT},
        "quality": {"blind_share": 0.0},
        **more,
    }
    return ProjectUpdated(project=name, revision=revision, document=document)


def selected(name: str, round_id: str = "rnd_1", **more: Any) -> SampleSelected:
    fields: dict[str, Any] = {
        "project": "default",
        "content": CONTENT,
        "priority": 0.5,
        "reasons": ["margin"],
        "policy": {"id": "default", "version": 1},
        "strategy": "margin",
        "seed": 0,
        "prelabel": {"label": "dog", "confidence": 0.6},
        "model_version": "mdl_1",
    }
    return SampleSelected(sample_id=name, round_id=round_id, **{**fields, **more})


async def claim(running: Running, n: int = 1, annotator: str | None = None, **more: Any) -> list[dict[str, Any]]:
    body = {"n": n, **({"annotator": annotator} if annotator else {}), **more}
    answer = await running.call("POST", "/v1/tasks:claim", "operator", json=body)
    assert answer.status_code in (200, 204), answer.text
    return answer.json()["tasks"] if answer.status_code == 200 else []


async def submit(running: Running, task: dict[str, Any], value: Any = "cat", annotator: str = "operator", **more: Any):
    body = {"epoch": task["lease"]["epoch"], "value": value, "annotator": annotator, **more}
    return await running.call("POST", f"/v1/tasks/{task['id']}/annotations", "operator", json=body)


async def crowd(
    replicas: Sequence[Running], rng: random.Random, annotators: int
) -> tuple[Counter[str], Counter[tuple[str, int]]]:
    """All annotators at once, each at any replica, until nothing is left: answers by sample, leases by task and epoch.

    One task in ten is released instead of answered.
    """
    answered: Counter[str] = Counter()
    leases: Counter[tuple[str, int]] = Counter()

    async def annotate(who: str) -> None:
        idle = 0
        while idle < 3:
            tasks = await claim(rng.choice(replicas), rng.randint(1, 8), who)
            idle = 0 if tasks else idle + 1
            for task in tasks:
                leases[task["id"], task["lease"]["epoch"]] += 1
                if rng.random() < 0.1:
                    body = {"epoch": task["lease"]["epoch"], "annotator": who}
                    path = f"/v1/tasks/{task['id']}:release"
                    answer = await rng.choice(replicas).call("POST", path, "operator", json=body)
                    assert answer.status_code == 200, answer.text
                    continue
                answer = await submit(rng.choice(replicas), task, "cat", who)
                assert answer.status_code == 201, answer.text
                answered[task["sample_id"]] += 1

    await asyncio.gather(*(annotate(f"annotator-{number}") for number in range(annotators)))
    return answered, leases
