"""Filling a round: a choice must find room within quotas, below its class's cap, apart from near-duplicates. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np

from services.contracts.projects import SelectionPolicy
from services.select_uncertain.budgets import Ledger
from services.select_uncertain.candidate import Candidate
from services.select_uncertain.duplicates import fresh
from services.select_uncertain.pool import ProjectPool
from services.select_uncertain.rounds import Choice, Limits, budgets, choose, within_budgets

TRIES = 8
"""Times that a strategy is asked again for what quotas or near-duplicates have left empty in a round."""


@dataclass
class Filled:
    """A round's choices, and how many were left out of it for want of room, by the reason."""

    choices: list[Choice] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


def fill(
    pool: ProjectPool, ready: Sequence[Candidate], policy: SelectionPolicy, size: int, seed: int, now: datetime
) -> Filled:
    """Up to `size` of `ready`, within all quotas: what one choice uses up, the next one does not get."""
    filled = Filled()
    gate = Gate(pool, policy, now)
    rest, rules = list(ready), policy
    for turn in range(TRIES):
        wanted = size - len(filled.choices)
        if wanted < 1 or not rest:
            break
        asked = gate.asked_vectors()
        barred = gate.barred(rest)
        choices = choose(rest, pool.arrays(rest, policy.aggregate), asked, rules, wanted, seed + turn, barred)
        choices = within_budgets(choices, gate.budgets)
        before = len(filled.choices)
        for choice in choices:
            if (refusal := gate.refusal(choice)) is not None:
                filled.dropped[refusal] += 1
            else:
                filled.choices.append(gate.take(choice))
        if len(filled.choices) - before == len(choices):
            break
        looked_at = {choice.candidate.sample_id for choice in choices}
        rest = [candidate for candidate in rest if candidate.sample_id not in looked_at]
        rules = policy.model_copy(update={"control": 0, "audit": 0, "audit_share": 0.0})
    return filled


class Gate:
    """Lets the choices of a round in, one by one."""

    def __init__(self, pool: ProjectPool, policy: SelectionPolicy, now: datetime) -> None:
        self._pool, self._policy = pool, policy
        self._tree = pool.tree(policy)
        # Only leaves that count ask it, and it takes a look at everything that was ever asked.
        self._ledger: Ledger = pool.ledger(now) if self._tree.counts else Ledger((), 0, now)
        self.budgets: Limits = budgets(pool, policy)
        self._open = _open_by_class(pool) if policy.open_per_class else {}
        self._taken: list[str] = []

    def asked_vectors(self) -> np.ndarray:
        """Embeddings (M, D) of what is asked already, this round's choices included."""
        return self._pool.asked_vectors(self._taken)

    def barred(self, candidates: Sequence[Candidate]) -> set[int]:
        """Which of these the strategy may not take as things stand."""
        if not self._tree.counts:
            return set()
        passes = self._pool.passes
        return {i for i, one in enumerate(candidates) if not passes(one, self._tree, self._ledger)}

    def refusal(self, choice: Choice) -> str | None:
        """Why there is no room for a choice: the rule's name, `near_duplicate` or `open_per_class`."""
        candidate = choice.candidate
        if self._tree.counts:
            room = self._ledger.drawn() if choice.drawn else self._ledger
            judged = self._tree.judge(candidate.facts(self._pool.active), room)
            if not judged.passed:
                return next((name for name, result in judged.results.items() if result.value < 1), "rules")
        if choice.drawn:
            return None
        if self._policy.near_duplicate is not None:
            vector = self._pool.arrays([candidate]).embeddings
            if not fresh(vector, self.asked_vectors(), self._policy.near_duplicate)[0]:
                return "near_duplicate"
        if self._policy.open_per_class is not None:
            there = self._open.get(candidate.outcome, [])
            if len(there) >= self._policy.open_per_class and choice.priority <= min(there):
                return "open_per_class"
        return None

    def take(self, choice: Choice) -> Choice:
        """The choice with what the rules said of it; it is asked about now."""
        facts = choice.candidate.facts(self._pool.active)
        room = self._ledger.drawn() if choice.drawn else self._ledger
        told = tuple(self._tree.judge(facts, room).told())
        self._ledger.take(facts, choice.drawn)
        self._taken.append(choice.candidate.sample_id)
        for place, (_, asked) in self.budgets.items():
            asked[getattr(choice.candidate, place)] += 1
        if not choice.drawn:
            there = self._open.setdefault(facts.outcome, [])
            there.append(choice.priority)
            if self._policy.open_per_class is not None and len(there) > self._policy.open_per_class:
                there.remove(min(there))
        return replace(choice, rules=told)


def _open_by_class(pool: ProjectPool) -> dict[str | None, list[float]]:
    """Priorities of the questions that are open, by the class that is predicted now."""
    found: dict[str | None, list[float]] = {}
    for candidate in pool.in_state("SELECTED"):
        if candidate.trigger == "policy" and candidate.decision:
            found.setdefault(candidate.outcome, []).append(candidate.decision.get("score", 0.0))
    return found


def evictable(pool: ProjectPool, most: int) -> list[Candidate]:
    """Open questions beyond `most` of a predicted class, the least valuable first to go; never one that somebody is at,
    nor what was drawn at random."""
    by_class: dict[str | None, list[Candidate]] = {}
    for candidate in pool.in_state("SELECTED"):
        if candidate.trigger == "policy":
            by_class.setdefault(candidate.outcome, []).append(candidate)
    found: list[Candidate] = []
    for candidates in by_class.values():
        free = [c for c in candidates if c.sample_id not in pool.leased]
        free.sort(key=lambda c: ((c.decision or {}).get("score", 0.0), c.sample_id))
        found += free[: max(0, len(candidates) - most)]
    return found
