"""The chain ingest -> infer -> select-uncertain -> label-queue through Dapr, beside the same chain of empty handlers.

Redis stamps each entry of a stream with its own clock, so a run's time is read off the streams afterwards: from the
first SampleIngested published to the last TaskQueued. Nobody's HTTP client is in it.
"""

import asyncio
import base64
import contextlib
import io
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import psutil
import redis.asyncio
import yaml
from PIL import Image

from bench.empty import Mode, ingested
from services.cli.replicas import ReplicatedStack
from services.cli.settings import StackSettings, default_root
from services.cli.stack import Stack
from services.contracts.envelope import CONTENT_TYPE, wrap
from services.contracts.events import Content, ProjectUpdated
from services.contracts.ids import sample_id, sha256
from services.contracts.inputs import InputSpec
from services.retrain_trigger.extractors import image_extractor
from services.runtime.blobs import blob_store
from services.runtime.signing import Signer

APPS = ("ingest", "infer", "select-uncertain", "label-queue")
TOPICS = ("sample-ingested", "sample-scored", "sample-selected", "task")
POST = 200  # samples in a request
SENDERS = 4  # requests under way at a time, so that a run measures what goes through and not how long one takes
BULK = 500  # events in a bulk publish
SIDE = 8  # pixels
KNOWN = {
    "ingest": "/v1/stats",
    "infer": "/v1/loaded-models",
    "select-uncertain": "/v1/stats",
    "label-queue": "/v1/stats",
}  # what answers 200 once a service knows the project
PATIENCE = 120.0  # seconds without any new event after which a run is given up


class Stuck(Exception):
    """The chain has stopped short."""


@dataclass
class Run:
    """One pass of `samples` samples: seconds by the broker's clock, and what each process used of a core."""

    samples: int
    seconds: float
    hops: dict[str, float] = field(default_factory=dict)  # events/s of a topic, while it was being written
    cpu_ms: dict[str, float] = field(default_factory=dict)  # a sample, by process

    @property
    def rate(self) -> float:
        """Samples that go through the whole chain in a second."""
        return self.samples / self.seconds

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "rate": self.rate}


