"""The question that a decision about a sample leads to. Pure."""

from typing import Any

from services.contracts.events import Content, PolicyRef, SampleSelected, Top
from services.contracts.projects import SelectionPolicy
from services.select_uncertain.candidate import Candidate


def told(candidate: Candidate) -> dict[str, Any]:
    """What the model said of a sample, as a decision about it remembers."""
    top = candidate.top or {}
    told = {"outcome": candidate.outcome, "confidence": top.get("confidence"), "scores": candidate.scores}
    return told if top.get("value") is None else {**told, "answer": top["value"]}


def selected(
    project: str,
    candidate: Candidate,
    policy: SelectionPolicy,
    priority: float,
    decision: dict[str, Any],
    seed: int,
) -> SampleSelected:
    """The question that a decision leads to."""
    trigger = decision["trigger"]
    return SampleSelected(
        project=project,
        sample_id=candidate.sample_id,
        round_id=decision["round_id"],
        content=Content(**candidate.content),
        priority=priority,
        reasons=decision["reasons"],
        policy=PolicyRef(id=policy.id, version=policy.version),
        strategy=decision.get("strategy", "unscorable"),
        seed=seed,
        required_labels=policy.required_labels,
        trigger=trigger,
        is_audit=trigger == "audit",
        weight=policy.weight,
        prelabel=Top(**candidate.top) if candidate.top else None,
        model_version=candidate.version,
    )
