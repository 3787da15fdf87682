"""Models on a job's pinned evaluation set: candidate's and champion's numbers, and how sure their difference is."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from services.contracts.detection import Found, found
from services.contracts.manifest import ModelManifest, Thresholds
from services.contracts.tasks import answer_of
from services.contracts.values import classes_of
from services.retrain_trigger import average_precision, evaluation, label_sets
from services.retrain_trigger.average_precision import Answer, Truth
from services.retrain_trigger.calibration import calibration_error, cross_fitted, of_each, softmax
from services.retrain_trigger.jobs import Job
from services.retrain_trigger.onnx_models import Model, tensors

FAINTEST = 0.01
"""Confidence from which a box counts for average precision, whatever the model's own threshold is."""


class NotJudged(ValueError):
    """The evaluation set says nothing about models like these."""


def judged(job: Job, content: bytes, manifest: ModelManifest) -> dict[str, Any] | None:
    """The metrics of any model beside the job's champion. Raises WrongArtefact, UnreadableSample and NotJudged."""
    return metrics(job, Model(content, manifest))


def metrics(job: Job, candidate: Model, temperature: float | None = None) -> dict[str, Any] | None:
    """Both models, from their ONNX; None where the set is empty. `temperature`: of the candidate, if it is known."""
    if not job.evaluation:
        return None
    champion = Model.at(job.champion) if job.champion else None
    match answer_of(job.task):
        case "classification":
            return _classification(job, candidate, champion, temperature)
        case "multi-label":
            return _multi_label(job, candidate, champion, temperature)
        case "detection":
            return _detection(job, candidate, champion)


def summary(found: dict[str, Any] | None) -> dict[str, Any]:
    """The numbers of the candidate that a manifest says of its model."""
    if found is None:
        return {}
    new = found["candidate"]
    numbers = {name: value for name, value in new.items() if isinstance(value, float)}
    if "calibration" in new:
        numbers["calibration_error"] = new["calibration"]["error"]
    return numbers


def _classification(job: Job, candidate: Model, champion: Model | None, temperature: float | None) -> dict[str, Any]:
    truth = [str(sample.label) for sample in job.evaluation]
    probabilities = _said(job, candidate)
    new = _likeliest(probabilities, job.labels)
    if champion is None:
        result = _alone(evaluation.scored(truth, new, job.labels))
    else:
        result = evaluation.compared(truth, new, _likeliest(_said(job, champion), job.labels), job.labels)
    classes = np.array([job.labels.index(label) for label in truth])
    result["candidate"]["calibration"] = _calibration(probabilities, classes, temperature)
    return result


def _multi_label(job: Job, candidate: Model, champion: Model | None, temperature: float | None) -> dict[str, Any]:
    truth = many([sample.label for sample in job.evaluation], job.labels)
    probabilities = _said(job, candidate)
    new = probabilities >= candidate.manifest.thresholds.confidence
    if champion is None:
        result = _alone(label_sets.scored(truth, new, job.labels))
    else:
        old = _said(job, champion) >= champion.manifest.thresholds.confidence
        result = label_sets.compared(truth, new, old, job.labels)
    each = of_each(probabilities)
    result["candidate"]["calibration"] = _calibration(each, truth.ravel().astype(np.int64), temperature)
    return result


def _detection(job: Job, candidate: Model, champion: Model | None) -> dict[str, Any]:
    truth = _true_boxes([sample.label for sample in job.evaluation], job.labels)
    if not len(truth.owners):
        raise NotJudged("no picture of the evaluation set has a box, so there is no average precision")
    new = _boxes(job, candidate)
    if champion is None:
        return _alone(average_precision.scored(truth, new, job.labels))
    return average_precision.compared(truth, new, _boxes(job, champion), job.labels)


def many(values: Sequence[Any], labels: Sequence[str]) -> np.ndarray:
    """(N, C) booleans: which of the labels each value names."""
    named = [set(classes_of(value)) for value in values]
    return np.array([[label in one for label in labels] for one in named], bool).reshape(-1, len(labels))


def _alone(scored: dict[str, Any]) -> dict[str, Any]:
    return {"candidate": scored, "champion": None, "paired": None}


def _said(job: Job, model: Model) -> np.ndarray:
    return model.probabilities(tensors(job.evaluation, model.manifest), job.labels)


def _likeliest(probabilities: np.ndarray, labels: Sequence[str]) -> list[str]:
    return [labels[int(place)] for place in probabilities.argmax(axis=1)]


def _boxes(job: Job, model: Model) -> Answer:
    """All that the model is in the least sure of, its own overlap being what it takes for one thing."""
    said = model.manifest.thresholds
    faint = Thresholds(confidence=min(FAINTEST, said.confidence), overlap=said.overlap)
    outputs = model.run(tensors(job.evaluation, model.manifest))
    boxes = found(outputs["boxes"], outputs["probabilities"], faint)
    places = np.array([job.labels.index(label) if label in job.labels else -1 for label in model.manifest.labels])
    labels = places[boxes.labels]
    kept = labels >= 0
    return Answer(Found(boxes.owners[kept], labels[kept], boxes.confidences[kept], boxes.sides[kept]), said.confidence)


def _true_boxes(values: Sequence[Any], labels: Sequence[str]) -> Truth:
    rows = [(owner, box) for owner, value in enumerate(values) for box in value["boxes"]]
    sides = [(box["x"], box["y"], box["width"], box["height"]) for _, box in rows]
    return Truth(
        samples=len(values),
        owners=np.array([owner for owner, _ in rows], np.int64),
        labels=np.array([labels.index(box["label"]) for _, box in rows], np.int64),
        sides=np.array(sides, np.float64).reshape(-1, 4),
    )


def _calibration(probabilities: np.ndarray, classes: np.ndarray, temperature: float | None) -> dict[str, float]:
    """How far (N, C) probabilities are off; with a temperature also before it, the error being cross-fitted."""
    if temperature is None:
        return {"error": calibration_error(probabilities, classes)}
    # What the head said before its logits were divided by the temperature.
    raw = np.log(np.maximum(probabilities, 1e-12)) * temperature
    return {
        "error": calibration_error(cross_fitted(raw, classes), classes),
        "temperature": temperature,
        "error_before": calibration_error(softmax(raw), classes),
    }
