"""The retrain rule: whether a model is to be trained now, why, and what is missing if not. Pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from services.contracts.events import TrainingReason
from services.contracts.projects import TriggerRule


@dataclass(frozen=True)
class Audits:
    """Audit labels of what one model version was sure of, and how many of them contradict it."""

    errors: int = 0
    total: int = 0


@dataclass(frozen=True)
class Counters:
    """What has happened to a project's labels: `new` and `retracted` since the last snapshot, the rest in all."""

    new: int = 0
    retracted: int = 0
    per_class: Mapping[str, int] = field(default_factory=dict)  # labels to train on, every class of the schema named
    fewest_classes: int = 2  # that have to have some, whatever the rule says
    evaluation: int = 0
    audit_errors: int = 0
    audit_total: int = 0  # audit labels of what the active version predicted
    oldest_new: datetime | None = None
    newest_new: datetime | None = None


@dataclass(frozen=True)
class Flight:
    """The run that is active, or how and when the last one ended."""

    active: str | None = None
    ended_at: datetime | None = None
    failed: bool = False


@dataclass(frozen=True)
class Marks:
    """What was noticed and not answered by a run yet: a scheduled look, a drift of the scores."""

    scheduled: datetime | None = None
    drift: Mapping[str, Any] | None = None


NOTHING = Marks()


@dataclass(frozen=True)
class Decision:
    """`reason` says what fired, `missing` in numbers what does not let it; `spent`: a scheduled look found nothing."""

    fire: bool
    reason: TrainingReason | None
    missing: Mapping[str, Any] = field(default_factory=dict)
    spent: bool = False


def decide(
    rule: TriggerRule,
    counters: Counters,
    flight: Flight,
    now: datetime,
    pause_after_failure: float,
    marks: Marks = NOTHING,
) -> Decision:
    """The rule of the contract. A failed or cancelled run is followed by a pause of its own (seconds)."""
    missing: dict[str, Any] = {}
    reason = _reason(rule, counters, now, marks)
    if reason is None:
        missing["labels"] = max(1, rule.n - counters.new)
    if reason == "count" and (until := _settles(rule, counters, now)):
        missing["settles"] = until.isoformat()
    missing |= blocked(rule, counters, flight, now, pause_after_failure)
    spent = reason is None and marks.scheduled is not None
    return Decision(reason is not None and not missing, reason, missing, spent)


def blocked(
    rule: TriggerRule, counters: Counters, flight: Flight, now: datetime, pause_after_failure: float
) -> dict[str, Any]:
    """What keeps any run from starting: too few of a class, another run, the cooldown."""
    missing: dict[str, Any] = {}
    if short := shortage(rule, counters):
        missing["per_class"] = short
    if flight.active:
        missing["run_active"] = flight.active
    if until := cooldown_until(rule, flight, now, pause_after_failure):
        missing["cooldown_until"] = until.isoformat()
    return missing


def shortage(rule: TriggerRule, counters: Counters, *, forced: bool = False) -> dict[str, int]:
    """class -> labels that it lacks; forced, only what no model can do without."""
    least = 0 if forced else rule.min_per_class
    short = {label: least - count for label, count in counters.per_class.items() if count < least}
    present = sum(count > 0 for count in counters.per_class.values())
    if present < counters.fewest_classes and not short:
        absent = [label for label, count in counters.per_class.items() if count == 0]
        short = dict.fromkeys(absent, 1)
    return short


def cooldown_until(rule: TriggerRule, flight: Flight, now: datetime, pause_after_failure: float) -> datetime | None:
    """When the next run may start, None when it may now."""
    pause = max(rule.cooldown_seconds, pause_after_failure) if flight.failed else rule.cooldown_seconds
    if flight.ended_at is None or _away(flight.ended_at, now) >= pause:
        return None
    return flight.ended_at + timedelta(seconds=pause)


def error_lower_bound(errors: int, total: int, confidence: float = 0.95) -> float:
    """One-sided lower bound of the error rate (Clopper and Pearson 1934): 0 without errors."""
    if errors == 0:
        return 0.0
    low, high = 0.0, errors / total
    for _ in range(60):
        middle = (low + high) / 2
        if _at_least(errors, total, middle) < 1 - confidence:
            low = middle
        else:
            high = middle
    return low


def _at_least(errors: int, total: int, rate: float) -> float:
    """Chance of `errors` or more among `total`."""
    if rate <= 0.0 or rate >= 1.0:
        return float(rate >= 1.0)
    logs = (
        math.lgamma(total + 1)
        - math.lgamma(k + 1)
        - math.lgamma(total - k + 1)
        + k * math.log(rate)
        + (total - k) * math.log1p(-rate)
        for k in range(errors, total + 1)
    )
    return min(1.0, sum(map(math.exp, logs)))


def _away(moment: datetime, now: datetime) -> float:
    """Seconds between the two, whichever is the later one.

    A time that lies ahead was told by a clock that has been put back since, or by another's. What waits for so many
    seconds after it waits twice as long at most: with the bare difference it would wait until that time has come.
    """
    return abs((now - moment).total_seconds())


def _settles(rule: TriggerRule, counters: Counters, now: datetime) -> datetime | None:
    """Until when enough labels wait for more, which come one after the other; twice as many do not wait."""
    if counters.newest_new is None or counters.new >= 2 * rule.n:
        return None
    if _away(counters.newest_new, now) >= rule.debounce_seconds:
        return None
    return counters.newest_new + timedelta(seconds=rule.debounce_seconds)


def _reason(rule: TriggerRule, counters: Counters, now: datetime, marks: Marks) -> TrainingReason | None:
    if counters.new >= rule.n:
        return "count"
    oldest, age = counters.oldest_new, rule.max_age_seconds
    if age is not None and oldest is not None and counters.new >= rule.n_min and _away(oldest, now) >= age:
        return "schedule"
    bound = error_lower_bound(counters.audit_errors, counters.audit_total)
    if rule.error_rate is not None and counters.new > 0 and bound > rule.error_rate:
        return "error_rate"
    return _marked(rule, counters, marks)


def _marked(rule: TriggerRule, counters: Counters, marks: Marks) -> TrainingReason | None:
    """What was noticed; without new labels a run would change nothing."""
    if counters.new < max(1, rule.n_min):
        return None
    if rule.drift is not None and marks.drift is not None:
        return "drift"
    return "schedule" if rule.schedule and marks.scheduled else None