class Bed:
    """A running stack of the four apps, real ones or empty ones."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        headers = {"authorization": f"Bearer {stack.token}"}
        self._http = httpx2.AsyncClient(headers=headers, timeout=120, trust_env=False)
        self._redis = redis.asyncio.Redis(port=stack.ports["redis"])

    async def close(self) -> None:
        await self._http.aclose()
        await self._redis.aclose()

    async def run(self, mode: Mode | None, name: str, samples: int) -> Run:
        """A pass of its own; through real services in a project of its own. Raises Stuck."""
        posts = await self._real(name, samples) if mode is None else _empty(mode, name, samples)
        before = {topic: await self._mark(topic) for topic in TOPICS}
        used = self._cpu()
        async with asyncio.TaskGroup() as group:
            senders = asyncio.Semaphore(SENDERS)
            for path, body in posts:
                group.create_task(self._post(path, body, senders))
        spans = await self._finished(before, samples)
        cpu = {process: 1000 * (now - used[process]) / samples for process, now in self._cpu().items()}
        seconds = (spans["task"][1] - spans["sample-ingested"][0]) / 1000
        hops = {topic: 1000 * samples / max(last - first, 1) for topic, (first, last) in spans.items()}
        return Run(samples, seconds, hops, cpu)

    async def publishing(self, events: int) -> dict[str, float]:
        """Events/s by HTTP through a sidecar to a topic that nobody hears: one by one, and 500 at a time."""
        url = f"{self._stack.processes['ingest-sidecar'].spec.url}/v1.0"
        headers = {"dapr-api-token": self._stack.secrets.dapr_api}
        now = datetime.now(UTC)
        envelope = wrap(ingested("bare", sample_id("bare", "0")), siteid="local", service="ingest", now=now)
        began = time.perf_counter()
        for _ in range(events // 10):
            single = {**headers, "content-type": CONTENT_TYPE}
            answer = await self._http.post(f"{url}/publish/pubsub/bench-alone", content=envelope, headers=single)
            answer.raise_for_status()
        alone = (events // 10) / (time.perf_counter() - began)
        rows = [{"entryId": str(at), "event": json.loads(envelope), "contentType": CONTENT_TYPE} for at in range(BULK)]
        bulk = json.dumps(rows).encode()
        began = time.perf_counter()
        for _ in range(max(events // BULK, 1)):
            typed = {**headers, "content-type": "application/json"}
            answer = await self._http.post(f"{url}/publish/bulk/pubsub/bench-bulk", content=bulk, headers=typed)
            answer.raise_for_status()
        return {"one by one": alone, "in bulk": max(events // BULK, 1) * BULK / (time.perf_counter() - began)}

    async def _real(self, name: str, samples: int) -> list[tuple[str, bytes]]:
        await self._make_project(name, samples)
        return [(f"/v1/samples:batch?project={name}", body) for body in _bodies(name, samples)]

    async def _post(self, path: str, body: bytes, senders: asyncio.Semaphore) -> None:
        headers = {"content-type": "application/x-ndjson"}
        async with senders:
            answer = await self._http.post(self._stack.url("ingest") + path, content=body, headers=headers)
        if answer.status_code >= 300 or b'"problem"' in answer.content:
            raise Stuck(f"ingest answered {answer.status_code}: {answer.text[:300]}")

    async def _finished(self, before: dict[str, str], samples: int) -> dict[str, tuple[int, int]]:
        """First and last millisecond of each topic's new entries, once there are `samples` tasks."""
        deadline, count, at = time.monotonic() + PATIENCE, 0, before["task"]
        while count < samples:
            rows: Any = await self._redis.xrange("task", min=f"({at}", count=BULK)
            if rows:  # counted one by one, since a stream that is full gets no longer
                deadline, count, at = time.monotonic() + PATIENCE, count + len(rows), rows[-1][0].decode()
                continue
            if time.monotonic() > deadline:
                raise Stuck(f"{count} of {samples} tasks are queued, and no more come")
            await asyncio.sleep(0.1)
        return {topic: await self._span(topic, before[topic]) for topic in TOPICS}

    async def _mark(self, topic: str) -> str:
        """The newest entry's id."""
        rows: Any = await self._redis.xrevrange(topic, count=1)
        return rows[0][0].decode() if rows else "0-0"

    async def _span(self, topic: str, after: str) -> tuple[int, int]:
        first: Any = await self._redis.xrange(topic, min=f"({after}", count=1)
        last: Any = await self._redis.xrevrange(topic, count=1)
        return int(first[0][0].split(b"-")[0]), int(last[0][0].split(b"-")[0])

    def _cpu(self) -> dict[str, float]:
        """CPU seconds of each process so far."""
        times = {name: psutil.Process(self._stack.pid(name)).cpu_times() for name in self._stack.processes}
        return {name: used.user + used.system for name, used in times.items()}

    async def _make_project(self, name: str, samples: int) -> None:
        """Tell the services of a project whose policy selects everything, as retrain-trigger would."""
        blobs = blob_store((self._stack.home.path / "blobs").as_uri())
        content, manifest = image_extractor(SIDE, SIDE, 1)
        raw = manifest.model_dump_json().encode()
        artefact = Content(
            uri=await blobs.put(f"models/{name}/{manifest.sha256}.onnx", content),
            sha256=manifest.sha256,
            bytes=len(content),
            media_type="application/octet-stream",
        )
        described = Content(
            uri=await blobs.put(f"models/{name}/{sha256(raw)}.json", raw),
            sha256=sha256(raw),
            bytes=len(raw),
            media_type="application/json",
        )
        signed = Signer(self._stack.home.model_keys[0]).signed(name, described)
        document = {
            "name": name,
            "task": "image-classification",
            "labels": ["one", "other"],
            "input": InputSpec.image(SIDE, SIDE, 1).model_dump(mode="json"),
            "policy": {"cold_start": "random", "batch": 10_000, "min_pool": 1, "low_water": samples + 1},
            "revision": 1,
            "extractor": {"artefact": artefact.model_dump(), "manifest": signed.model_dump()},
        }
        await self._tell(ProjectUpdated(project=name, revision=1, document=document), 200)

    async def drop(self, name: str) -> None:
        """Tell the services that the project of a pass is deleted, and wait until they have heard it."""
        await self._tell(ProjectUpdated(project=name, revision=2, document={}, deleted=True), 404)

    def memory(self) -> dict[str, float]:
        """Resident MB of each process now."""
        return {name: psutil.Process(pid).memory_info().rss / 1e6 for name, pid in self.pids().items()}

    def pids(self) -> dict[str, int]:
        """All processes of the stack."""
        return {name: pid for name in self._stack.processes if (pid := self._stack.pid(name))}

    async def lengths(self, topics: Sequence[str]) -> dict[str, int]:
        """Entries that the topics' streams have now."""
        return {topic: await self._redis.xlen(topic) for topic in topics}

    async def _tell(self, event: ProjectUpdated, status: int) -> None:
        """Publish as retrain-trigger would, and wait until all services answer about the project with that status."""
        envelope = wrap(event, siteid="local", service="retrain-trigger", now=datetime.now(UTC))
        sidecar = self._stack.processes["ingest-sidecar"].spec.url
        headers = {"content-type": CONTENT_TYPE, "dapr-api-token": self._stack.secrets.dapr_api}
        answer = await self._http.post(f"{sidecar}/v1.0/publish/pubsub/project", content=envelope, headers=headers)
        answer.raise_for_status()
        for app_id, path in KNOWN.items():
            await self._until(f"{self._stack.url(app_id)}{path}?project={event.project}", status)

    async def _until(self, url: str, status: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while (answer := await self._http.get(url)).status_code != status:
            if time.monotonic() > deadline:
                raise Stuck(f"{url} answers {answer.status_code}: {answer.text[:200]}")
            await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def bed(folder: Path, *, real: bool, port_offset: int, twice: Sequence[str] = ()) -> AsyncIterator[Bed]:
    """The four services, or their empty twins, up and ready; two replicas of those in `twice`."""
    settings = StackSettings(home=folder / "home", run_file=_run_file(folder, real), port_offset=port_offset)
    async with ReplicatedStack(settings, twice).running() as stack:
        made = Bed(stack)
        try:
            yield made
        finally:
            await made.close()


def _run_file(folder: Path, real: bool) -> Path:
    """The project's run file, of the chain's apps only; everything else in it stays as it is."""
    root = default_root()
    document = yaml.safe_load((root / "dapr" / "dapr.yaml").read_text())
    common = document["common"]
    common["resourcesPaths"] = [str((root / "dapr" / path).resolve()) for path in common["resourcesPaths"]]
    common["configFilePath"] = str(root / "dapr" / "config.yaml")
    document["apps"] = [{**app, "appDirPath": str(root)} for app in document["apps"] if app["appID"] in APPS]
    for app in document["apps"]:
        if not real:
            app["command"] = ["python", "-m", "bench.empty", app["appID"]]
    folder.mkdir(parents=True)
    path = folder / "dapr.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def _empty(mode: Mode, name: str, samples: int) -> list[tuple[str, bytes]]:
    starts = range(0, samples, POST)
    return [
        (f"/v1/bench/emit?mode={mode}&run={name}&start={start}&count={min(POST, samples - start)}", b"")
        for start in starts
    ]


def _bodies(name: str, samples: int) -> list[bytes]:
    """NDJSON of small grey pictures, no two alike, also between runs."""
    rng = np.random.default_rng(int.from_bytes(sha256(name.encode())[:12].encode()))
    lines = [json.dumps({"data": _picture(rng), "media_type": "image/png"}) for _ in range(samples)]
    return ["\n".join(lines[start : start + POST]).encode() for start in range(0, samples, POST)]


def _picture(rng: np.random.Generator) -> str:
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
