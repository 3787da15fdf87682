"""Training somewhere else: by the contract over the blob store, and as Jobs, with the real trainer in every test."""

import asyncio
import dataclasses
import io
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import started, wait_until
from jobs import Jobs, serving
from PIL import Image
from worlds import LABELS, SIDE, SPECS, packaged

from services.cli.kustomize import render
from services.cli.settings import default_root
from services.contracts.events import Content, LabelAccepted
from services.contracts.ids import sample_id, sha256
from services.retrain_trigger import app
from services.retrain_trigger.backends import BadOutcome, ModelSource, PoolSample, Work
from services.retrain_trigger.backends.cluster import JobRefused
from services.retrain_trigger.backends.exchange import Exchange, record_uri
from services.retrain_trigger.backends.kubernetes import KubernetesBackend, job_name
from services.retrain_trigger.backends.remote import carry_out
from services.retrain_trigger.extractors import image_extractor
from services.retrain_trigger.settings import RetrainTriggerSettings
from services.retrain_trigger.snapshots import Manifest, Row, evaluation_sha256
from services.runtime.errors import Unavailable
from services.runtime.folder import FolderBlobs
from services.runtime.ports import Ports

RUN = "run_abcdefghijklmnop"
JOB = job_name(RUN)


def picture(value: str, rng: np.random.Generator) -> bytes:
    """8x8 stripes, upright or lying by the label."""
    pixels = rng.integers(0, 60, (SIDE, SIDE), dtype=np.uint8)
    stripes = pixels if value == LABELS[0] else pixels.T
    stripes[:, int(rng.integers(0, 2)) :: 3] += 180
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def blobs(tmp_path: Path) -> FolderBlobs:
    return FolderBlobs(tmp_path / "blobs")


async def stored(blobs: FolderBlobs, content: bytes) -> Content:
    uri = await blobs.put(f"samples/default/{sha256(content)}", content)
    return Content(uri=uri, sha256=sha256(content), bytes=len(content), media_type="image/png")


@pytest.fixture
async def work(blobs: FolderBlobs) -> Work:
    """Ten labelled samples, twenty to judge by, five without a label."""
    rng = np.random.default_rng(5)
    rows = []
    for number in range(30):
        value = LABELS[number % 2]
        content = await stored(blobs, picture(value, rng))
        name = sample_id("default", str(number))
        rows.append(Row(sample_id=name, revision=1, label=value, weight=1.0, content=content))
    train, judged = rows[:10], rows[10:]
    pool = [await stored(blobs, picture(LABELS[number % 2], rng)) for number in range(5)]
    content, described = image_extractor(SIDE, SIDE, 1)
    extractor = await packaged(blobs, "default", content, described)
    return Work(
        run_id=RUN,
        project="default",
        task="image-classification",
        snapshot=Manifest(
            project="default",
            labels=tuple(LABELS),
            train=tuple(train),
            evaluation=tuple(judged),
            evaluation_sha256=evaluation_sha256(judged),
        ),
        extractor=ModelSource(extractor["artefact"].uri, described),
        champion=None,
        unlabelled=tuple(PoolSample(f"pool-{n}", one.uri, one.sha256, one.media_type) for n, one in enumerate(pool)),
        params={"seed": 3},
    )


