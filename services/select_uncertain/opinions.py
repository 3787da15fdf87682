"""What follows from a new score beside a place in the pool: a published result, a question of another rank. Pure."""

import numpy as np

from services.contracts.events import InferenceResult, PolicyRef, SampleReranked, Top
from services.contracts.projects import SelectionPolicy
from services.select_uncertain.candidate import Candidate
from services.select_uncertain.rules import Tree


def urgency(candidate: Candidate, strategy: str, aggregate: str | None = None) -> float | None:
    """Priority (0..1) of a question by its newest score: of one label the strategy's own score if it has one, else
    what the policy's aggregate makes of it, else the margin. None without a model's opinion."""
    one_label = len(candidate.probabilities) > 1
    if not one_label and candidate.top is None:
        return None
    score = candidate.scores.get(strategy) if one_label else None
    return float(np.clip(candidate.unsure(aggregate) if score is None else score, 0, 1))


def reranked(
    project: str, candidate: Candidate, aggregate: str | None = None
) -> tuple[Candidate, SampleReranked] | None:
    """An open question as the newest model sees it, if a strategy chose it; what chance drew keeps its place."""
    decision = candidate.decision or {}
    if candidate.state != "SELECTED" or decision.get("trigger") != "policy" or "round_id" not in decision:
        return None
    priority = urgency(candidate, decision.get("strategy", ""), aggregate)
    if priority is None:
        return None
    event = SampleReranked(
        project=project,
        sample_id=candidate.sample_id,
        round_id=decision["round_id"],
        priority=priority,
        reasons=[f"uncertainty {priority:.3f} by {candidate.version}"],
        prelabel=Top(**candidate.top) if candidate.top else None,
        model_version=candidate.version,
    )
    return candidate.become("SELECTED", {**decision, "score": priority, "ranked_by": candidate.version}), event


def result(project: str, candidate: Candidate, policy: SelectionPolicy, active: str) -> InferenceResult | None:
    """The prediction, if the policy publishes it."""
    if policy.results is None or not candidate.top:
        return None
    if not Tree(policy.results).judge(facts := candidate.facts(active)).passed:
        return None
    return InferenceResult.model_validate(
        {
            "project": project,
            "sample_id": candidate.sample_id,
            "model_version": candidate.version,
            "policy": PolicyRef(id=policy.id, version=policy.version).model_dump(),
            "content": candidate.content,
            "top": candidate.top,
            "scores": candidate.scores,
            "captured_at": facts.captured_at,
            "stream_id": candidate.stream,
            "attributes": candidate.attributes,
            "tags": candidate.tags,
        }
    )
