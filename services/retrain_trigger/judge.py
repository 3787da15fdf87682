"""Judges a model that somebody else's code has trained: on the pinned set, beside the champion, as every other one.

    python -m services.retrain_trigger.judge JOB.json

Beside the job lie model.onnx and manifest.json. Of the manifest only `outputs` is needed: labels and input are
the job's where it names none, and the hash and the opset are read from the model. Leaves the whole manifest, and
result.json last. Exit codes: 0 done, 2 the job is not readable, 3 the model can never be taken (result.json says why).
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from services.contracts.ids import sha256
from services.contracts.manifest import ModelManifest
from services.contracts.preprocessing import UnreadableSample
from services.retrain_trigger.evaluation import evaluation_sha256
from services.retrain_trigger.jobs import Job
from services.retrain_trigger.judging import NotJudged, judged, summary
from services.retrain_trigger.loadable import unloadable
from services.retrain_trigger.onnx_models import WrongArtefact
from services.retrain_trigger.trainer import EXIT_BAD_JOB, EXIT_DONE, EXIT_NOT_TRAINABLE


class NotTaken(Exception):
    """What the training has left is no model for this job."""


REFUSED = (NotTaken, NotJudged, WrongArtefact, UnreadableSample)


def main(arguments: list[str]) -> int:
    path = Path(arguments[0])
    folder = path.parent
    try:
        job = Job.model_validate_json(path.read_bytes())
        os.chdir(folder)  # the job's paths are relative to it
    except (OSError, ValidationError) as error:
        print(f"the job {path} is not readable: {error}", file=sys.stderr)
        return EXIT_BAD_JOB
    if (folder / "result.json").exists():  # the command itself has given up, and says why
        return EXIT_NOT_TRAINABLE
    try:
        result, code = judge(job, folder), EXIT_DONE
    except REFUSED as error:
        print(error, file=sys.stderr)
        code = EXIT_NOT_TRAINABLE
        result = {"run_id": job.run_id, "error": {"code": "not-taken", "message": str(error)}}
    draft = folder / ".result.json.draft"
    draft.write_bytes(orjson.dumps(result))
    draft.replace(folder / "result.json")
    return code


def judge(job: Job, folder: Path) -> dict[str, Any]:
    """What result.json says; writes the whole manifest. Raises those of REFUSED."""
    started = time.perf_counter()
    content, manifest = _made(job, folder)
    if fault := unloadable(content, manifest):
        raise NotTaken(f"model.onnx: {fault}")
    metrics = judged(job, content, manifest)
    manifest = manifest.model_copy(update={"metrics": summary(metrics)})
    (folder / "manifest.json").write_text(manifest.model_dump_json(indent=1))
    return {
        "run_id": job.run_id,
        "metrics": metrics,
        "evaluation_sha256": evaluation_sha256(job.evaluation),
        "artefact_sha256": manifest.sha256,
        "counts": {"labelled": len(job.samples), "unlabelled": len(job.unlabelled)},
        "seconds": round(time.perf_counter() - started, 3),
    }


def _made(job: Job, folder: Path) -> tuple[bytes, ModelManifest]:
    try:
        content = (folder / "model.onnx").read_bytes()
        said = json.loads((folder / "manifest.json").read_bytes())
    except (OSError, ValueError) as error:
        raise NotTaken(f"the training has to leave model.onnx and manifest.json: {error}") from error
    if not isinstance(said, dict):
        raise NotTaken("manifest.json is not an object")
    base = {
        "task": job.task,
        "labels": job.labels,
        "input": job.extractor.manifest.input.model_dump(mode="json"),
        "opset": _opset(content),
        "sha256": sha256(content),
    }
    try:
        manifest = ModelManifest.model_validate({**base, **said})
    except ValidationError as error:
        fault = error.errors()[0]
        raise NotTaken(f"manifest.json/{'/'.join(map(str, fault['loc']))}: {fault['msg']}") from error
    if sorted(manifest.labels) != sorted(job.labels):
        raise NotTaken(f"manifest.json/labels: the project's are {', '.join(job.labels)}")
    if manifest.outputs.probabilities is None:
        raise NotTaken("manifest.json/outputs/probabilities: a model gives a probability for each label")
    return content, manifest


def _opset(content: bytes) -> int:
    import onnx

    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's errors share no base class
        raise NotTaken(f"model.onnx is no ONNX file: {error}") from error
    return next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
