"""How annotators fare: how much, how fast, how often like the others, and what suggestions do to them. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import sqrt
from statistics import median
from typing import Any

from services.label_queue.consensus import canonical
from services.label_queue.tasks import Answer, State, Task

Z = 1.959964  # the normal distribution's 97.5 % quantile


@dataclass
class _Record:
    answers: int = 0
    taken_back: int = 0
    changed: int = 0
    seconds: list[float] = field(default_factory=list)
    with_others: list[bool] = field(default_factory=list)
    shown: list[bool] = field(default_factory=list)
    blind: list[bool] = field(default_factory=list)
    last: str = ""


def summary(tasks: Iterable[Task], only: str | None = None) -> list[dict[str, Any]]:
    """One row for each annotator (or `only` one), the busiest first; shares are of answers that count."""
    records: dict[str, _Record] = {}
    for task in tasks:
        for answer in task.answers:
            if only in (None, answer.annotator):
                _note(records.setdefault(answer.annotator, _Record()), task, answer)
    rows = [_row(name, record) for name, record in records.items()]
    return sorted(rows, key=lambda row: (-row["answers"], row["annotator"]))


def _note(record: _Record, task: Task, answer: Answer) -> None:
    if answer.kind == "void":
        record.taken_back += 1
        later = [a for a in task.counted if a.annotator == answer.annotator and a.epoch > answer.epoch]
        record.changed += any(canonical(a.value) != canonical(answer.value) for a in later)
    if answer.kind != "counted":
        return
    record.answers += 1
    record.last = max(record.last, answer.at.isoformat())
    if answer.seconds is not None:
        record.seconds.append(answer.seconds)
    if task.state == State.ACCEPTED and (len(task.counted) > 1 or task.resolved_by):
        record.with_others.append(canonical(task.value) == canonical(answer.value))
    if task.prelabel and answer.suggestions:
        group = record.blind if answer.suggestions == "blind" else record.shown
        group.append(task.prelabel.label == answer.value)


def _row(name: str, record: _Record) -> dict[str, Any]:
    return {
        "annotator": name,
        "answers": record.answers,
        "taken_back": record.taken_back,
        "changed": record.changed,
        "median_seconds": round(median(record.seconds), 2) if record.seconds else None,
        "last_answer_at": record.last or None,
        "agreement": _share(record.with_others),
        "like_model_shown": _share(record.shown),
        "like_model_blind": _share(record.blind),
        "gap": gap(record.shown, record.blind),
    }


def _share(outcomes: Sequence[bool]) -> dict[str, Any]:
    """{n, share, low, high}: the share of yes with its 95 % interval (Wilson 1927), None of nothing."""
    if not outcomes:
        return {"n": 0, "share": None, "low": None, "high": None}
    low, high = wilson(sum(outcomes), len(outcomes))
    return {"n": len(outcomes), "share": sum(outcomes) / len(outcomes), "low": low, "high": high}


def wilson(yes: int, n: int) -> tuple[float, float]:
    """The 95 % score interval of a share of n >= 1."""
    p, zz = yes / n, Z * Z
    centre, half = p + zz / (2 * n), Z * sqrt(p * (1 - p) / n + zz / (4 * n * n))
    return max(0.0, (centre - half) / (1 + zz / n)), min(1.0, (centre + half) / (1 + zz / n))


def gap(shown: Sequence[bool], blind: Sequence[bool]) -> dict[str, Any] | None:
    """agreement(shown) - agreement(blind) with its 95 % interval (Newcombe 1998, method 10), None without both."""
    if not shown or not blind:
        return None
    p, q = sum(shown) / len(shown), sum(blind) / len(blind)
    (p_low, p_high), (q_low, q_high) = wilson(sum(shown), len(shown)), wilson(sum(blind), len(blind))
    low, high = sqrt((p - p_low) ** 2 + (q_high - q) ** 2), sqrt((p_high - p) ** 2 + (q - q_low) ** 2)
    return {"difference": p - q, "low": p - q - low, "high": p - q + high}
