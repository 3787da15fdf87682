"""Rounds: when one may open, and whom it asks about. Pure."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from services.contracts.events import Trigger
from services.contracts.projects import ProjectDocument, SelectionPolicy
from services.select_uncertain import stopping
from services.select_uncertain.candidate import NO_MODEL, Candidate
from services.select_uncertain.pool import Place, ProjectPool
from services.select_uncertain.rules import chance
from services.select_uncertain.strategies import STRATEGIES, Pool

Limits = Mapping[Place, tuple[int, Counter[str]]]


@dataclass(frozen=True)
class Choice:
    """A sample that a round asks about, how urgently (0..1), and why; `rules` is what the policy's tree says of it."""

    candidate: Candidate
    priority: float
    reasons: tuple[str, ...]
    trigger: Trigger
    strategy: str
    rules: tuple[dict[str, Any], ...] = ()

    @property
    def drawn(self) -> bool:
        """Whether chance chose it, and no strategy."""
        return self.trigger in ("control", "audit")


def eligible(pool: ProjectPool, policy: SelectionPolicy, now: datetime, drawn: bool = False) -> list[Candidate]:
    """What a strategy may choose from: ready, of the policy's places, within their budgets, and passed by its rules.

    With `drawn`, what chance may choose from: quotas of a class and the like leave nothing out there.
    """
    ready = pool.ready()
    for place, named in (("site", policy.sites), ("device", policy.devices)):
        if named is not None:
            ready = [candidate for candidate in ready if getattr(candidate, place) in named]
    limits = budgets(pool, policy)
    ready = [candidate for candidate in ready if _allowed(candidate, limits)]
    tree = pool.tree(policy)
    if tree.rule is None:
        return ready
    room = pool.ledger(now) if tree.counts else None
    if room and drawn:
        room = room.drawn()
    return [candidate for candidate in ready if pool.passes(candidate, tree, room)]


def budgets(pool: ProjectPool, policy: SelectionPolicy) -> Limits:
    """Labels that may be asked for of each site or device in all, and how many were; only where there is a limit."""
    most: dict[Place, int | None] = {"site": policy.site_budget, "device": policy.device_budget}
    return {place: (limit, pool.asked_by(place)) for place, limit in most.items() if limit is not None}


def within_budgets(choices: Sequence[Choice], limits: Limits) -> list[Choice]:
    """The choices, in their order, without those that would take a site or a device over its budget."""
    limits = {place: (most, Counter(asked)) for place, (most, asked) in limits.items()}
    kept = []
    for choice in choices:
        if _allowed(choice.candidate, limits):
            for place, (_, asked) in limits.items():
                asked[getattr(choice.candidate, place)] += 1
            kept.append(choice)
    return kept


def _allowed(candidate: Candidate, limits: Limits) -> bool:
    return all(asked[getattr(candidate, place)] < most for place, (most, asked) in limits.items())


def remaining(pool: ProjectPool, policy: SelectionPolicy) -> int:
    """Labels that the policy still allows, at most one round's."""
    size = policy.first_batch or policy.batch if pool.active == NO_MODEL else policy.batch
    left = budget_left(pool, policy)
    return size if left is None else min(size, left)


def budget_left(pool: ProjectPool, policy: SelectionPolicy) -> int | None:
    """Labels that the policy still allows in all; None without a limit."""
    return None if policy.budget is None else max(0, policy.budget - pool.asked)


def stop_verdict(pool: ProjectPool, policy: SelectionPolicy) -> dict[str, Any]:
    """Whether more labels still help, as the policy's stop rule sees it."""
    return stopping.verdict(policy.stop, [row["accuracy"] for row in pool.history], pool.audited("audit"))


def why_wait(pool: ProjectPool, project: ProjectDocument, policy: SelectionPolicy, now: datetime) -> str | None:
    """Why no round opens now, in words; None when one may."""
    low_water = policy.batch // 2 if policy.low_water is None else policy.low_water
    open_tasks = pool.open_tasks
    if open_tasks >= max(low_water, 1):
        return f"{open_tasks} tasks are still open; a round opens below {max(low_water, 1)}"
    if remaining(pool, policy) == 0:
        return f"the budget of {policy.budget} labels is used up"
    if policy.stop and policy.stop.pause and (verdict := stop_verdict(pool, policy))["paused"]:
        return f"selection is paused by the policy's stop rule: {verdict['why']}"
    if waits_for_model(pool, project, policy, now):
        return f"{pool.new_labels} new labels are in: a model is being trained"
    if stale := pool.stale("CANDIDATE"):
        return f"{len(stale)} samples are still to be scored by {pool.active}"
    return _too_few(pool, policy, now)


