"""The report of a run: rows for labels, speed, heads and calibration, what the goals were, and what was missed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from bench.selection.curves import COLD
from bench.selection.datasets import SET_ASIDE
from bench.selection.learners import HEADS
from bench.selection.peers import PEERS
from bench.selection.runs import Run, versions
from bench.selection.speed import DIVERSE, TOP_K
from bench.selection.statistics import difference, summary
from services.select_uncertain.strategies import DEFAULT_STRATEGY

Group = tuple[str, str, str]
"""Data set, learner, strategy."""


@dataclass(frozen=True)
class Goal:
    """A sentence, what was reached in words, and whether that is enough."""

    goal: str
    reached: str
    met: bool
    tried: str = ""


def build(results: dict[Run, dict[str, Any]], speed: list[dict[str, Any]], tried: dict[str, str]) -> dict[str, Any]:
    """What report.json says; `tried` is what was tried for a goal, by the first words of its sentence."""
    rows = _summaries(results)
    goals = [*_label_goals(rows), *_speed_goals(speed)] if speed else _label_goals(rows)
    goals = [Goal(g.goal, g.reached, g.met, _tried(g.goal, tried)) for g in goals]
    return {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "set_aside": list(SET_ASIDE),
        "default": DEFAULT_STRATEGY,
        "labels": [_label_row(group, row) for group, row in sorted(rows.items())],
        "speed": speed,
        "heads": _heads(rows, results),
        "comparisons": _comparisons(rows),
        "goals": [vars(goal) for goal in goals],
        "missed": [{"goal": g.goal, "reached": g.reached, "tried": g.tried} for g in goals if not g.met],
    }


def _tried(goal: str, tried: dict[str, str]) -> str:
    return next((text for words, text in tried.items() if goal.startswith(words)), "")


def _summaries(results: dict[Run, dict[str, Any]]) -> dict[Group, dict[str, Any]]:
    groups: dict[Group, list[Run]] = {}
    for run in results:
        groups.setdefault((run.dataset, run.learner, run.strategy), []).append(run)
    made = {group: summary([results[run] for run in sorted(runs)]) for group, runs in groups.items()}
    return {
        group: {**row, "seeds": len(groups[group]), "library": groups[group][0].library} for group, row in made.items()
    }


def _label_row(group: Group, row: dict[str, Any]) -> dict[str, Any]:
    dataset, learner, strategy = group
    names = ("library", "seeds", "labels_to_97", "labels_to_97_ci", "aulc", "full", "budget", "curve")
    head = {"dataset": dataset, "model": learner, "strategy": strategy}
    return {**head, **{name: row[name] for name in names}, "seconds_per_selection": row["seconds"]}


def best_peer(rows: dict[Group, dict[str, Any]], dataset: str, learner: str) -> str:
    """The libraries' strategy with the largest area."""
    found = {name: rows[dataset, learner, name]["aulc"] for name in PEERS if (dataset, learner, name) in rows}
    return max(found, key=lambda name: found[name])


def _comparisons(rows: dict[Group, dict[str, Any]]) -> list[dict[str, Any]]:
    """The default beside the best peer and random, paired over the seeds."""
    found = []
    for dataset, learner in sorted({group[:2] for group in rows if group[1] not in HEADS}):
        here = {strategy for one, model, strategy in rows if (one, model) == (dataset, learner)}
        if not {"random", DEFAULT_STRATEGY} <= here or here.isdisjoint(PEERS):
            continue
        ours = rows[dataset, learner, DEFAULT_STRATEGY]
        for name in (best_peer(rows, dataset, learner), "random"):
            other = rows[dataset, learner, name]
            mean, low, high = difference(ours["aulcs"], other["aulcs"])
            found.append({
                "dataset": dataset, "model": learner, "other": name, "aulc": ours["aulc"], "aulc_other": other["aulc"],
                "difference": round(mean, 4), "interval": [round(low, 4), round(high, 4)], "not_below": high >= 0,
                "labels_to_97": ours["labels_to_97"], "labels_to_97_other": other["labels_to_97"],
            })  # fmt: skip
    return found


def _fewest(rows: dict[Group, dict[str, Any]], dataset: str, learner: str) -> tuple[str, float]:
    """The peer that needs the fewest labels to 97 %."""
    found = {n: rows[dataset, learner, n]["labels_to_97"] or np.inf for n in PEERS if (dataset, learner, n) in rows}
    name = min(found, key=lambda one: found[one])
    return name, found[name]


