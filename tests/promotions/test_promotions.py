"""From labels to a better model in service, on the real broker and store; its numbers are the report of training."""

import asyncio
import base64
import contextlib
import json
import math
import random
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import redis
from azureml import Workspace
from gates import worse_that_pass
from training import SPEC, label, striped
from worlds import classifier, png

from services.cli.rest import Rest
from services.cli.settings import default_root
from services.cli.stack import Stack
from services.contracts.envelope import wrap
from services.contracts.events import Content, LabelAccepted
from services.contracts.ids import sha256
from services.retrain_trigger.backends import ModelSource, Work
from services.retrain_trigger.backends.azureml import AzureMlBackend
from services.retrain_trigger.settings import AzureMlSettings, RetrainTriggerSettings
from services.retrain_trigger.snapshots import Manifest
from services.runtime.blobs import blob_store
from services.runtime.memory import MemoryBlobs

pytestmark = [pytest.mark.loop, pytest.mark.timeout(900)]

REPORT = default_root() / "out" / "training" / "report.json"
N, JUDGES, PROMOTIONS, WARM, CLIENTS = 20, 40, 50, 10, 4
MEGABYTES = 8  # of each promoted model: what is not given back shows
SHADES = (100, 140)
QUIET = 0.3  # seconds
SEED = 20261125


class Load:
    """Clients that ask all the time, and what came of it."""

    def __init__(self, stack: Stack) -> None:
        self._url = f"{stack.url('infer')}/v1/predict?project=default"
        self._headers = {"authorization": f"Bearer {stack.token}"}
        self.failed: Counter[str] = Counter()
        self.answered = 0
        self.last: dict[str, float] = {}  # version -> when it last answered
        self.sharpness: dict[str, float] = {}  # of the versions that were promoted: each answers in a way of its own
        self.checked: Counter[str] = Counter()  # answers that were held against what their version says

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        asking = [asyncio.create_task(self._ask(number)) for number in range(CLIENTS)]
        try:
            yield
        finally:
            for one in asking:
                one.cancel()
            await asyncio.gather(*asking, return_exceptions=True)

    async def _ask(self, number: int) -> None:
        inputs = [png(shade, number) for shade in SHADES]
        body = {"inputs": [{"data": base64.b64encode(one).decode(), "media_type": "image/png"} for one in inputs]}
        async with httpx2.AsyncClient(headers=self._headers, timeout=30, trust_env=False) as client:
            while True:
                try:
                    answer = await client.post(self._url, json=body)
                    self._note(answer, number)
                except httpx2.HTTPError as error:
                    self.failed[repr(error)] += 1
                await asyncio.sleep(0.01)

    def _note(self, answer: httpx2.Response, number: int) -> None:
        if answer.status_code != 200:
            self.failed[f"{answer.status_code} {answer.text[:200]}"] += 1
            return
        said = answer.json()
        versions = {row.get("model_version") for row in said["predictions"]}
        if versions != {said["model_version"]} or len(said["predictions"]) != 2:
            self.failed[f"versions {versions}"] += 1
        version = said["model_version"]
        if sharpness := self.sharpness.get(version):
            self._check(version, [row["probabilities"][1] for row in said["predictions"]], sharpness, number)
        self.answered += 1
        self.last[version] = time.monotonic()

    def _check(self, version: str, said: list[float], sharpness: float, number: int) -> None:
        """The version that an answer names is the one that made it."""
        means = [(63 * shade + number) / 64 / 255 for shade in SHADES]
        made = [1 / (1 + math.exp(-sharpness * (2 * mean - 1))) for mean in means]
        if any(abs(a - b) > 1e-4 for a, b in zip(said, made, strict=True)):
            self.failed[f"{version} says {said}, and would say {made}"] += 1
        self.checked[version] += 1


async def until(condition: Any, seconds: float, what: str) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := await condition()):
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.05)
    return found


