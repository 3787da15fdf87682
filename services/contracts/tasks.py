"""Tasks: which kind of sample is asked about, and which kind of answer is given. Pure."""

from typing import Literal

Task = Literal[
    "image-classification",
    "image-multi-label",
    "image-detection",
    "tabular-classification",
    "tabular-multi-label",
    "text-classification",
    "text-multi-label",
    "series-classification",
    "series-multi-label",
]
Kind = Literal["image", "tabular", "text", "series"]
Answer = Literal["classification", "multi-label", "detection"]

_KINDS: dict[str, Kind] = {"image": "image", "tabular": "tabular", "text": "text", "series": "series"}
_ANSWERS: dict[str, Answer] = {
    "classification": "classification",
    "multi-label": "multi-label",
    "detection": "detection",
}


def kind_of(task: str) -> Kind:
    """What the samples are. Raises KeyError for what is no task."""
    return _KINDS[task.partition("-")[0]]


def answer_of(task: str) -> Answer:
    """What is asked: one label, any number of labels, or boxes with a label each. Raises KeyError."""
    return _ANSWERS[task.partition("-")[2]]
