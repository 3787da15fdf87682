"""The local training backend: a job file in; a model, its metrics and a log out. Runs as a process of its own.

    python -m services.retrain_trigger.trainer JOB.json
    python -m services.retrain_trigger.trainer --curve JOB.json

Into the job's out_dir go train.log, model.onnx, manifest.json and, last, result.json: where that exists, the run is
over and the other files are whole. Exit codes: 0 done, 2 the job is not readable, 3 it can never make a model
(result.json then holds `error`). The same job gives the same bytes of model.onnx.
"""

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from services.contracts.preprocessing import UnreadableSample
from services.contracts.tasks import answer_of
from services.retrain_trigger import domain, heads
from services.retrain_trigger.evaluation import evaluation_sha256
from services.retrain_trigger.heads import Examples, NotTrainable
from services.retrain_trigger.jobs import CurveJob, Job
from services.retrain_trigger.judging import NotJudged, many, metrics, summary
from services.retrain_trigger.label_sets import jaccard
from services.retrain_trigger.multi_label import LabelledSets, MultiLabelHead, fit_sets
from services.retrain_trigger.onnx_models import Model, WrongArtefact, tensors

EXIT_DONE, EXIT_BAD_JOB, EXIT_NOT_TRAINABLE = 0, 2, 3
LARGEST_DIFFERENCE = 1e-4
"""Most that a probability of the exported model may differ from scikit-learn's."""

NO_DETECTORS = (
    "the bundled trainer makes no detectors: set HALFSURE_RETRAIN_TRIGGER_BACKEND=command and a command that does, "
    "such as examples/detector/train.py (docs/training.md)"
)

log = logging.getLogger("trainer")


class BrokenExport(RuntimeError):
    """The exported model does not answer as the fitted one; never to be served."""


def main(arguments: list[str] | None = None) -> int:
    """Run one job file; the exit code says how it ended."""
    parser = argparse.ArgumentParser(prog="trainer", description="Train a model from a job file.")
    parser.add_argument("job", type=Path)
    parser.add_argument("--curve", action="store_true", help="only print accuracies over given subsets")
    options = parser.parse_args(arguments)
    try:
        content = options.job.read_bytes()
        job = CurveJob.model_validate_json(content) if options.curve else Job.model_validate_json(content)
    except (OSError, ValidationError) as error:
        print(f"the job {options.job} is not readable: {error}", file=sys.stderr)
        return EXIT_BAD_JOB
    if isinstance(job, CurveJob):
        print(json.dumps(curve(job)))
        return EXIT_DONE
    return _run(job)


