"""A run's files on the machine that trains: everything that the trainer reads, and what it leaves."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from services.contracts.ids import sha256
from services.contracts.manifest import ModelManifest
from services.retrain_trigger.backends import BadOutcome, Job, ModelSource, Outcome, PoolSample, Work
from services.retrain_trigger.backends.contents import ContentGone, Contents
from services.retrain_trigger.snapshots import Row

LOG_LINES = 15
MODELS = "_models"  # the folder beside the projects' samples
LOGS = ("train.log", "output.log")


async def bring(work: Work, contents: Contents) -> dict[str, Any]:
    """Fetch what the run may know; returns the job that names it here. Raises ContentGone and Retry."""
    rows = (*work.snapshot.train, *work.snapshot.evaluation)
    failed = await contents.bring(work.project, [(row.sample_id, row.content.uri, row.content.sha256) for row in rows])
    if failed:
        raise ContentGone(f"{len(failed)} labelled samples cannot be read: {next(iter(failed.values()))}")
    pool = [(sample.sample_id, sample.uri, sample.sha256) for sample in work.unlabelled]
    gone = await contents.bring(work.project, pool)
    models = [model for model in (work.extractor, work.champion) if model]
    lost = await contents.bring(MODELS, [(m.manifest.sha256, m.uri, m.manifest.sha256) for m in models])
    if lost:
        raise next(iter(lost.values()))
    return _described(work, contents, [sample for sample in work.unlabelled if sample.sample_id not in gone])


def write_job(job: Mapping[str, Any], folder: Path) -> Path:
    """The job file of a run whose files shall lie in `folder`."""
    path = folder / "job.json"
    folder.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    draft.write_bytes(orjson.dumps({"out_dir": str(folder), **job}))
    draft.replace(path)
    return path


def result(folder: Path) -> Mapping[str, Any] | None:
    """What the trainer wrote last; while it is not there, the job is not over."""
    try:
        return orjson.loads((folder / "result.json").read_bytes())
    except FileNotFoundError:
        return None


def model(folder: Path) -> tuple[bytes, bytes]:
    """The ONNX file and its manifest. Raises OSError."""
    return (folder / "model.onnx").read_bytes(), (folder / "manifest.json").read_bytes()


def verified(model: bytes, described: bytes, result: Mapping[str, Any]) -> Outcome:
    """What was made, when it is what the trainer reported. Raises BadOutcome."""
    try:
        manifest = ModelManifest.model_validate_json(described)
    except ValidationError as error:
        raise BadOutcome(f"the model's manifest cannot be read: {error}") from error
    if not sha256(model) == manifest.sha256 == result.get("artefact_sha256"):
        raise BadOutcome("the model's bytes are not those that the trainer reported")
    return Outcome(model, manifest, result)


def ended(result: Mapping[str, Any]) -> Job:
    """How a job stands that has left this result, or this record."""
    if error := result.get("error"):
        return Job("failed", f"{error['code']}: {error['message']}")
    return Job("succeeded")


def said(folder: Path) -> str:
    """All that the trainer said."""
    parts = []
    for name in LOGS:
        with contextlib.suppress(FileNotFoundError):
            parts.append((folder / name).read_text(errors="replace"))
    return "".join(parts)


def last_lines(text: str) -> str:
    return "\n".join(text.splitlines()[-LOG_LINES:])[-4000:] or "it said nothing"


def _described(work: Work, contents: Contents, pool: list[PoolSample]) -> dict[str, Any]:
    def sample(sample_id: str, media_type: str) -> dict[str, Any]:
        path = contents.path(work.project, sample_id)
        return {"sample_id": sample_id, "path": str(path), "media_type": media_type}

    def labelled(row: Row, weight: bool) -> dict[str, Any]:
        more = {"label": row.label, **({"weight": row.weight} if weight else {})}
        return {**sample(row.sample_id, row.content.media_type), **more}

    def model(source: ModelSource) -> dict[str, Any]:
        path = contents.path(MODELS, source.manifest.sha256)
        return {"path": str(path), "manifest": source.manifest.model_dump(mode="json"), "version": source.version}

    return {
        "run_id": work.run_id,
        "task": work.task,
        "labels": list(work.snapshot.labels),
        "extractor": model(work.extractor),
        "champion": model(work.champion) if work.champion else None,
        "samples": [labelled(row, True) for row in work.snapshot.train],
        "evaluation": [labelled(row, False) for row in work.snapshot.evaluation],
        "unlabelled": [sample(one.sample_id, one.media_type) for one in pool],
        "params": dict(work.params),
    }