def _label_goals(rows: dict[Group, dict[str, Any]]) -> list[Goal]:
    goals = []
    for learner, peer_share, random_share in (("lr", 0.70, 0.28), ("mlp", 0.85, 0.33)):
        if ("digits", learner) not in {(row["dataset"], row["model"]) for row in _comparisons(rows)}:
            goals.append(Goal(f"labels to 97 %, digits, {learner}", "not measured in this run", False))
            continue
        name, peer = _fewest(rows, "digits", learner)
        cold = rows.get(("digits", learner, DEFAULT_STRATEGY + COLD), {}).get("labels_to_97")
        ours, chance = (rows["digits", learner, one]["labels_to_97"] for one in (DEFAULT_STRATEGY, "random"))
        more = f"; {cold} with our own cold start" if cold else ""
        goals.append(_ratio(f"labels to 97 %, digits, {learner}, beside the best peer", ours, peer, peer_share,
                            f"{name} {peer}{more}"))  # fmt: skip
        goals.append(_ratio(f"labels to 97 %, digits, {learner}, beside random", ours, chance, random_share,
                            f"random {chance or 'not within its budget'}{more}"))  # fmt: skip
        head = next((one for one in ("auto", "spread") if ("digits", one, DEFAULT_STRATEGY) in rows), None)
        if head:
            helped = rows["digits", head, DEFAULT_STRATEGY]["labels_to_97"]
            goals.append(_ratio(f"labels to 97 %, digits, semi-supervised, beside the best peer of {learner}", helped,
                                peer, 0.40, f"{name} {peer}"))  # fmt: skip
    for row in _comparisons(rows):
        what = "the best peer" if row["other"] != "random" else "random"
        held = " (set aside)" if row["dataset"] in SET_ASIDE else ""
        text = f"{row['difference']:+.4f} [{row['interval'][0]:+.4f}, {row['interval'][1]:+.4f}] against {row['other']}"
        goals.append(Goal(f"area not below {what}: {row['dataset']}{held}, {row['model']}", text, row["not_below"]))
    return goals


def _ratio(goal: str, ours: float | None, other: float | None, most: float, beside: str) -> Goal:
    if not ours or not other:
        return Goal(f"{goal} ≤ {most:.2f}", f"{ours or 'not within the budget'}; {beside}", False)
    return Goal(f"{goal} ≤ {most:.2f}", f"{ours / other:.2f} ({ours}; {beside})", ours / other <= most)


def _speed_goals(speed: Sequence[dict[str, Any]]) -> list[Goal]:
    found = {row["strategy"]: row for row in speed if row["what"] == TOP_K}
    diverse = {row["strategy"]: row for row in speed if row["what"] == DIVERSE}
    rows, modal = found["least_certain, rows"], found["modal/margin"]
    times = modal["seconds_min"] / rows["seconds_min"]
    goal, badge = "diverse batch ≤ 1 % of scikit-activeml BADGE's CPU", diverse.get("skactiveml/badge")
    share = diverse[DEFAULT_STRATEGY]["seconds_min"] / badge["seconds_min"] if badge else np.inf
    reached = f"{share:.2%}" if badge else "BADGE was not measured in this run"
    return [
        Goal("top-k ≤ 4 × memcpy", f"{rows['ratio_to_memcpy']:.1f} ×", rows["ratio_to_memcpy"] <= 4),
        Goal("top-k ≥ 6 × faster than modAL", f"{times:.1f} ×", times >= 6),
        Goal("top-k in O(k) extra memory", f"{rows['peak_mb']:.1f} MB", rows["peak_mb"] < 4),
        Goal(goal, reached, share <= 0.01),
    ]


def _heads(rows: dict[Group, dict[str, Any]], results: dict[Run, dict[str, Any]]) -> list[dict[str, Any]]:
    """The default trainer with and without the unlabelled, on every data set, and its calibration error."""
    found = []
    for dataset in sorted({group[0] for group in rows if group[1] == "logistic"}):
        made = {
            head: rows[dataset, head, DEFAULT_STRATEGY] for head in HEADS if (dataset, head, DEFAULT_STRATEGY) in rows
        }
        row: dict[str, Any] = {"dataset": dataset}
        for head, one in made.items():
            row |= {f"labels_to_97_{head}": one["labels_to_97"], f"aulc_{head}": one["aulc"]}
            if head != "logistic":
                gap = difference(one["aulcs"], made["logistic"]["aulcs"])
                row[f"{head}_minus_logistic"] = [round(value, 4) for value in gap]
        mine = [run for run in results if (run.dataset, run.learner) == (dataset, "auto")]
        if mine:
            errors = np.mean([results[run]["calibration"] for run in mine], axis=(0, 1))
            row |= {
                "calibration_error_before": round(float(errors[0]), 4),
                "calibration_error": round(float(errors[1]), 4),
            }
        found.append(row)
    return found