def remote(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """The entry point as a container starts it."""
    command = [sys.executable, "-m", "services.retrain_trigger.backends.remote", *arguments]
    environment = {"HALFSURE_BLOBS": f"file://{folder / 'blobs'}", "PATH": "/usr/bin:/bin", "TMPDIR": str(folder)}
    return subprocess.run(command, env=environment, cwd=default_root(), capture_output=True, text=True, timeout=120)


async def test_work_from_a_uri_becomes_a_model_and_a_record(tmp_path: Path, blobs: FolderBlobs, work: Work) -> None:
    exchange = Exchange(lambda: blobs)
    uri, to = await exchange.give(work), record_uri(RUN)
    assert await exchange.take(uri) == work
    done = await asyncio.to_thread(remote, tmp_path, uri, to)
    assert done.returncode == 0, done.stdout + done.stderr
    outcome = await exchange.outcome(to)
    assert outcome.manifest.sha256 == sha256(outcome.model)
    assert outcome.result["metrics"]["candidate"]["accuracy"] == 1.0
    assert outcome.result["counts"] == {"labelled": 10, "unlabelled": 5}
    record = await exchange.record(to)
    assert record is not None
    assert record.log is not None
    assert b"fitted spread on 2 classes" in await blobs.get(record.log.uri)
    assert record.model is not None
    assert record.model.uri == f"blob:models/default/{outcome.manifest.sha256}.onnx"
    left = await asyncio.to_thread(lambda: list(tmp_path.glob("halfsure-*")))
    assert left == [], "copies of contents are gone with the work"

    (tmp_path / "scratch").mkdir()
    assert await carry_out(uri, to, blobs, tmp_path / "scratch") == 0
    assert os.listdir(tmp_path / "scratch") == [], "it was done already"
    assert await carry_out(uri, "blob:runs/other/record.json", blobs, tmp_path / "scratch") == 0
    assert (await exchange.outcome("blob:runs/other/record.json")).model == outcome.model


async def test_what_can_never_be_trained_leaves_a_record_that_says_why(
    tmp_path: Path, blobs: FolderBlobs, work: Work
) -> None:
    exchange = Exchange(lambda: blobs)
    one_class = tuple(row.model_copy(update={"label": LABELS[0]}) for row in work.snapshot.train)
    poor = dataclasses.replace(work, snapshot=work.snapshot.model_copy(update={"train": one_class}))
    gone = dataclasses.replace(work, run_id="run_gone")
    poor_uri, gone_uri = await exchange.give(poor), await exchange.give(gone)
    assert await carry_out(poor_uri, record_uri(RUN), blobs, tmp_path) == 0
    await blobs.delete(work.snapshot.train[0].content.uri)
    assert await carry_out(gone_uri, record_uri("run_gone"), blobs, tmp_path / "other") == 0
    for run, code in ((RUN, "not-trainable"), ("run_gone", "content-gone")):
        record = await exchange.record(record_uri(run))
        assert record is not None
        assert record.error is not None
        assert record.error.code == code
        with pytest.raises(BadOutcome, match="no model"):
            await exchange.outcome(record_uri(run))


async def test_work_that_cannot_be_read_is_told_by_the_exit_code(tmp_path: Path, blobs: FolderBlobs) -> None:
    done = await asyncio.to_thread(remote, tmp_path, "blob:work.json", record_uri(RUN))
    assert done.returncode == 2
    assert "cannot be read" in done.stdout
    for number, content in enumerate((b"{}", b"no json")):
        uri = await blobs.put(f"work-{number}.json", content)
        assert await carry_out(uri, record_uri(RUN), blobs, tmp_path) == 2
    assert await Exchange(lambda: blobs).record(record_uri(RUN)) is None


async def test_an_outcome_that_was_tampered_with_is_refused(tmp_path: Path, blobs: FolderBlobs, work: Work) -> None:
    exchange = Exchange(lambda: blobs)
    await carry_out(await exchange.give(work), record_uri(RUN), blobs, tmp_path / "scratch")
    record = await exchange.record(record_uri(RUN))
    assert record is not None
    assert record.model is not None
    file = tmp_path / "blobs" / record.model.uri.removeprefix("blob:")
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(BadOutcome, match="not what its hash says"):
        await exchange.outcome(record_uri(RUN))
    file.unlink()
    with pytest.raises(BadOutcome, match="gone"):
        await exchange.outcome(record_uri(RUN))


# The Jobs, in a stand-in of the cluster's API that runs them.


def template(blobs_folder: Path) -> dict[str, Any]:
    """The PodTemplate of the local overlay, with its blobs in a folder of this test."""
    objects = render(default_root() / "deploy" / "k8s" / "overlays" / "local")
    [found] = [one["template"] for one in objects if one["kind"] == "PodTemplate"]
    [variable] = found["spec"]["containers"][0]["env"]
    variable["value"] = f"file://{blobs_folder}"
    return found


@pytest.fixture
async def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Jobs]:
    async with serving(tmp_path, template(tmp_path / "blobs")) as (made, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield made


@pytest.fixture
async def backend(jobs: Jobs, blobs: FolderBlobs) -> AsyncIterator[KubernetesBackend]:
    made = KubernetesBackend(lambda: blobs, RetrainTriggerSettings())
    yield made
    await made.close()


async def followed(backend: KubernetesBackend, patience: float = 20) -> Any:
    while (job := await backend.poll(RUN, patience)).state == "running":
        pass
    return job


async def test_a_job_is_submitted_once_however_often_it_is_asked_for(
    jobs: Jobs, backend: KubernetesBackend, work: Work
) -> None:
    first = await asyncio.gather(*(backend.submit(work) for _ in range(5)))
    assert set(first) == {RUN}
    assert (jobs.created, jobs.refused) == ([JOB], 4)
    assert (await followed(backend)).state == "succeeded"
    assert (await backend.outcome(RUN)).result["run_id"] == RUN
    await backend.submit(work)
    assert jobs.created == [JOB]
    # Its time to live is over; what it left is not.
    await jobs.delete(JOB)
    assert (await backend.poll(RUN, 0)).state == "succeeded"


async def test_a_job_whose_pod_dies_is_tried_again_and_one_that_is_deleted_is_lost(
    jobs: Jobs, backend: KubernetesBackend, work: Work
) -> None:
    await backend.submit(work)
    await wait_until(lambda: JOB in jobs.pods)
    jobs.kill_pod(JOB)
    await wait_until(lambda: jobs.jobs[JOB]["status"].get("failed") == 1)
    looking = asyncio.create_task(backend.poll(RUN, 20))
    await wait_until(lambda: jobs.watched)
    await jobs.delete(JOB)
    assert (await looking).state == "lost", "a watch hears of it"
    await backend.submit(work)
    assert (await followed(backend)).state == "succeeded"
    assert jobs.created == [JOB, JOB]


async def test_a_job_that_breaks_again_and_again_fails_with_what_it_said(
    jobs: Jobs, backend: KubernetesBackend, work: Work
) -> None:
    assert jobs.template is not None
    jobs.template["spec"]["containers"][0]["command"] = ["python", "-c", "import sys; sys.exit('no such luck')"]
    await backend.submit(work)
    job = await followed(backend)
    assert job.state == "failed"
    assert "BackoffLimitExceeded" in job.error
    assert "no such luck" in job.error
    assert jobs.jobs[JOB]["status"]["failed"] == 4


async def test_a_cancelled_job_is_gone_with_its_pod(jobs: Jobs, backend: KubernetesBackend, work: Work) -> None:
    await backend.submit(work)
    pod = await wait_until(lambda: jobs.pods.get(JOB))
    await backend.cancel(RUN)
    assert jobs.jobs == {}
    await wait_until(lambda: pod.returncode is not None)
    await backend.cancel(RUN)


async def test_a_cluster_that_says_no_is_asked_again_or_not(jobs: Jobs, backend: KubernetesBackend, work: Work) -> None:
    jobs.forbidden = True
    for call in (lambda: backend.submit(work), lambda: backend.poll(RUN, 1), lambda: backend.cancel(RUN)):
        with pytest.raises(Unavailable, match="403"):
            await call()
    jobs.forbidden = False
    assert jobs.template is not None
    jobs.template["spec"]["containers"][0]["resources"]["limits"]["memory"] = "2 GB"
    with pytest.raises(JobRefused, match="2 GB"):
        await backend.submit(work)
    jobs.template = None
    with pytest.raises(JobRefused, match="no PodTemplate halfsure-training"):
        await backend.submit(work)
    assert jobs.created == []


async def test_a_cluster_that_is_away_is_asked_again(
    backend: KubernetesBackend, work: Work, monkeypatch: pytest.MonkeyPatch, blobs: FolderBlobs
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    away = KubernetesBackend(lambda: blobs, RetrainTriggerSettings())
    with pytest.raises(Unavailable, match="the cluster's API"):
        await away.submit(work)
    await away.close()


# The whole service upon it.


@asynccontextmanager
async def trigger(folder: Path, ports: Ports) -> AsyncIterator[Any]:
    def create(settings: Any, connect: Any) -> Any:
        return app.create(settings, connect)

    async with started(create, folder, ports, replica=0) as one:
        yield one


@pytest.fixture
def choice(monkeypatch: pytest.MonkeyPatch) -> None:
    brisk = {"BACKEND": "kubernetes", "CHECK_SECONDS": "0.02", "TEND_SECONDS": "0.05", "POOL_PATIENCE": "0"}
    for name, value in brisk.items():
        monkeypatch.setenv(f"HALFSURE_RETRAIN_TRIGGER_{name}", value)


async def label_all(one: Any, work: Work) -> None:
    spec = {
        "name": "default",
        "task": "image-classification",
        "labels": LABELS,
        "input": SPECS["image"].model_dump(mode="json"),
        "trigger": {"n": 10, "min_per_class": 2},
    }
    assert (await one.call("POST", "/v1/projects", json=spec)).status_code == 201

    def accepted(row: Row, split: str, origin: str) -> LabelAccepted:
        fields = {"label_revision": 1, "value": row.label, "split": split, "origin": origin}
        return LabelAccepted(project="default", sample_id=row.sample_id, content=row.content, **fields)  # type: ignore[arg-type]

    await one.deliver_batch([accepted(row, "evaluation", "import") for row in work.snapshot.evaluation])
    await one.deliver_batch([accepted(row, "train", "queue") for row in work.snapshot.train])


async def the_run(one: Any, state: str, seconds: float = 60) -> dict[str, Any]:
    async def found() -> dict[str, Any] | None:
        rows = (await one.call("GET", "/v1/runs")).json()["items"]
        return next((run for run in rows if run["state"] == state), None)

    return await wait_until(found, seconds)


async def test_the_loop_trains_in_jobs_also_when_the_service_ends_in_the_middle(
    tmp_path: Path, ports: Ports, blobs: FolderBlobs, jobs: Jobs, work: Work, choice: None
) -> None:
    on_disk = dataclasses.replace(ports, blobs=blobs)
    async with trigger(tmp_path, on_disk) as one:
        await label_all(one, work)
        run = await the_run(one, "RUNNING")
    async with trigger(tmp_path, on_disk) as one:
        ended = await the_run(one, "SUCCEEDED")
        assert (ended["run_id"], ended["backend"], ended["promoted"]) == (run["run_id"], "kubernetes", True)
    assert jobs.created == [job_name(run["run_id"])]


@pytest.mark.parametrize("what", ["job", "pod"])
async def test_a_run_outlives_what_its_cluster_loses(
    tmp_path: Path, ports: Ports, blobs: FolderBlobs, jobs: Jobs, work: Work, choice: None, what: str
) -> None:
    lose: dict[str, Callable[[str], Any]] = {"job": jobs.delete, "pod": jobs.kill_pod}
    async with trigger(tmp_path, dataclasses.replace(ports, blobs=blobs)) as one:
        await label_all(one, work)
        name = await wait_until(lambda: next(iter(jobs.pods), None))
        await the_run(one, "RUNNING")
        if asyncio.iscoroutine(done := lose[what](name)):
            await done
        ended = await the_run(one, "SUCCEEDED")
        assert ended["promoted"]
        assert ended["metrics"]["candidate"]["accuracy"] == 1.0
    assert len(jobs.created) == (2 if what == "job" else 1)


async def test_a_run_that_is_cancelled_ends_its_job(
    tmp_path: Path, ports: Ports, blobs: FolderBlobs, jobs: Jobs, work: Work, choice: None
) -> None:
    async with trigger(tmp_path, dataclasses.replace(ports, blobs=blobs)) as one:
        await label_all(one, work)
        run = await the_run(one, "RUNNING")
        assert (await one.call("POST", f"/v1/runs/{run['run_id']}:cancel")).status_code == 202
        await the_run(one, "CANCELLED")
        assert jobs.jobs == {}
