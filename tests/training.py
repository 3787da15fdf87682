"""A running retrain-trigger for tests: a backend as anybody may write one, labels, and what became of the runs."""

import asyncio
import io
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from conftest import Running, started, wait_until
from PIL import Image
from worlds import LABELS, SPECS, classifier, png

from services.contracts.events import Content, LabelAccepted
from services.contracts.ids import sample_id, sha256
from services.retrain_trigger import app
from services.retrain_trigger.backends import Backend, BadOutcome, Job, Outcome, Work
from services.retrain_trigger.evaluation import compared, scored
from services.runtime.ports import Ports

N = 10


class Rehearsal:
    """A backend as anybody may write one: it makes the model it was told to make, when it is told to."""

    name = "rehearsal"
    limit: float | None = None

    def __init__(self) -> None:
        self.works: dict[str, Work] = {}
        self.submitted = 0
        self.accuracy = 0.9
        self.fail: str | None = None
        self.hold = asyncio.Event()
        self.hold.set()
        self.cancelled: set[str] = set()
        self.erased: set[str] = set()

    async def submit(self, work: Work) -> str:
        self.submitted += work.run_id not in self.works
        self.works[work.run_id] = work
        return work.run_id

    async def poll(self, job_id: str, patience: float) -> Job:
        if job_id not in self.works:
            return Job("lost")
        if job_id in self.cancelled:
            return Job("cancelled")
        try:
            await asyncio.wait_for(self.hold.wait(), min(patience, 0.05))
        except TimeoutError:
            return Job("running")
        return Job("failed", self.fail) if self.fail else Job("succeeded")

    async def outcome(self, job_id: str) -> Outcome:
        if job_id not in self.works:
            raise BadOutcome("no such job")
        work = self.works[job_id]
        model, manifest = classifier(8.0 + len(self.works))
        truth = [row.label for row in work.snapshot.evaluation]
        new = _answers(truth, self.accuracy)
        metrics: Mapping[str, Any] | None = None
        if truth and work.champion:
            metrics = compared(truth, new, _answers(truth, 0.6), LABELS)
        elif truth:
            metrics = {"candidate": scored(truth, new, LABELS), "champion": None, "paired": None}
        result = {"metrics": metrics, "evaluation_sha256": work.snapshot.evaluation_sha256, "seconds": 0.1}
        return Outcome(model, manifest, result)

    async def cancel(self, job_id: str) -> None:
        self.cancelled.add(job_id)

    async def forget(self, project: str, sample_ids: set[str]) -> None:
        self.erased |= sample_ids

    async def close(self) -> None: ...


def _answers(truth: Sequence[str], accuracy: float) -> list[str]:
    """The first share of them right, the rest wrong."""
    right = round(accuracy * len(truth))
    other = {LABELS[0]: LABELS[1], LABELS[1]: LABELS[0]}
    return [label if at < right else other[label] for at, label in enumerate(truth)]


SPEC: dict[str, Any] = {
    "name": "default",
    "task": "image-classification",
    "labels": LABELS,
    "input": SPECS["image"].model_dump(mode="json"),
    "trigger": {"n": N, "min_per_class": 2},
}


def label(number: int, split: str = "train", revision: int = 1, **more: Any) -> LabelAccepted:
    content = png(10 + number % 80 if number % 2 == 0 else 170 + number % 80, corner=number // 256)
    uri = f"blob:samples/default/{sha256(content)}"
    fields = {
        "project": "default",
        "sample_id": sample_id("default", f"{split}-{number}"),
        "label_revision": revision,
        "value": LABELS[number % 2],
        "split": split,
        "origin": "queue" if split == "train" else "import",
        "content": Content(uri=uri, sha256=sha256(content), bytes=len(content), media_type="image/png"),
        **more,
    }
    return LabelAccepted.model_validate(fields)


@asynccontextmanager
async def running(
    folder: Path, backend: Backend | None = None, ports: Ports | None = None, **more: Any
) -> AsyncIterator[Running]:
    peers = {"ingest": lambda path, params: {"items": [], "cursor": None}}
    created = lambda settings, connect: app.create(settings, connect, backend)  # noqa: E731
    async with started(created, folder, ports, peers, **more) as one:
        yield one


async def make(one: Running, **more: Any) -> dict[str, Any]:
    answer = await one.call("POST", "/v1/projects", json={**SPEC, **more})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def ask(one: Running, path: str) -> Any:
    answer = await one.call("GET", path)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def runs(one: Running) -> list[dict[str, Any]]:
    return (await ask(one, "/v1/runs"))["items"]


async def ended(one: Running, count: int = 1, seconds: float = 20) -> list[dict[str, Any]]:
    """The runs, newest first, once `count` have ended."""

    async def enough() -> list[dict[str, Any]] | None:
        done = [run for run in await runs(one) if run["state"] in ("SUCCEEDED", "FAILED", "CANCELLED")]
        return done if len(done) >= count else None

    return await wait_until(enough, seconds)


async def settled(one: Running) -> None:
    """Nothing more is started by what has come so far."""
    for _ in range(10):
        await asyncio.sleep(0.02)


def evaluation(count: int = 20) -> list[LabelAccepted]:
    return [label(number, "evaluation") for number in range(count)]


async def train_first(one: Running) -> dict[str, Any]:
    """A project with a first model; its run."""
    await make(one)
    await one.deliver_batch(evaluation())
    await one.deliver_batch([label(number) for number in range(N)])
    (run,) = await ended(one)
    assert run["promoted"], run
    return run


def striped(value: str, rng: np.random.Generator) -> bytes:
    """An 8x8 picture of stripes, upright or lying by its label."""
    pixels = rng.integers(0, 60, (8, 8), dtype=np.uint8)
    stripes = pixels if value == "dark" else pixels.T
    stripes[:, int(rng.integers(0, 2)) :: 3] += 180
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


async def stored_labels(one: Running, events: Sequence[LabelAccepted]) -> list[LabelAccepted]:
    """The same labels, with pictures that are in the store."""
    rng = np.random.default_rng(3)
    placed = []
    for event in events:
        content = striped(event.value, rng)
        uri = await one.service.blobs.put(f"samples/default/{sha256(content)}", content)
        claim = Content(uri=uri, sha256=sha256(content), bytes=len(content), media_type="image/png")
        placed.append(event.model_copy(update={"content": claim}))
    return placed
