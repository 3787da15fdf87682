"""Rounds, opened when they may be, and scores asked for when a new model serves."""

import asyncio
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import structlog

from services.contracts.events import RescoreRequested
from services.contracts.ids import digest, round_id
from services.contracts.problem import Problem
from services.contracts.projects import ProjectDocument, SelectionPolicy
from services.runtime.service import Service, transact
from services.runtime.unit import Unit
from services.select_uncertain.candidate import NO_MODEL, Candidate
from services.select_uncertain.candidates import TURN, Candidates, cand_key
from services.select_uncertain.filling import Filled, fill
from services.select_uncertain.metrics import DROPPED, SELECTED
from services.select_uncertain.policies import Policies
from services.select_uncertain.pool import ProjectPool
from services.select_uncertain.questions import selected, told
from services.select_uncertain.rounds import Choice, budget_left, eligible, remaining, why_wait
from services.select_uncertain.tending import Tending

log = structlog.get_logger()

PART = 500  # ids in one request to score again
LOOK_AGAIN = timedelta(seconds=1)
EMPTY_PAUSE = timedelta(seconds=10)  # after a round in which nothing found room, if nothing changes
RESCORE_PATIENCE = 15.0  # seconds after which what is not scored yet is asked for again


class Asking:
    """The background work over the pools."""

    def __init__(self, service: Service, candidates: Candidates, policies: Policies) -> None:
        self.service = service
        self.candidates = candidates
        self.policies = policies
        self.tending = Tending(service, candidates)
        self._waits: dict[str, tuple[tuple[Any, ...], datetime]] = {}

    async def tick(self) -> None:
        """Open the rounds that may open, and ask again for scores that are late."""
        for project in self.service.projects.all():
            async with self.service.lock(TURN):
                await self._request_scores(project.name)
                policy = await self.policies.current(project.name)
                await self.tending.tend(project.name, policy)
                if self._may_open(project, policy):
                    record = await self._open_round(project, policy)
                    if not record["picks"]:
                        self._waits[project.name] = (
                            self._look(project, policy),
                            self.service.clock.now() + EMPTY_PAUSE,
                        )

    def _may_open(self, project: ProjectDocument, policy: SelectionPolicy) -> bool:
        """Whether a round may open. Rules are asked again when something has changed, else once in a while only."""
        now, what = self.service.clock.now(), self._look(project, policy)
        before = self._waits.get(project.name)
        if before and before[0] == what and now - before[1] < LOOK_AGAIN:
            return False
        if why_wait(self.candidates.pool(project.name), project, policy, now) is None:
            return True
        if policy.where:
            self._waits[project.name] = (what, now)
        return False

    def _look(self, project: ProjectDocument, policy: SelectionPolicy) -> tuple[Any, ...]:
        """What decides whether a round may open, but for the time."""
        pool = self.candidates.pool(project.name)
        return (pool.revision, pool.epoch, pool.judged, policy.id, policy.version, project.revision)

    async def open_round(
        self, project: ProjectDocument, policy: SelectionPolicy, budget: int | None, dry_run: bool
    ) -> dict[str, Any]:
        """A round on demand. 409 while nothing can be chosen from, and when the policy's budget is used up."""
        async with self.service.lock(TURN):
            pool = self.candidates.pool(project.name)
            if not eligible(pool, policy, self.service.clock.now()):
                wait = why_wait(pool, project, policy, self.service.clock.now())
                raise Problem(409, "no-candidates", f"There is nothing to choose from: {wait}.")
            if (left := budget_left(pool, policy)) == 0:
                raise Problem(409, "budget-used-up", f"The budget of {policy.budget} labels is used up.")
            size = budget if budget is None or left is None else min(budget, left)
            return await self._open_round(project, policy, size, dry_run)

    async def _open_round(
        self, project: ProjectDocument, policy: SelectionPolicy, budget: int | None = None, dry_run: bool = False
    ) -> dict[str, Any]:
        name = project.name
        pool = self.candidates.pool(name)
        now = self.service.clock.now()
        ready = eligible(pool, policy, now, drawn=True)
        await self.fetch_vectors(pool, [*ready, *pool.in_state("SELECTED", "LABELED")])
        size = remaining(pool, policy) if budget is None else budget

        async def write(unit: Unit) -> dict[str, Any]:
            last: dict[str, Any] = await unit.get(f"rounds:{name}") or {"number": 0}
            number = last["number"] + 1
            seed = int(digest(name, str(policy.seed), str(number)).encode().hex()[:12], 16)
            filled = await asyncio.to_thread(fill, pool, ready, policy, size, seed, now)
            record = _round_record(project, policy, pool, number, seed, filled, now)
            if dry_run:
                return {**record, "dry_run": True}
            if not filled.choices:
                return record  # nothing is asked, so there is no round
            await unit.get_many(cand_key(name, choice.candidate.sample_id) for choice in filled.choices)
            for choice in filled.choices:
                await self._select(unit, name, choice, policy, record)
            dropped: dict[str, dict[str, int]] = dict(last.get("dropped", {}))
            dropped[policy.id] = dict(Counter(dropped.get(policy.id, {})) + filled.dropped)
            unit.put(f"rounds:{name}", {"number": number, "dropped": dropped}, guard=True)
            unit.then(lambda: _count(policy, filled, name))
            unit.put(f"rnd:{name}:{record['id']}", record)
            return record

        record = await transact(self.service, write)
        log.info("round", project=name, number=record["number"], picks=len(record["picks"]), dry_run=dry_run)
        return record

    async def _select(
        self, unit: Unit, project: str, choice: Choice, policy: SelectionPolicy, record: dict[str, Any]
    ) -> None:
        key = cand_key(project, choice.candidate.sample_id)
        stored = await unit.get(key)
        if stored is None or stored["state"] != "CANDIDATE":
            return  # another replica was faster
        decision = {
            "round_id": record["id"],
            "policy": {"id": policy.id, "version": policy.version},
            "strategy": choice.strategy,
            "trigger": choice.trigger,
            "reasons": list(choice.reasons),
            "score": choice.priority,
            "model_version": choice.candidate.version,
            "seed": record["seed"],
            "at": record["opened_at"],
            "rules": list(choice.rules),
            **told(choice.candidate),
        }
        if (before := stored["decision"]) and "after_epoch" in before:
            decision["after_epoch"] = before["after_epoch"]
        candidate = choice.candidate.become("SELECTED", decision)
        self.candidates.write(unit, project, candidate, self.service.clock.now())
        event = selected(project, candidate, policy, choice.priority, decision, record["seed"])
        unit.emit(event, guard=key)

    async def _request_scores(self, project: str) -> None:
        pool = self.candidates.pool(project)
        now = self.service.clock.now()
        late = pool.requested_at is None or (now - pool.requested_at).total_seconds() > RESCORE_PATIENCE
        if pool.active == NO_MODEL or not late:
            return
        # What is labelled is scored too, because coverage is measured in the model's own space; a sample of those
        # that can no longer be read must not be asked for over and over.
        stale = pool.stale("LABELED", "SELECTED") if pool.requests < 3 else []
        stale += pool.stale("CANDIDATE")
        if not stale:
            return
        unit = await self.service.unit()
        rescore = f"rsc_{digest(project, pool.active, str(pool.epoch), now.isoformat())}"
        for part, start in enumerate(range(0, len(stale), PART)):
            ids = stale[start : start + PART]
            unit.emit(
                RescoreRequested(
                    project=project, rescore_id=rescore, part=part, model_version=pool.active, sample_ids=ids
                )
            )
        await unit.commit()
        pool.requested_at, pool.requests = now, pool.requests + 1

    async def fetch_vectors(self, pool: ProjectPool, candidates: list[Candidate]) -> None:
        missing = pool.missing_vectors(candidates)
        blocks = await asyncio.gather(*(self.service.blobs.get(uri) for uri in missing))
        for block, wanted in zip(blocks, missing.values(), strict=True):
            pool.keep_block(block, wanted)


def _round_record(
    project: ProjectDocument,
    policy: SelectionPolicy,
    pool: ProjectPool,
    number: int,
    seed: int,
    filled: Filled,
    now: datetime,
) -> dict[str, Any]:
    return {
        "id": round_id(project.name, number),
        "number": number,
        "project": project.name,
        "policy": {"id": policy.id, "version": policy.version},
        "model_version": pool.active,
        "pool": len(pool.ready()),
        "seed": seed,
        "opened_at": now.isoformat(),
        "picks": [
            {
                "sample_id": choice.candidate.sample_id,
                "score": choice.priority,
                "reasons": list(choice.reasons),
                "trigger": choice.trigger,
                "strategy": choice.strategy,
            }
            for choice in filled.choices
        ],
        "dropped": dict(filled.dropped),
    }


def _count(policy: SelectionPolicy, filled: Filled, project: str) -> None:
    SELECTED.labels(project, policy.id).inc(len(filled.choices))
    for reason, count in filled.dropped.items():
        DROPPED.labels(project, policy.id, reason).inc(count)