def _run(job: Job) -> int:
    job.out_dir.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(job.out_dir / "train.log", mode="w", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        result = train(job)
        code = EXIT_DONE
    except tuple(_CODES) as error:
        log.error("%s: %s", type(error).__name__, error)
        result = {"run_id": job.run_id, "error": {"code": _CODES[type(error)], "message": str(error)}}
        code = EXIT_NOT_TRAINABLE
    except Exception:
        log.exception("the run failed")
        raise
    finally:
        log.removeHandler(handler)
        handler.close()
    _write(job.out_dir / "result.json", _json(result))
    return code


_CODES = {
    NotTrainable: "not-trainable",
    NotJudged: "not-judged",
    UnreadableSample: "unreadable-sample",
    WrongArtefact: "wrong-artefact",
    BrokenExport: "broken-export",
}


def train(job: Job) -> dict[str, Any]:
    """Fit, export, check and judge; writes model.onnx and manifest.json, returns what result.json says."""
    started = time.perf_counter()
    log.info("run %s: %d labelled, %d unlabelled, %d for evaluation", job.run_id, len(job.samples),
             len(job.unlabelled), len(job.evaluation))  # fmt: skip
    if answer_of(job.task) == "detection":
        raise NotTrainable(NO_DETECTORS)
    extractor = Model.at(job.extractor)
    batch = tensors(job.samples, extractor.manifest)
    if not len(batch):
        raise NotTrainable("training needs samples of at least two labels, there are none")
    embeddings = extractor.run(batch)["embedding"]
    head, unlabelled = _fitted(job, extractor, embeddings)
    log.info("fitted %s on %d classes, temperature %.2f, after %.2f s: %s", head.kind, head.learnt,
             head.temperature, _since(started), head.checked)  # fmt: skip
    from services.retrain_trigger.export import merged

    near = domain.known(embeddings)
    parts = (extractor.content, extractor.manifest, head, job.labels)
    candidate = Model(*merged(*parts, near))
    if near is not None and not domain.faithful(candidate.run(batch)["ood"], embeddings, near):
        log.warning("float32 is too coarse for distances in this space: the model says no ood")
        candidate = Model(*merged(*parts))
    difference = _check_export(candidate, head, embeddings, batch)
    log.info("exported %d bytes, differing by %.1e at most, after %.2f s", len(candidate.content), difference,
             _since(started))  # fmt: skip
    found = metrics(job, candidate, head.temperature)
    manifest = candidate.manifest.model_copy(update={"metrics": summary(found)})
    _write(job.out_dir / "model.onnx", candidate.content)
    _write(job.out_dir / "manifest.json", manifest.model_dump_json(indent=1).encode())
    log.info("done after %.2f s: %s", _since(started), manifest.metrics)
    return {
        "run_id": job.run_id,
        "metrics": found,
        "evaluation_sha256": evaluation_sha256(job.evaluation),
        "artefact_sha256": manifest.sha256,
        "export_difference": difference,
        "head": {"kind": head.kind, "temperature": head.temperature, "checked": head.checked},
        "counts": {"labelled": len(job.samples), "unlabelled": unlabelled},
        "seconds": round(_since(started), 3),
    }


def curve(job: CurveJob) -> dict[str, Any]:
    """{baseline: [{labels, accuracy | None}], full_supervised_accuracy}: the same fit on subsets, judged on `test`.

    The subsets are given nested lists of sample ids; an accuracy is None where a subset cannot be trained on; for
    several labels it is the mean Jaccard index. What a subset leaves out of `samples` is its unlabelled pool, as it
    would be in the loop.
    """
    extractor = Model.at(job.extractor)
    embeddings = extractor.run(tensors(job.samples, extractor.manifest))["embedding"]
    test = extractor.run(tensors(job.test, extractor.manifest))["embedding"]
    place = {sample.sample_id: index for index, sample in enumerate(job.samples)}
    answers, truth = (_truth([sample.label for sample in part], job) for part in (job.samples, job.test))
    params = job.params.model_copy(update={"calibrate": False})  # only the answer counts here

    def accuracy(chosen: np.ndarray) -> float | None:
        weights = np.ones(len(chosen))
        try:
            if answers.ndim == 2:
                head = fit_sets(LabelledSets(embeddings[chosen], answers[chosen], weights), params)
                return float(jaccard(truth, head.logits(test) >= 0).mean())
            rest = np.setdiff1d(np.arange(len(answers)), chosen)
            examples = Examples(embeddings[chosen], answers[chosen], weights, embeddings[rest])
            return float(np.mean(heads.fit(examples, params).model.predict(test) == truth))
        except NotTrainable:
            return None

    rows = [
        {"labels": subset.labels, "accuracy": accuracy(np.array([place[i] for i in subset.ids], np.int64))}
        for subset in job.subsets
    ]
    return {"baseline": rows, "full_supervised_accuracy": accuracy(np.arange(len(answers)))}


Head = heads.Head | MultiLabelHead


def _fitted(job: Job, extractor: Model, embeddings: np.ndarray) -> tuple[Head, int]:
    """The head for the job's task, and how many unlabelled samples it has learnt from."""
    answers = [sample.label for sample in job.samples]
    weights = np.array([sample.weight for sample in job.samples])
    if answer_of(job.task) == "multi-label":
        sets = many(answers, job.labels)
        return fit_sets(LabelledSets(embeddings, sets, weights, _drawn(job, extractor)), job.params), 0
    unlabelled = np.empty((0, embeddings.shape[1]), np.float32)
    if job.params.head != "logistic" and job.unlabelled:
        unlabelled = extractor.run(tensors(job.unlabelled, extractor.manifest))["embedding"]
    examples = Examples(embeddings, _places(answers, job), weights, unlabelled, _drawn(job, extractor))
    return heads.fit(examples, job.params), len(unlabelled)


def _drawn(job: Job, extractor: Model) -> tuple[np.ndarray, np.ndarray] | None:
    """The pinned set: a temperature changes no answer, so the gate judges as it would without."""
    if not job.evaluation:
        return None
    embeddings = extractor.run(tensors(job.evaluation, extractor.manifest))["embedding"]
    return embeddings, _truth([sample.label for sample in job.evaluation], job)


def _truth(answers: Sequence[Any], job: Job | CurveJob) -> np.ndarray:
    return many(answers, job.labels) if answer_of(job.task) == "multi-label" else _places(answers, job)


def _places(answers: Sequence[Any], job: Job | CurveJob) -> np.ndarray:
    return np.array([job.labels.index(answer) for answer in answers], np.int64)


def _check_export(candidate: Model, head: Head, embeddings: np.ndarray, batch: np.ndarray) -> float:
    """Largest difference of a probability between the exported model and scikit-learn. Raises BrokenExport."""
    expected = head.probabilities(embeddings, len(candidate.manifest.labels))
    difference = float(np.abs(candidate.run(batch)["probabilities"] - expected).max())
    if not difference < LARGEST_DIFFERENCE:
        raise BrokenExport(f"the exported model differs by {difference:.2e} from the fitted one")
    return difference


def _since(started: float) -> float:
    return time.perf_counter() - started


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False).encode()


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all: a temporary name beside it, then a rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main())
