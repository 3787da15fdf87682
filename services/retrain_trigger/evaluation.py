"""What a gate judges classifiers by: accuracy, recall by class and confusions on one evaluation set. Pure.

`label_sets.py` and `average_precision.py` are the same for the other kinds of tasks. What they report names the metric
that the gate goes by.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

METRIC = "accuracy"


def metric_of(scored: Mapping[str, Any]) -> str:
    """The name of a report's main metric; one that names none is of a classifier."""
    return scored.get("metric", METRIC)


def main_value(scored: Mapping[str, Any]) -> float:
    """The value of a report's main metric."""
    return scored[metric_of(scored)]


class Judging(Protocol):
    """A sample with the answer that models are judged by."""

    @property
    def sample_id(self) -> str: ...

    @property
    def label(self) -> Any: ...


def evaluation_sha256(rows: Iterable[Judging]) -> str:
    """The hash that pins an evaluation set: of its sample ids and answers, whatever their order."""
    lines = sorted(f"{row.sample_id}\t{_line(row.label)}" for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _line(label: Any) -> str:
    return label if isinstance(label, str) else json.dumps(label, sort_keys=True)


def scored(truth: Sequence[str], answers: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
    """{metric, n, accuracy, per_class: {label: {n, recall | None}}, confusion: {true: {answered: n}}}, N >= 1."""
    pairs = Counter(zip(truth, answers, strict=True))
    sizes = Counter(truth)
    right = {label: pairs[label, label] for label in sizes}
    confusion: dict[str, dict[str, int]] = {}
    for (true, answered), count in sorted(pairs.items()):
        confusion.setdefault(true, {})[answered] = count
    return {
        "metric": METRIC,
        "n": len(truth),
        METRIC: sum(right.values()) / len(truth),
        "per_class": {
            label: {"n": sizes[label], "recall": right[label] / sizes[label] if sizes[label] else None}
            for label in labels
        },
        "confusion": confusion,
    }


def compared(
    truth: Sequence[str], candidate: Sequence[str], champion: Sequence[str], labels: Sequence[str]
) -> dict[str, Any]:
    """{candidate, champion, paired} of two models' answers to the same samples; paired also by class."""
    new = [answer == label for answer, label in zip(candidate, truth, strict=True)]
    old = [answer == label for answer, label in zip(champion, truth, strict=True)]
    outcomes = Counter(zip(truth, new, old, strict=True))
    rows = {label: _paired([outcomes[label, a, b] for a, b in _CASES]) for label in labels}
    return {
        "candidate": scored(truth, candidate, labels),
        "champion": scored(truth, champion, labels),
        "paired": {
            **_paired([sum(outcomes[label, a, b] for label in labels) for a, b in _CASES]),
            "per_class": rows,
        },
    }


_CASES = ((True, False), (False, True), (True, True), (False, False))


def _paired(counts: Sequence[int]) -> dict[str, int]:
    only_candidate, only_champion, both, neither = counts
    return {
        "n": sum(counts),
        "candidate_only_correct": only_candidate,
        "champion_only_correct": only_champion,
        "both": both,
        "neither": neither,
    }