def _too_few(pool: ProjectPool, policy: SelectionPolicy, now: datetime) -> str | None:
    ready = len(eligible(pool, policy, now))
    if ready == 0 and pool.ready():
        if policy.where is not None:
            return "no sample that waits passes the policy's rules now; POST /v1/policies/{id}:test says which fail"
        return "no sample that waits is of a site or device that the policy may still ask about"
    if ready == 0:
        return "no sample waits to be chosen"
    if pool.asked:
        return None
    least = policy.min_pool or 10 * policy.batch
    settled = pool.changed_at is None or (now - pool.changed_at).total_seconds() >= policy.settle_seconds
    if ready < least and not settled:
        return f"the pool is still filling: {ready} of {least} samples"
    return None


def waits_for_model(pool: ProjectPool, project: ProjectDocument, policy: SelectionPolicy, now: datetime) -> bool:
    """Whether labels that are in are about to become a better model, which should choose the next batch."""
    if pool.new_labels < project.trigger.n or pool.last_label_at is None:
        return False
    if any(pool.label_counts[label] < project.trigger.min_per_class for label in project.labels):
        return False  # no run will start, so ask for more
    return (now - pool.last_label_at).total_seconds() < policy.wait_seconds


def choose(
    ready: Sequence[Candidate],
    arrays: Pool,
    asked: np.ndarray,
    policy: SelectionPolicy,
    budget: int,
    seed: int,
    barred: Collection[int] = (),
) -> list[Choice]:
    """Up to `budget` of `ready`: a random control, an audit of the confident, the rest by the strategy.

    `arrays` are the embeddings (N, D) and the scores of `ready`; `asked` (M, D) of what is asked already.
    `barred` indices are not for the strategy, but for chance.
    """
    rng = np.random.default_rng(seed)
    chosen: dict[int, Choice] = {}

    def draw(indices: Sequence[int], trigger: Trigger, why: Callable[[int], str]) -> None:
        for index in indices:
            chosen[index] = Choice(ready[index], 0.5, (why(index),), trigger, "random")

    if arrays.is_scored and budget > policy.control + policy.audit:
        confidence = _confidence(ready, arrays)
        draw([int(i) for i in rng.permutation(len(ready))[: policy.control]], "control", lambda _: "random control")
        sure = np.flatnonzero(confidence >= policy.confident)
        audit = [int(i) for i in rng.permutation(sure) if int(i) not in chosen][: policy.audit]
        share = [i for i in _by_share(ready, sure, policy) if i not in chosen and i not in audit]
        audit += share[: max(0, budget // 2 - len(chosen) - len(audit))]
        draw(audit, "audit", lambda i: f"audit of a prediction at {confidence[i]:.2f}")
    rest = np.array([i for i in range(len(ready)) if i not in chosen and i not in barred], dtype=int)
    name = policy.strategy if arrays.is_scored else policy.cold_start
    for pick in STRATEGIES[name](arrays.part(rest), asked, budget - len(chosen), rng):
        index = int(rest[pick.index])
        chosen[index] = Choice(ready[index], float(np.clip(pick.score, 0, 1)), (pick.reason,), "policy", name)
    return list(chosen.values())


def _confidence(ready: Sequence[Candidate], arrays: Pool) -> np.ndarray:
    """(N,) how sure the model is of its whole answer."""
    if arrays.probabilities is not None:
        return arrays.probabilities.max(axis=1)
    return np.array([(candidate.top or {}).get("confidence", 0.0) for candidate in ready])


def _by_share(ready: Sequence[Candidate], sure: np.ndarray, policy: SelectionPolicy) -> list[int]:
    """Those of the confident that `audit_share` draws. Each model's predictions are drawn from anew: what is left of an
    earlier draw is no random sample any more."""
    if policy.audit_share == 0.0:
        return []
    drawn = {int(i): chance("audit", str(policy.seed), ready[i].version, ready[i].sample_id) for i in sure}
    return sorted((i for i, at in drawn.items() if at < policy.audit_share), key=drawn.__getitem__)
