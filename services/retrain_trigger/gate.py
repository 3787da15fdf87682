"""The gate: whether a candidate may replace the champion. Pure; every number that decided is in the verdict.

Both were judged on the same pinned set, so the difference is paired: of n samples, b only the candidate got right and
c only the champion. The bound is Tango's score interval for a paired difference of proportions (Statistics in Medicine
17, 1998), which unlike Wald's does not collapse to a point when b = c = 0.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

METRIC = "accuracy"
"""What is compared: the share of the pinned set that a model gets right."""

Z95 = 1.6448536269514722
"""One-sided 95 % quantile of the normal distribution."""


@dataclass(frozen=True)
class GateSettings:
    """How much better, and how surely not worse, a candidate has to be; shares in 0..1.

    `floor`: accuracy the first model needs; None is that of always guessing the commonest class of the set.
    A class counts as fallen when its recall drops by more than `class_drop` and the paired losses of that class are
    more than chance (exact one-sided sign test at `class_alpha`), so that one sample of a small class decides nothing.
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
    sizes = [row["n"] for row in candidate["per_class"].values()]
    floor = settings.floor if settings.floor is not None else max(sizes) / sum(sizes)
    accuracy = candidate["accuracy"]
    numbers = {"metric": METRIC, "candidate": accuracy, "champion": None, "floor": floor, "n": sum(sizes)}
    if accuracy < floor:
        return Verdict(False, (f"below-floor: {METRIC} {accuracy:.3f} < {floor:.3f}",), numbers)
    return Verdict(True, (f"first-model: {METRIC} {accuracy:.3f} >= {floor:.3f}",), numbers)


def _against(
    candidate: Mapping[str, Any], champion: Mapping[str, Any], paired: Mapping[str, Any], settings: GateSettings
) -> Verdict:
    n, wins, losses = paired["n"], paired["candidate_only_correct"], paired["champion_only_correct"]
    difference, bound, upper = (wins - losses) / n, lower_bound(n, wins, losses), -lower_bound(n, losses, wins)
    both = f"{METRIC} {candidate['accuracy']:.3f} against {champion['accuracy']:.3f}"
    interval = f"difference {difference:+.3f} (95 % bounds {bound:+.3f} and {upper:+.3f})"
    reasons = []
    if difference < settings.margin - 1e-12:
        reasons.append(f"not-better: {both}, {interval} < margin {settings.margin:+.3f}")
    if bound <= -settings.delta:
        reasons.append(f"not-sure: {both}, {interval}, the lower one <= {-settings.delta:+.3f}")
    fallen = _fallen(paired["per_class"], settings)
    reasons += [f"class-fell: {label} by {drop:.3f}" for label, drop in fallen.items()]
    numbers = {
        "metric": METRIC,
        "candidate": candidate["accuracy"],
        "champion": champion["accuracy"],
        "difference": difference,
        "lower_bound": bound,
        "upper_bound": upper,
        "margin": settings.margin,
        "delta": settings.delta,
        "n": n,
        "candidate_only_correct": wins,
        "champion_only_correct": losses,
        "fallen": fallen,
    }
    if reasons:
        return Verdict(False, tuple(reasons), numbers)
    return Verdict(True, (f"better: {both}, {interval}",), numbers)


def _fallen(per_class: Mapping[str, Mapping[str, int]], settings: GateSettings) -> dict[str, float]:
    """label -> fall of its recall, for the classes that fell by too much and by more than chance."""
    fallen = {}
    for label, row in per_class.items():
        wins, losses = row["candidate_only_correct"], row["champion_only_correct"]
        drop = (losses - wins) / row["n"] if row["n"] else 0.0
        if drop > settings.class_drop + 1e-12 and sign_test(losses, wins) <= settings.class_alpha:
            fallen[label] = drop
    return fallen
