"""What was asked so far, and so what may still be: quotas, spacing and the share of labels. Pure."""

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from services.contracts.rules import Key, LabelShare, Quota, Spacing
from services.select_uncertain.rules import FALSE, TRUE, UNKNOWN, Facts, Result

WITHIN = {"hour": timedelta(hours=1), "day": timedelta(days=1), "total": None}


@dataclass(frozen=True)
class Asked:
    """A question: when it was asked, what about, how it ended if it did (`labelled`, `skipped`, `expired`), and whether
    it was drawn at random, for an audit or as a control."""

    at: datetime
    facts: Facts
    ended: str | None = None
    drawn: bool = False


class Ledger:
    """Answers the rules about what was asked, and takes down what is asked next. `seen` counts all samples.

    Places of a class, stream, site or device are what a strategy may take. What is drawn at random neither needs nor
    takes one, because an audit that is refused by its prediction's class tells nothing of all predictions any more.
    """

    def __init__(self, asked: Iterable[Asked], seen: int, now: datetime) -> None:
        self._asked = list(asked)
        self._seen = seen
        self._now = now
        self._held: dict[int, tuple[Quota, dict[str, int]]] = {}
        self._times: dict[Key | None, dict[str, list[datetime]]] = {}

    def take(self, facts: Facts, drawn: bool = False) -> None:
        """This one is asked about now."""
        one = Asked(self._now, facts, None, drawn)
        self._asked.append(one)
        for quota, held in self._held.values():
            if (key := _place(one, quota.of)) is not None:
                held[key] = held.get(key, 0) + 1
        for of, times in self._times.items():
            if not drawn and (key := facts.key(of)) is not None:
                insort(times.setdefault(key, []), facts.captured_at)

    def drawn(self) -> "Drawn":
        """The same for what is drawn at random."""
        return Drawn(self)

    def answer(self, rule: Any, facts: Facts) -> Result:
        """Whether `rule` leaves room for this sample."""
        if isinstance(rule, LabelShare):
            allowed = int(rule.share * self._seen + 1e-9)
            count = len(self._asked)
            why = f"{count} of {self._seen} samples seen are asked about, {rule.share:.1%} may be"
            return Result(TRUE if count < allowed else FALSE, why)
        key = facts.key(rule.of if isinstance(rule, Quota) else rule.per)
        if key is None:
            return Result(UNKNOWN, "the sample has nothing to count it by", "no_key")
        return self._room(rule, key) if isinstance(rule, Quota) else self._apart(rule, key, facts)

    def _room(self, rule: Quota, key: str) -> Result:
        if id(rule) not in self._held:
            self._held[id(rule)] = (rule, self._count(rule))
        held = self._held[id(rule)][1].get(key, 0)
        what = f" of {rule.of} {key!r}" if rule.of else ""
        return Result(TRUE if held < rule.most else FALSE, f"{held} of {rule.most} places{what} are taken ({rule.per})")

    def _count(self, rule: Quota) -> dict[str, int]:
        held: dict[str, int] = {}
        window = WITHIN[rule.per]
        for one in self._asked:
            recent = window is None or self._now - one.at < window
            key = _place(one, rule.of)
            if recent and key is not None and one.ended not in rule.given_back:
                held[key] = held.get(key, 0) + 1
        return held

    def _apart(self, rule: Spacing, key: str, facts: Facts) -> Result:
        if rule.per not in self._times:
            times: dict[str, list[datetime]] = {}
            for one in self._asked:
                if not one.drawn and (of := one.facts.key(rule.per)) is not None:
                    times.setdefault(of, []).append(one.facts.captured_at)
            self._times[rule.per] = {of: sorted(at) for of, at in times.items()}
        near = self._times[rule.per].get(key, [])
        place = bisect_left(near, facts.captured_at)
        gaps = [abs((at - facts.captured_at).total_seconds()) for at in near[max(0, place - 1) : place + 1]]
        least = min(gaps, default=None)
        if least is None:
            return Result(TRUE, "nothing near it was asked about")
        return Result(TRUE if least >= rule.seconds else FALSE, f"{least:g} s from one that was asked about")


class Drawn:
    """A ledger as those meet it that are drawn at random: what is counted by a key lets them pass."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def answer(self, rule: Any, facts: Facts) -> Result:
        """Only what counts all questions alike may refuse."""
        keyed = isinstance(rule, Spacing) or (isinstance(rule, Quota) and rule.of is not None)
        return Result(TRUE, "drawn at random: needs no place") if keyed else self._ledger.answer(rule, facts)


def _place(one: Asked, of: Key | None) -> str | None:
    """What a question is counted under; None if it does not count."""
    return None if of is not None and one.drawn else one.facts.key(of)
