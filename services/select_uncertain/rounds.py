"""Rounds: when one may open, and whom it asks about. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from services.contracts.events import Trigger
from services.contracts.projects import ProjectDocument, SelectionPolicy
from services.select_uncertain.pool import NO_MODEL, Candidate, Place, ProjectPool
from services.select_uncertain.strategies import STRATEGIES, Pool

Limits = Mapping[Place, tuple[int, Counter[str]]]


@dataclass(frozen=True)
class Choice:
    """A sample that a round asks about, how urgently (0..1), and why."""

    candidate: Candidate
    priority: float
    reasons: tuple[str, ...]
    trigger: Trigger
    strategy: str


def eligible(pool: ProjectPool, policy: SelectionPolicy) -> list[Candidate]:
    """What a round may choose from: ready, of sites and devices that the policy is for, and within their budgets."""
    ready = pool.ready()
    for place, named in (("site", policy.sites), ("device", policy.devices)):
        if named is not None:
            ready = [candidate for candidate in ready if getattr(candidate, place) in named]
    limits = budgets(pool, policy)
    return [candidate for candidate in ready if _allowed(candidate, limits)]


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


def why_wait(pool: ProjectPool, project: ProjectDocument, policy: SelectionPolicy, now: datetime) -> str | None:
    """Why no round opens now, in words; None when one may."""
    low_water = policy.batch // 2 if policy.low_water is None else policy.low_water
    open_tasks = pool.open_tasks
    if open_tasks >= max(low_water, 1):
        return f"{open_tasks} tasks are still open; a round opens below {max(low_water, 1)}"
    if remaining(pool, policy) == 0:
        return f"the budget of {policy.budget} labels is used up"
    if waits_for_model(pool, project, policy, now):
        return f"{pool.new_labels} new labels are in: a model is being trained"
    if stale := pool.stale("CANDIDATE"):
        return f"{len(stale)} samples are still to be scored by {pool.active}"
    ready = len(eligible(pool, policy))
    if ready == 0 and pool.ready():
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
    ready: Sequence[Candidate], arrays: Pool, asked: np.ndarray, policy: SelectionPolicy, budget: int, seed: int
) -> list[Choice]:
    """Up to `budget` of `ready`: a random control, an audit of the confident, the rest by the strategy.

    `arrays` are the embeddings (N, D) and probabilities (N, C) of `ready`; `asked` (M, D) of what is asked already.
    """
    rng = np.random.default_rng(seed)
    chosen: dict[int, Choice] = {}
    if arrays.probabilities is not None and budget > policy.control + policy.audit:
        for index in rng.permutation(len(ready))[: policy.control]:
            chosen[int(index)] = Choice(ready[index], 0.5, ("random control",), "control", "random")
        for index in _confident(arrays.probabilities, policy, rng, chosen):
            reason = f"audit of a prediction at {arrays.probabilities[index].max():.2f}"
            chosen[index] = Choice(ready[index], 0.5, (reason,), "audit", "random")
    rest = np.array([i for i in range(len(ready)) if i not in chosen], dtype=int)
    name = policy.strategy if arrays.probabilities is not None else policy.cold_start
    probabilities = None if arrays.probabilities is None else arrays.probabilities[rest]
    pool = Pool(arrays.embeddings[rest], probabilities)
    for pick in STRATEGIES[name](pool, asked, budget - len(chosen), rng):
        index = int(rest[pick.index])
        chosen[index] = Choice(ready[index], float(np.clip(pick.score, 0, 1)), (pick.reason,), "policy", name)
    return list(chosen.values())


def _confident(
    probabilities: np.ndarray, policy: SelectionPolicy, rng: np.random.Generator, taken: dict[int, Choice]
) -> list[int]:
    sure = np.flatnonzero(probabilities.max(axis=1) >= policy.confident)
    return [int(i) for i in rng.permutation(sure) if int(i) not in taken][: policy.audit]