async def labels(stack: Stack) -> list[LabelAccepted]:
    """N to train on, JUDGES to judge by, their contents in the store."""
    blobs, rng = blob_store(stack.blobs("retrain-trigger")), np.random.default_rng(SEED)
    events = [*(label(at) for at in range(N)), *(label(at, "evaluation") for at in range(JUDGES))]
    placed = []
    for event in events:
        content = striped(event.value, rng)
        uri = await blobs.put(f"samples/default/{sha256(content)}", content)
        claim = Content(uri=uri, sha256=sha256(content), bytes=len(content), media_type="image/png")
        placed.append(event.model_copy(update={"content": claim}))
    return placed


def publish(stack: Stack, events: list[LabelAccepted]) -> None:
    """As label-queue's sidecar does, on the broker itself."""
    bus = redis.Redis(port=stack.ports["redis"])
    for event in events:
        bus.xadd(event.topic, {"data": wrap(event, siteid="test", service="test", now=datetime.now(UTC))})
    bus.close()


async def trained_once(rest: Rest, stack: Stack) -> tuple[int, str]:
    """Runs that 1,000 duplicated and shuffled label events lead to, and the model of the first."""
    document = {**SPEC, "trigger": {"n": N, "min_per_class": 2}, "training": {"head": "logistic"}}
    await rest.post("retrain-trigger", "/v1/projects", json=document)
    events = await labels(stack)
    publish(stack, events[N:])
    judged = lambda: _counter(rest, "evaluation", JUDGES)  # noqa: E731
    await until(judged, 60, "the evaluation labels have not come")
    duplicates = [event for event in events[:N] for _ in range(1000 // N)]
    random.Random(SEED).shuffle(duplicates)
    assert len(duplicates) == 1000
    publish(stack, duplicates)

    async def ended() -> list[dict[str, Any]]:
        runs = (await rest.get("retrain-trigger", "/v1/runs"))["items"]
        return [run for run in runs if run["state"] in ("SUCCEEDED", "FAILED")]

    await until(ended, 120, "no run has ended")
    received = lambda: _received(rest, 1000 + JUDGES)  # noqa: E731
    await until(received, 60, "not all label events have come")
    await asyncio.sleep(3)  # for a second run, if there is to be one
    runs = (await rest.get("retrain-trigger", "/v1/runs"))["items"]
    assert runs[-1]["state"] == "SUCCEEDED", runs
    assert runs[-1]["promoted"], runs
    return len(runs), runs[-1]["model_version"]


async def scheduled_once(rest: Rest, stack: Stack) -> str:
    """The reason of the run that Dapr's scheduler leads to, too few labels being there for any other."""
    etag = {"if-match": f'"{(await rest.get("retrain-trigger", "/v1/projects/default"))["revision"]}"'}
    rule = {"n": 100_000, "min_per_class": 2, "schedule": "@every 2s"}
    await rest.call("PUT", "retrain-trigger", "/v1/triggers/default", json=rule, headers=etag)
    more = (await labels(stack))[0]
    publish(stack, [more.model_copy(update={"sample_id": f"{more.sample_id}x"})])

    async def ended() -> list[dict[str, Any]]:
        runs = (await rest.get("retrain-trigger", "/v1/runs"))["items"]
        return runs if len(runs) == 2 and runs[0]["ended_at"] else []

    return (await until(ended, 90, "the scheduler has led to no run"))[0]["reason"]


async def _counter(rest: Rest, name: str, wanted: int) -> bool:
    return (await rest.get("retrain-trigger", "/v1/triggers/default"))["counters"][name] == wanted


async def _received(rest: Rest, wanted: int) -> bool:
    text = await rest.get("retrain-trigger", "/metrics")
    counts = [one for one in text.splitlines() if one.startswith("halfsure_events_received_total{")]
    line = next((one for one in counts if LabelAccepted.type in one), "0")
    return float(line.rsplit(" ", 1)[-1]) >= wanted


async def promote(rest: Rest, load: Load, sharpness: float) -> str:
    """A model of one's own, registered and activated; its version."""
    content, manifest = classifier(sharpness, megabytes=MEGABYTES)
    body = {"artefact": base64.b64encode(content).decode(), "manifest": manifest.model_dump(mode="json")}
    version = (await rest.post("retrain-trigger", "/v1/models", json=body))["version"]
    load.sharpness[version] = sharpness
    await rest.post("retrain-trigger", f"/v1/models/{version}:activate", json={"reason": "promoted"})
    return version


async def served(load: Load, version: str, asked: float) -> float:
    """Seconds from `asked` until the last answer of any other version; this one alone has answered for a while then."""

    async def alone() -> bool:
        return load.last.get(version, 0) > asked and time.monotonic() - _others(load, version) > QUIET

    await until(alone, 30 + QUIET, f"{version} does not serve alone after 30 s")
    return max(0.0, _others(load, version) - asked)


def _others(load: Load, version: str) -> float:
    return max((at for other, at in load.last.items() if other != version), default=0.0)


async def rss(rest: Rest) -> int:
    return (await rest.get("infer", "/v1/loaded-models"))["rss_bytes"]


async def puts_per_run(runs: int = 3) -> float:
    """PUTs to a stand-in workspace below the real SDK, each run being submitted three times."""
    workspace, blobs = Workspace(), MemoryBlobs()
    own = AzureMlSettings(
        subscription="sub", resource_group="rg", workspace="ws", compute="cpu", environment="azureml:train:1"
    )
    backend = AzureMlBackend(lambda: blobs, RetrainTriggerSettings(), own, workspace.client())
    _, manifest = classifier()
    for number in range(runs):
        snapshot = Manifest(project="default", labels=("a", "b"), train=(), evaluation=(), evaluation_sha256="0")
        task = "image-classification"
        work = Work(f"run_{number}", "default", task, snapshot, ModelSource("blob:x", manifest), None)
        for _ in range(3):
            await backend.submit(work)
    return workspace.count("PUT") / runs


async def test_fifty_promotions_under_load(stack: Stack, tmp_path: Path) -> None:
    rest = Rest(stack.url, stack.token, "default")
    print("seed", SEED)
    report: dict[str, Any] = {}
    report["runs_from_1000_duplicates"], first = await trained_once(rest, stack)
    await until(lambda: _serves(rest, first), 30, "the first model does not serve")
    report["scheduled_run"] = await scheduled_once(rest, stack)
    load, sizes, seconds = Load(stack), [], []
    async with load.running():
        for number in range(WARM + PROMOTIONS):
            asked = time.monotonic()
            version = await promote(rest, load, 2.0 + number * 0.1)
            seconds.append(await served(load, version, asked))
            sizes.append(await rss(rest))
        asked = time.monotonic()
        back = await rest.post("retrain-trigger", "/v1/models:rollback", json={"reason": "drill"})
        report["rollback_seconds"] = round(await served(load, back["version"], asked), 3)
    base, end = statistics.median(sizes[WARM - 3 : WARM + 2]), statistics.median(sizes[-5:])
    report |= {
        "promotions": PROMOTIONS,
        "warm_up_promotions": WARM,
        "model_megabytes": MEGABYTES,
        "predictions": load.answered,
        "predictions_checked_against_their_version": sum(load.checked.values()),
        "failed_predictions": sum(load.failed.values()),
        "failures": dict(load.failed),
        "slowest_swap_seconds": round(max(seconds), 3),
        "rss_megabytes": {
            "after_warm_up": round(base / 2**20, 1),
            "at_the_end": round(end / 2**20, 1),
            "most": round(max(sizes) / 2**20, 1),
        },
        "rss_growth": round(end / base - 1, 4),
        "rss_each": [round(size / 2**20) for size in sizes],
        "worse_promoted": worse_that_pass(1000, SEED),
        "azureml_puts_per_run": await puts_per_run(),
        "seed": SEED,
    }
    await rest.close()
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    assert report["failed_predictions"] == 0, report["failures"]
    assert set(load.checked) == set(load.sharpness), "every version has answered"
    assert report["rss_growth"] < 0.10
    assert report["runs_from_1000_duplicates"] == 1
    assert report["scheduled_run"] == "schedule"
    assert report["rollback_seconds"] < 30
    assert report["slowest_swap_seconds"] < 30
    assert report["worse_promoted"] <= 50
    assert report["azureml_puts_per_run"] == 1


async def _serves(rest: Rest, version: str) -> bool:
    items = (await rest.get("infer", "/v1/loaded-models"))["items"]
    return any(row["version"] == version and row["active"] for row in items)
