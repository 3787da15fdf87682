"""The gate: whether a candidate may replace the champion. Pure; every number that decided is in the verdict.

Both were judged on the same pinned set, by the main metric of their task, so the difference is paired. Of accuracy: of
n samples, b only the candidate got right and c only the champion; the bound is Tango's score interval for a paired
difference of proportions (Statistics in Medicine 17, 1998), which unlike Wald's does not collapse to a point when
b = c = 0. Of any other metric: the report has the difference and its standard deviation (`resampling.py`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

from services.retrain_trigger.evaluation import METRIC, metric_of

Z95 = 1.6448536269514722
"""One-sided 95 % quantile of the normal distribution."""


@dataclass(frozen=True)
class GateSettings:
    """How much better, and how surely not worse, a candidate has to be; shares in 0..1.

    `floor`: what the first model needs; None is the accuracy of always guessing the commonest class of the set, and 0
    of another metric. A class counts as fallen when its recall (F1, average precision) drops by more than `class_drop`
    and the paired losses of that class are more than chance (exact one-sided sign test at `class_alpha`; where the
    report has a standard deviation, by that), so that one sample of a small class decides nothing.
    """

    margin: float = 0.0
    delta: float = 0.02
    class_drop: float = 0.10
    class_alpha: float = 0.05
    floor: float | None = None


@dataclass(frozen=True)
class Verdict:
    """The gate's answer; `reasons` are codes with numbers in words, empty only where there is nothing to say."""

    promote: bool
    reasons: tuple[str, ...]
    numbers: dict[str, Any] = field(default_factory=dict)


def judge(metrics: Mapping[str, Any] | None, settings: GateSettings) -> Verdict:
    """Judge the metrics of a training run: {candidate, champion | None, paired | None}; None is an empty set."""
    if not metrics or not metrics.get("candidate"):
        return Verdict(False, ("no-evaluation: there is no pinned evaluation set to judge on",))
    if metrics.get("champion") is None:
        return _first(metrics["candidate"], settings)
    return _against(metrics["candidate"], metrics["champion"], metrics["paired"], settings)


def lower_bound(n: int, candidate_only: int, champion_only: int, z: float = Z95) -> float:
    """Lower confidence bound of (accuracy of the candidate - of the champion) by Tango's score interval."""
    if n < 1 or candidate_only < 0 or champion_only < 0 or candidate_only + champion_only > n:
        raise ValueError(f"no paired counts: {n=}, {candidate_only=}, {champion_only=}")
    low, high = -1.0, (candidate_only - champion_only) / n
    for _ in range(40):
        middle = (low + high) / 2
        if _score(n, candidate_only, champion_only, middle) > z:
            low = middle
        else:
            high = middle
    return low


def sign_test(losses: int, wins: int) -> float:
    """Chance of at least this many losses among losses + wins if both were as likely."""
    total = losses + wins
    return sum(math.comb(total, i) for i in range(losses, total + 1)) / 2**total


def _score(n: int, b: int, c: int, difference: float) -> float:
    """Tango's score statistic for the hypothesis that the true difference is `difference`."""
    first = 2.0 * n
    second = -b - c + (2.0 * n - b + c) * difference
    third = -c * difference * (1.0 - difference)
    root = math.sqrt(max(second * second - 4.0 * first * third, 0.0))
    only_champion = (root - second) / (2.0 * first)
    variance = n * (2.0 * only_champion + difference * (1.0 - difference))
    if variance <= 1e-12:
        return math.inf if b - c - n * difference > 1e-9 else 0.0
    return (b - c - n * difference) / math.sqrt(variance)


def _first(candidate: Mapping[str, Any], settings: GateSettings) -> Verdict:
    metric, sizes = metric_of(candidate), [row["n"] for row in candidate["per_class"].values()]
    commonest = max(sizes) / sum(sizes) if metric == METRIC else 0.0
    floor = settings.floor if settings.floor is not None else commonest
    value = candidate[metric]
    numbers = {"metric": metric, "candidate": value, "champion": None, "floor": floor, "n": candidate["n"]}
    if value < floor:
        return Verdict(False, (f"below-floor: {metric} {value:.3f} < {floor:.3f}",), numbers)
    return Verdict(True, (f"first-model: {metric} {value:.3f} >= {floor:.3f}",), numbers)


def _against(
    candidate: Mapping[str, Any], champion: Mapping[str, Any], paired: Mapping[str, Any], settings: GateSettings
) -> Verdict:
    metric, difference, bound, upper = metric_of(candidate), *_interval(paired)
    both = f"{metric} {candidate[metric]:.3f} against {champion[metric]:.3f}"
    interval = f"difference {difference:+.3f} (95 % bounds {bound:+.3f} and {upper:+.3f})"
    reasons = []
    if difference < settings.margin - 1e-12:
        reasons.append(f"not-better: {both}, {interval} < margin {settings.margin:+.3f}")
    if bound <= -settings.delta:
        reasons.append(f"not-sure: {both}, {interval}, the lower one <= {-settings.delta:+.3f}")
    fallen = _fallen(paired["per_class"], settings)
    reasons += [f"class-fell: {label} by {drop:.3f}" for label, drop in fallen.items()]
    numbers = {
        "metric": metric,
        "candidate": candidate[metric],
        "champion": champion[metric],
        "difference": difference,
        "lower_bound": bound,
        "upper_bound": upper,
        "margin": settings.margin,
        "delta": settings.delta,
        "n": paired["n"],
        **{name: paired[name] for name in ("candidate_only_correct", "champion_only_correct") if name in paired},
        "fallen": fallen,
    }
    if reasons:
        return Verdict(False, tuple(reasons), numbers)
    return Verdict(True, (f"better: {both}, {interval}",), numbers)


def _interval(paired: Mapping[str, Any]) -> tuple[float, float, float]:
    """The difference, and its one-sided lower and upper 95 % bound."""
    if "deviation" in paired:
        difference, reach = paired["difference"], Z95 * paired["deviation"]
        return difference, difference - reach, difference + reach
    n, wins, losses = paired["n"], paired["candidate_only_correct"], paired["champion_only_correct"]
    return (wins - losses) / n, lower_bound(n, wins, losses), -lower_bound(n, losses, wins)


def _fallen(per_class: Mapping[str, Mapping[str, Any]], settings: GateSettings) -> dict[str, float]:
    """label -> its fall, for the classes that fell by too much and by more than chance."""
    fallen = {}
    for label, row in per_class.items():
        drop, by_chance = _drop(row, settings.class_alpha)
        if drop > settings.class_drop + 1e-12 and not by_chance:
            fallen[label] = drop
    return fallen


def _drop(row: Mapping[str, Any], alpha: float) -> tuple[float, bool]:
    """How far a class fell, and whether that may be chance."""
    if "deviation" in row:
        quantile = NormalDist().inv_cdf(1.0 - alpha)
        return -row["difference"], row["difference"] + quantile * row["deviation"] >= 0
    wins, losses = row["candidate_only_correct"], row["champion_only_correct"]
    return (losses - wins) / row["n"] if row["n"] else 0.0, sign_test(losses, wins) > alpha
