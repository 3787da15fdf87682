"""What a model says of one sample, as SampleScored has it. Pure."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from services.contracts.events import Detection, Top
from services.contracts.manifest import ModelManifest
from services.contracts.values import checked
from services.infer.batching import Predictions


def answer(manifest: ModelManifest, result: Predictions, row: int) -> dict[str, Any]:
    """The labels, their probabilities or the boxes found, what comes first, and the scores, of one row.

    `top.confidence` is of the whole answer: of several labels the least sure one's, of boxes the least sure box's, and
    without boxes how sure it is that there is nothing.
    """
    assert result.confidence is not None
    sure = round(float(result.confidence[row]), 7)
    said: dict[str, Any] = {
        "labels": manifest.labels,
        "scores": {name: round(float(values[row]), 7) for name, values in result.scores.items()},
    }
    if result.probabilities is None:
        boxes = result.boxes[row]
        return {**said, "detections": boxes, "top": _boxes(manifest, boxes, sure)}
    p = result.probabilities[row]
    label = manifest.labels[int(np.argmax(p))]
    value = None
    if manifest.answer == "multi-label":
        value = [name for name, one in zip(manifest.labels, p, strict=True) if one >= manifest.thresholds.confidence]
    return {
        **said,
        "probabilities": [round(float(one), 7) for one in p],
        "top": Top(label=label, confidence=sure, value=value),
    }


def _boxes(manifest: ModelManifest, boxes: Sequence[Detection], sure: float) -> Top:
    told = {"boxes": [box.model_dump(exclude={"confidence"}) for box in boxes]}
    value = checked(told, manifest.task, manifest.labels)
    return Top(label=boxes[0].label if boxes else "", confidence=sure, value=value)
