"""The local training backend: a job file in; a model, its metrics and a log out. Runs as a process of its own.

    python -m services.retrain_trigger.trainer JOB.json
    python -m services.retrain_trigger.trainer --curve JOB.json

Into the job's out_dir go train.log, model.onnx, manifest.json and, last, result.json: where that exists, the run is
over and the other files are whole. Exit codes: 0 done, 2 the job is not readable, 3 it can never make a model
(result.json then holds `error`). The same job gives the same bytes of model.onnx.
"""

import argparse
import hashlib
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from services.contracts.manifest import ModelManifest
from services.contracts.preprocessing import UnreadableSample, decode
from services.retrain_trigger.calibration import calibration_error, cross_fitted, softmax
from services.retrain_trigger.evaluation import compared, scored
from services.retrain_trigger.heads import Examples, NotTrainable, fit
from services.retrain_trigger.jobs import CurveJob, Job, LabelledRef, ModelRef, SampleRef

EXIT_DONE, EXIT_BAD_JOB, EXIT_NOT_TRAINABLE = 0, 2, 3
BATCH = 64
LARGEST_DIFFERENCE = 1e-4
"""Most that a probability of the exported model may differ from scikit-learn's."""

log = logging.getLogger("trainer")


class WrongArtefact(ValueError):
    """A model file is not the one that its manifest describes."""


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
    except (NotTrainable, UnreadableSample, WrongArtefact, BrokenExport) as error:
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
    UnreadableSample: "unreadable-sample",
    WrongArtefact: "wrong-artefact",
    BrokenExport: "broken-export",
}


def train(job: Job) -> dict[str, Any]:
    """Fit, export, check and judge; writes model.onnx and manifest.json, returns what result.json says."""
    started = time.perf_counter()
    log.info("run %s: %d labelled, %d unlabelled, %d for evaluation", job.run_id, len(job.samples),
             len(job.unlabelled), len(job.evaluation))  # fmt: skip
    extractor = _Model(job.extractor)
    tensors = _tensors(job.samples, extractor.manifest)
    examples = _examples(job, extractor, tensors)
    head = fit(examples, job.params)
    log.info("fitted %s on %d classes, temperature %.2f, after %.2f s: %s", head.kind, len(head.model.classes_),
             head.temperature, _since(started), head.checked)  # fmt: skip
    from services.retrain_trigger.export import merged

    content, manifest = merged(extractor.content, extractor.manifest, head.model, job.labels)
    candidate = _Model.of(content, manifest)
    difference = _check_export(candidate, head.model, examples.embeddings, tensors)
    log.info("exported %d bytes, differing by %.1e at most, after %.2f s", len(content), difference, _since(started))
    metrics = _metrics(job, candidate, head.temperature)
    manifest = manifest.model_copy(update={"metrics": _summary(metrics)})
    _write(job.out_dir / "model.onnx", content)
    _write(job.out_dir / "manifest.json", manifest.model_dump_json(indent=1).encode())
    log.info("done after %.2f s: %s", _since(started), manifest.metrics)
    return {
        "run_id": job.run_id,
        "metrics": metrics,
        "evaluation_sha256": evaluation_sha256(job.evaluation),
        "artefact_sha256": manifest.sha256,
        "export_difference": difference,
        "head": {"kind": head.kind, "temperature": head.temperature, "checked": head.checked},
        "counts": {"labelled": len(job.samples), "unlabelled": len(examples.unlabelled)},
        "seconds": round(_since(started), 3),
    }


def curve(job: CurveJob) -> dict[str, Any]:
    """{baseline: [{labels, accuracy | None}], full_supervised_accuracy}: the same fit on subsets, judged on `test`.

    The subsets are given nested lists of sample ids; an accuracy is None where a subset cannot be trained on. What a
    subset leaves out of `samples` is its unlabelled pool, as it would be in the loop.
    """
    extractor = _Model(job.extractor)
    embeddings = extractor.run(_tensors(job.samples, extractor.manifest))["embedding"]
    test = extractor.run(_tensors(job.test, extractor.manifest))["embedding"]
    place = {sample.sample_id: index for index, sample in enumerate(job.samples)}
    classes = np.array([job.labels.index(sample.label) for sample in job.samples])
    truth = np.array([job.labels.index(sample.label) for sample in job.test])

    params = job.params.model_copy(update={"calibrate": False})  # only the likeliest label counts here

    def accuracy(chosen: np.ndarray) -> float | None:
        rest = np.setdiff1d(np.arange(len(classes)), chosen)
        examples = Examples(embeddings[chosen], classes[chosen], np.ones(len(chosen)), embeddings[rest])
        try:
            return float(np.mean(fit(examples, params).model.predict(test) == truth))
        except NotTrainable:
            return None

    rows = [
        {"labels": subset.labels, "accuracy": accuracy(np.array([place[i] for i in subset.ids], np.int64))}
        for subset in job.subsets
    ]
    return {"baseline": rows, "full_supervised_accuracy": accuracy(np.arange(len(classes)))}


def evaluation_sha256(evaluation: tuple[LabelledRef, ...]) -> str:
    """The hash that pins an evaluation set: of its sample ids and labels, whatever their order."""
    lines = sorted(f"{sample.sample_id}\t{sample.label}" for sample in evaluation)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


