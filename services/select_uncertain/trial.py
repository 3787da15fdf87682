"""`:test`: what a policy would choose, and why; on samples that came lately, or on made-up ones. Nothing changes."""

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import datetime
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from services.contracts.projects import SelectionPolicy
from services.select_uncertain.candidate import Candidate
from services.select_uncertain.filling import fill
from services.select_uncertain.pool import ProjectPool
from services.select_uncertain.rounds import eligible, remaining
from services.select_uncertain.rules import Facts, Tree
from services.select_uncertain.stats import count


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Given(_Body):
    """A made-up sample."""

    sample_id: str = Field(default="given", min_length=1, max_length=200)
    confidence: float | None = Field(default=None, ge=0, le=1)
    outcome: str | list[str] | None = Field(default=None, description="the predicted class, or all that are")
    scores: dict[str, float] = Field(default_factory=dict)
    attributes: dict[str, Any] = Field(default_factory=dict)
    tags: list[str] = []
    stream_id: str | None = None
    site: str = ""
    device: str = ""
    captured_at: AwareDatetime
    model_version: str | None = Field(default=None, description="default: the one that serves")

    def facts(self, active: str) -> Facts:
        """As the rules see it."""
        several = self.outcome if isinstance(self.outcome, list) else []
        return Facts(
            sample_id=self.sample_id,
            captured_at=self.captured_at,
            confidence=self.confidence,
            outcome=next(iter(several), "") if isinstance(self.outcome, list) else self.outcome,
            classes=several,
            scores=self.scores,
            attributes=self.attributes,
            tags=self.tags,
            stream=self.stream_id,
            site=self.site,
            device=self.device,
            version=self.model_version or active,
            active=active,
        )


class Window(_Body):
    """When the samples were captured: `start` is inside, `end` is not."""

    start: AwareDatetime | None = None
    end: AwareDatetime | None = None

    @field_validator("end")
    @classmethod
    def _ordered(cls, end: AwareDatetime | None, info: ValidationInfo) -> AwareDatetime | None:
        if end is not None and (start := info.data.get("start")) is not None and end <= start:
            raise ValueError(f"end ({end.isoformat()}) is not after start ({start.isoformat()})")
        return end


class PolicyTest(_Body):
    """Try a policy: the stored one, or one given here, on the newest samples, some of them, or given ones."""

    policy: SelectionPolicy | None = None
    samples: list[str] | None = Field(default=None, max_length=10_000)
    given: list[Given] | None = Field(default=None, max_length=1000)
    window: Window | None = None
    limit: int = Field(default=100, ge=0, le=1000, description="results that are listed")


def recent(pool: ProjectPool, body: PolicyTest) -> list[Candidate]:
    """The samples that are looked at, newest first."""
    wanted = None if body.samples is None else set(body.samples)
    start, end = (body.window.start, body.window.end) if body.window else (None, None)

    def inside(candidate: Candidate) -> bool:
        at = candidate.facts("").captured_at
        return (start is None or start <= at) and (end is None or at < end)

    there = [c for c in pool.candidates.values() if c.version and (wanted is None or c.sample_id in wanted)]
    there = [c for c in there if inside(c)] if start or end else there
    return sorted(there, key=lambda c: (c.seen_at, c.sample_id), reverse=True)


async def tried(pool: ProjectPool, policy: SelectionPolicy, body: PolicyTest, now: datetime) -> dict[str, Any]:
    """What the policy says of each sample, and what a round under it would ask about now.

    The vectors of what may be chosen are in the pool already.
    """
    looked_at = [] if body.given is not None else recent(pool, body)
    facts = [c.facts(pool.active) for c in looked_at] + [one.facts(pool.active) for one in body.given or ()]
    kept = {candidate.sample_id for candidate in looked_at}
    # A pool of its own, in which only what is looked at waits; what was asked already stays, for quotas and coverage.
    candidates = {name: c for name, c in pool.candidates.items() if name in kept or c.state != "CANDIDATE"}
    apart = replace(pool, candidates=candidates, _tree=Tree(policy.where), _settled={})
    return await asyncio.to_thread(_judged, apart, policy, facts, body.limit, now)


def _judged(
    pool: ProjectPool, policy: SelectionPolicy, facts: list[Facts], limit: int, now: datetime
) -> dict[str, Any]:
    tree, ledger = pool.tree(policy), pool.ledger(now)
    rejected, unknown, rows, passed = Counter[str](), Counter[str](), [], 0
    for one in facts:
        judged = tree.judge(one, ledger)
        passed += count(judged, rejected, unknown)
        if len(rows) < limit:
            row = {"sample_id": one.sample_id, "passed": judged.passed, "final": judged.final, "rules": judged.told()}
            rows.append(row)
    ready = eligible(pool, policy, now, drawn=True)
    filled = fill(pool, ready, policy, remaining(pool, policy), policy.seed, now)
    return {
        "policy": {"id": policy.id, "version": policy.version},
        "considered": len(facts),
        "passed": passed,
        "rejected": dict(rejected),
        "unknown": dict(unknown),
        "results": rows,
        "picks": [
            {"sample_id": c.candidate.sample_id, "score": c.priority, "trigger": c.trigger, "reasons": c.reasons}
            for c in filled.choices
        ],
        "dropped": dict(filled.dropped),
    }
