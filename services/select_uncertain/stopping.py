"""When more labels no longer help: what the last models gained, and what the audit says. Pure.

The rule is the plain one of gain per run (Bloodgood and Vijay-Shanker 2009 compare it with others): the best accuracy
of the last n judged models, rejected ones too, is less than epsilon above the best before them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from services.contracts.projects import StopRule
from services.select_uncertain.audit import Estimate, interval

KEPT = 200  # judged models that are remembered


def judged(version: str, gate: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a gate's verdict says of a model; None where it has measured nothing."""
    accuracy = gate.get("candidate")
    if isinstance(accuracy, bool) or not isinstance(accuracy, int | float):
        return None
    return {"version": version, "accuracy": float(accuracy)}


def gain(accuracies: Sequence[float], runs: int) -> float | None:
    """How much the last `runs` models added to the best before them, not below 0; None with too few models."""
    if len(accuracies) <= runs:
        return None
    return max(0.0, max(accuracies[-runs:]) - max(accuracies[:-runs]))


def verdict(rule: StopRule | None, accuracies: Sequence[float], audit: Estimate) -> dict[str, Any]:
    """Whether to stop, and the sentence that says why."""
    if rule is None:
        return {"stop": False, "paused": False, "why": "the policy has no stop rule"}
    won = gain(accuracies, rule.runs)
    low, high = interval(audit.errors, audit.labels)
    if won is None:
        missing = rule.runs + 1 - len(accuracies)
        stop, why = False, f"{len(accuracies)} models are judged; {missing} more are needed to tell"
    elif won >= rule.gain and won > 0:
        stop, why = False, f"the last {rule.runs} models gained {won:.4f}; {rule.gain:g} is worth more labels"
    elif rule.audit_error is not None and high >= rule.audit_error:
        stop = False
        why = f"no gain, but the audit's error may be up to {high:.3f}; below {rule.audit_error:g} would do"
    else:
        stop, why = True, f"the last {rule.runs} models gained {won:.4f}, less than {rule.gain:g}"
    return {
        "stop": stop,
        "paused": stop and rule.pause,
        "why": why,
        "gain": won,
        "judged": len(accuracies),
        "audit_low": low,
        "audit_high": high,
    }