class _Model:
    """An ONNX model with its manifest, run on one thread so that sums do not depend on the machine."""

    def __init__(self, ref: ModelRef) -> None:
        self._open(ref.path.read_bytes(), ref.manifest)

    @classmethod
    def of(cls, content: bytes, manifest: ModelManifest) -> "_Model":
        model = cls.__new__(cls)
        model._open(content, manifest)
        return model

    def _open(self, content: bytes, manifest: ModelManifest) -> None:
        import onnxruntime

        found = hashlib.sha256(content).hexdigest()
        if found != manifest.sha256:
            raise WrongArtefact(f"a model has sha256 {found}, its manifest says {manifest.sha256}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.content, self.manifest = content, manifest
        self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(self, tensors: np.ndarray) -> dict[str, np.ndarray]:
        """role -> output for (N, ...) inputs, in batches."""
        roles = {role: name for role, name in self.manifest.outputs.model_dump().items() if name}
        parts = [
            self.session.run(list(roles.values()), {self.manifest.input.name: tensors[start : start + BATCH]})
            for start in range(0, len(tensors), BATCH)
        ]
        return {role: np.concatenate(columns) for role, columns in zip(roles, zip(*parts, strict=True), strict=True)}

    def answers(self, refs: tuple[LabelledRef, ...]) -> list[str]:
        """The label of the highest probability for each sample."""
        best = self.run(_tensors(refs, self.manifest))["probabilities"].argmax(axis=1)
        return [self.manifest.labels[index] for index in best]


def _tensors(refs: tuple[SampleRef, ...], manifest: ModelManifest) -> np.ndarray:
    """(N, ...) float32. Raises UnreadableSample naming the sample."""
    tensors = np.empty((len(refs), *manifest.input.sample_shape), np.float32)
    for index, ref in enumerate(refs):
        try:
            tensors[index] = decode(ref.path.read_bytes(), ref.media_type, manifest.input)
        except (UnreadableSample, FileNotFoundError) as error:
            raise UnreadableSample(f"sample {ref.sample_id}: {error}") from error
    return tensors


def _examples(job: Job, extractor: _Model, tensors: np.ndarray) -> Examples:
    if not job.samples:
        raise NotTrainable("training needs samples of at least two labels, there are none")
    embeddings = extractor.run(tensors)["embedding"]
    unlabelled = np.empty((0, embeddings.shape[1]), np.float32)
    if job.params.head != "logistic" and job.unlabelled:
        unlabelled = extractor.run(_tensors(job.unlabelled, extractor.manifest))["embedding"]
    classes = np.array([job.labels.index(sample.label) for sample in job.samples])
    weights = np.array([sample.weight for sample in job.samples])
    return Examples(embeddings, classes, weights, unlabelled, _drawn(job, extractor))


def _drawn(job: Job, extractor: _Model) -> tuple[np.ndarray, np.ndarray] | None:
    """The pinned set: a temperature changes no answer, so the gate judges as it would without."""
    if not job.evaluation:
        return None
    embeddings = extractor.run(_tensors(job.evaluation, extractor.manifest))["embedding"]
    return embeddings, np.array([job.labels.index(sample.label) for sample in job.evaluation])


def _check_export(candidate: _Model, head: Any, embeddings: np.ndarray, tensors: np.ndarray) -> float:
    """Largest difference of a probability between the exported model and scikit-learn. Raises BrokenExport."""
    expected = np.zeros((len(tensors), len(candidate.manifest.labels)))
    expected[:, head.classes_] = head.predict_proba(embeddings.astype(np.float64))
    difference = float(np.abs(candidate.run(tensors)["probabilities"] - expected).max())
    if not difference < LARGEST_DIFFERENCE:
        raise BrokenExport(f"the exported model differs by {difference:.2e} from the fitted one")
    return difference


def _metrics(job: Job, candidate: _Model, temperature: float | None = None) -> dict[str, Any] | None:
    """Both models on the pinned set, from their ONNX; None where the set is empty. `temperature`: if it is known."""
    if not job.evaluation:
        return None
    truth = [sample.label for sample in job.evaluation]
    probabilities = candidate.run(_tensors(job.evaluation, candidate.manifest))["probabilities"]
    new = [candidate.manifest.labels[index] for index in probabilities.argmax(axis=1)]
    if job.champion is None:
        metrics = {"candidate": scored(truth, new, job.labels), "champion": None, "paired": None}
    else:
        metrics = compared(truth, new, _Model(job.champion).answers(job.evaluation), job.labels)
    classes = np.array([job.labels.index(label) for label in truth])
    calibration = metrics["candidate"]["calibration"] = {"error": calibration_error(probabilities, classes)}
    if temperature is not None:
        # What the head said before its logits were divided by the temperature.
        raw = np.log(np.maximum(probabilities, 1e-12)) * temperature
        calibration["temperature"] = temperature
        calibration["error_before"] = calibration_error(softmax(raw), classes)
        calibration["error"] = calibration_error(cross_fitted(raw, classes), classes)
    return metrics


def judged(job: Job, content: bytes, manifest: ModelManifest) -> dict[str, Any] | None:
    """The metrics of any model beside the job's champion. Raises WrongArtefact and UnreadableSample."""
    return _metrics(job, _Model.of(content, manifest))


def _summary(metrics: dict[str, Any] | None) -> dict[str, Any]:
    if metrics is None:
        return {}
    new = metrics["candidate"]
    return {"accuracy": new["accuracy"], "calibration_error": new["calibration"]["error"]}


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
