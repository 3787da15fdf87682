"""What a gate judges by: accuracy, recall by class and confusions of models on one evaluation set. Pure."""

from collections import Counter
from collections.abc import Sequence
from typing import Any


def scored(truth: Sequence[str], answers: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
    """{accuracy, per_class: {label: {n, recall | None}}, confusion: {true: {answered: n}}} of N >= 1 answers."""
    pairs = Counter(zip(truth, answers, strict=True))
    sizes = Counter(truth)
    right = {label: pairs[label, label] for label in sizes}
    confusion: dict[str, dict[str, int]] = {}
    for (true, answered), count in sorted(pairs.items()):
        confusion.setdefault(true, {})[answered] = count
    return {
        "accuracy": sum(right.values()) / len(truth),
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
