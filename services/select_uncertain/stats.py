"""What `/v1/stats` shows: counts by policy and rule, the audit's error, the stop criterion, what a round waits for."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from services.contracts.projects import SelectionPolicy
from services.select_uncertain.candidate import Candidate
from services.select_uncertain.pool import ProjectPool
from services.select_uncertain.rounds import stop_verdict
from services.select_uncertain.rules import Facts, Judgement, Room, Tree

STREAMS = 50  # of which the mean uncertainty is shown


def of_pool(pool: ProjectPool, aggregate: str | None = None) -> dict[str, Any]:
    """Counts that do not depend on a policy; but the histogram is of the scores by which its `aggregate` ranks."""
    states = Counter(candidate.state for candidate in pool.candidates.values())
    decided = [c for c in pool.candidates.values() if c.decision and (c.asked or "label" in c.decision)]
    scores = [c.unsure(aggregate) for c in pool.in_state("CANDIDATE") if c.top or c.probabilities]
    return {
        "seen": pool.seen,
        "states": dict(states),
        "asked": pool.asked,
        "open": pool.open_tasks,
        "by_trigger": dict(Counter((c.decision or {}).get("trigger", "import") for c in decided)),
        "model_version": pool.active,
        "to_rescore": len(pool.stale("CANDIDATE")) if pool.epoch else 0,
        "new_labels": pool.new_labels,
        "score_histogram": np.histogram(scores, bins=10, range=(0, 1))[0].tolist(),
        "by_stream": by_stream(pool, aggregate),
    }


def by_stream(pool: ProjectPool, aggregate: str | None = None) -> dict[str, dict[str, float]]:
    """Of the samples that wait, by the stream that they came from: how many, and how unsure on average; worst first."""
    found: dict[str, list[float]] = {}
    for one in pool.in_state("CANDIDATE"):
        if one.top or one.probabilities:
            found.setdefault(one.stream or "", []).append(one.unsure(aggregate))
    rows = {name: {"n": len(scores), "uncertainty": round(float(np.mean(scores)), 4)} for name, scores in found.items()}
    return dict(sorted(rows.items(), key=lambda row: -row[1]["uncertainty"])[:STREAMS])


async def of_policy(
    pool: ProjectPool, policy: SelectionPolicy, dropped: Mapping[str, Mapping[str, int]]
) -> dict[str, Any]:
    """Counts by policy, and what the labels say of the model and of labels to come."""
    waiting = [candidate for candidate in pool.in_state("CANDIDATE", "DISCARDED") if candidate.version]
    facts = [candidate.facts(pool.active) for candidate in waiting]
    tally = await asyncio.to_thread(tallied, Tree(policy.where), facts, None)
    policies: dict[str, dict[str, Any]] = {}
    for name, counts in _decided(pool.candidates.values()).items():
        policies[name] = {**counts, "dropped": dict(dropped.get(name, {}))}
    blank = {"selected": 0, "discarded": 0, "versions": {}, "dropped": dict(dropped.get(policy.id, {}))}
    policies[policy.id] = {
        **policies.get(policy.id, blank),
        "in_force": policy.version,
        "seen": pool.seen,
        "passing": tally["passed"],
        "rejected": tally["rejected"],
        "unknown": tally["unknown"],
    }
    decided = pool.candidates.values()
    confident = sum(c.version == pool.active and _sure(c, policy) for c in pool.candidates.values())
    audit = pool.audited("audit")
    asked = sum(c.trigger == "audit" and (c.decision or {}).get("model_version") == pool.active for c in decided)
    return {
        "policies": policies,
        "audit": {**audit.told(), "model_version": pool.active, "asked": asked, "confident": confident},
        "control": {**pool.audited("control").told(), "model_version": pool.active},
        "stopping": stop_verdict(pool, policy),
    }


def tallied(tree: Tree, facts: Iterable[Facts], room: Room | None) -> dict[str, Any]:
    """How many pass, how many each rule rejects or cannot judge, and why it cannot."""
    passed, rejected, unknown = 0, Counter[str](), Counter[str]()
    for one in facts:
        passed += count(tree.judge(one, room), rejected, unknown)
    return {"passed": passed, "rejected": dict(rejected), "unknown": dict(unknown)}


def count(judged: Judgement, rejected: Counter[str], unknown: Counter[str]) -> bool:
    """Count what the rules said of one sample; whether it passed."""
    for name, result in judged.results.items():
        if result.value < 1:
            rejected[name] += 1
        if result.code:
            unknown[result.code] += 1
    return judged.passed


def _sure(candidate: Candidate, policy: SelectionPolicy) -> bool:
    return bool(candidate.top) and (candidate.top or {}).get("confidence", 0.0) >= policy.confident


def _decided(candidates: Iterable[Candidate]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for candidate in candidates:
        reference = (candidate.decision or {}).get("policy")
        if not reference:
            continue
        row = found.setdefault(reference["id"], {"selected": 0, "discarded": 0, "versions": {}})
        row["selected" if candidate.asked else "discarded"] += 1
        version = str(reference["version"])
        row["versions"][version] = row["versions"].get(version, 0) + 1
    return found
