"""What a policy does to a pool beside rounds: it lets go of samples for good, and of questions worth less."""

from datetime import datetime, timedelta
from typing import Any

from services.contracts.events import PolicyRef, SampleDiscarded, SampleEvicted
from services.contracts.projects import SelectionPolicy
from services.runtime.service import Service, transact
from services.runtime.unit import Unit
from services.select_uncertain.candidate import Candidate
from services.select_uncertain.candidates import Candidates, cand_key
from services.select_uncertain.filling import evictable
from services.select_uncertain.metrics import DROPPED, REJECTED, SEEN
from services.select_uncertain.pool import ProjectPool

PART = 500  # samples in one transaction
PATIENCE = timedelta(seconds=60)  # after which a question is asked again to give way


class Tending:
    """Runs with every tick, on what has changed since the last one."""

    def __init__(self, service: Service, candidates: Candidates) -> None:
        self._service = service
        self._candidates = candidates
        self._judged: dict[str, tuple[tuple[str, int], dict[str, Candidate]]] = {}

    async def tend(self, project: str, policy: SelectionPolicy) -> None:
        """Discard what can never pass, take back what may pass again, and have questions give way."""
        pool = self._candidates.pool(project)
        await self._judge(pool, policy)
        now = self._service.clock.now()
        leaving: list[tuple[Candidate, str]] = []
        if policy.open_per_class is not None:
            leaving += [(candidate, "evicted") for candidate in evictable(pool, policy.open_per_class)]
        if policy.expire_seconds is not None:
            leaving += [(candidate, "expired") for candidate in _overdue(pool, policy.expire_seconds, now)]
        await self._evict(pool, policy, leaving[:PART], now)

    async def _judge(self, pool: ProjectPool, policy: SelectionPolicy) -> None:
        version, known = self._judged.get(pool.project, (("", 0), {}))
        if version != (policy.id, policy.version):
            known = {}
        waiting = [c for c in pool.in_state("CANDIDATE", "DISCARDED") if c.version]
        new = [c for c in waiting if known.get(c.sample_id) is not c][: None if policy.where is None else PART]
        self._judged[pool.project] = ((policy.id, policy.version), known)
        if not new:
            return
        tree = pool.tree(policy)
        never = {c.sample_id for c in new if tree.never(c.facts(pool.active))}
        moves = [c for c in new if (c.sample_id in never) != (c.state == "DISCARDED") or _outdated(c, policy)]
        if moves:
            await transact(self._service, lambda unit: self._move(unit, pool, policy, moves, never))
        SEEN.labels(pool.project, policy.id).inc(sum(1 for c in new if c.sample_id not in known))
        for candidate in new:
            if candidate.sample_id not in known and tree.rule is not None:
                for name, result in tree.judge(candidate.facts(pool.active)).results.items():
                    if result.value < 1:
                        REJECTED.labels(pool.project, policy.id, name).inc()
            known[candidate.sample_id] = pool.candidates[candidate.sample_id]
        if len(known) > len(waiting) + PART:
            there = {candidate.sample_id for candidate in waiting}
            self._judged[pool.project] = (self._judged[pool.project][0], {s: c for s, c in known.items() if s in there})

    async def _move(
        self, unit: Unit, pool: ProjectPool, policy: SelectionPolicy, moves: list[Candidate], never: set[str]
    ) -> None:
        now = self._service.clock.now()
        found = await unit.get_many(cand_key(pool.project, c.sample_id) for c in moves)
        for candidate in moves:
            key = cand_key(pool.project, candidate.sample_id)
            if key not in found or found[key]["state"] not in ("CANDIDATE", "DISCARDED"):
                continue
            fresh = Candidate.of_record(found[key])
            if candidate.sample_id not in never:
                back = fresh.become("CANDIDATE", {"taken_back": now.isoformat()})
                self._candidates.write(unit, pool.project, back, now)
                continue
            judged = pool.tree(policy).judge(fresh.facts(pool.active))
            reference = {"id": policy.id, "version": policy.version}
            decision: dict[str, Any] = {
                "policy": reference,
                "rules": judged.told(),
                "reasons": ["the policy can never pass it"],
                "model_version": fresh.version,
                "seed": policy.seed,
                "at": now.isoformat(),
            }
            self._candidates.write(unit, pool.project, fresh.become("DISCARDED", decision), now)
            unit.emit(
                SampleDiscarded(
                    project=pool.project,
                    sample_id=fresh.sample_id,
                    policy=PolicyRef(**reference),
                    rules={name: result.value == 1 for name, result in judged.results.items()},
                    reasons={name: result.why for name, result in judged.results.items()},
                ),
                guard=key,
            )

    async def _evict(
        self, pool: ProjectPool, policy: SelectionPolicy, leaving: list[tuple[Candidate, str]], now: datetime
    ) -> None:
        due = [(c, why) for c, why in leaving if _due(pool, c.sample_id, now)]
        if not due:
            return
        unit = await self._service.unit()
        for candidate, why in due:
            _, attempt = pool.leaving.get(candidate.sample_id, (now, -1))
            pool.leaving[candidate.sample_id] = (now, attempt + 1)
            unit.emit(
                SampleEvicted.model_validate(
                    {
                        "project": pool.project,
                        "sample_id": candidate.sample_id,
                        "round_id": (candidate.decision or {})["round_id"],
                        "why": why,
                        "attempt": attempt + 1,
                    }
                )
            )
            DROPPED.labels(pool.project, policy.id, why).inc()
        await unit.commit()


def _due(pool: ProjectPool, sample: str, now: datetime) -> bool:
    return sample not in pool.leaving or now - pool.leaving[sample][0] >= PATIENCE


def _overdue(pool: ProjectPool, seconds: float, now: datetime) -> list[Candidate]:
    """Questions that are open for longer, and that nobody is at."""
    limit = timedelta(seconds=seconds)
    asked = [c for c in pool.in_state("SELECTED") if c.sample_id not in pool.leased and c.asked]
    return [c for c in asked if now - c.question().at >= limit]


def _outdated(candidate: Candidate, policy: SelectionPolicy) -> bool:
    """Whether it was discarded under another version, which is said once more under this one."""
    if candidate.state != "DISCARDED" or not candidate.decision:
        return False
    return candidate.decision.get("policy") != {"id": policy.id, "version": policy.version}
