"""What a policy's tree says of a sample: true, false or unknown, leaf by leaf, and why. Pure.

Values are Kleene's: false -1, unknown 0, true 1, so that `all` is the least, `any` the greatest and `not` the negative.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any, Protocol

from services.contracts.rules import (
    DAYS,
    FINAL,
    LEDGER,
    All,
    AnyOf,
    Attribute,
    Band,
    Confidence,
    Device,
    During,
    DutyCycle,
    Leaf,
    Not,
    Outcome,
    RandomShare,
    Rule,
    Score,
    ScoredBy,
    Site,
    Stream,
    StreamShare,
    Tagged,
    Weekly,
    leaves,
    zone_of,
)
from services.contracts.week import in_week
from services.select_uncertain.windows import on_duty

FALSE, UNKNOWN, TRUE = -1, 0, 1


@dataclass(frozen=True)
class Facts:
    """What rules may ask of a sample. `flags` are what its stream's thresholds said when it came.

    `outcome` is the predicted class, "" where nothing was found; `classes` are all, where an answer names several.
    """

    sample_id: str
    captured_at: datetime
    confidence: float | None = None
    outcome: str | None = None
    classes: Sequence[str] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    tags: Sequence[str] = ()
    stream: str | None = None
    site: str = ""
    device: str = ""
    version: str = "none"
    active: str = "none"
    flags: Mapping[str, bool] = field(default_factory=dict)

    def key(self, of: str | None) -> str | None:
        """What a quota or spacing counts the sample under; `outcome` is the class."""
        return {None: "", "class": self.outcome, "stream": self.stream, "site": self.site, "device": self.device}[of]


@dataclass(frozen=True)
class Result:
    """A leaf's answer: its value, why in words, and for what is unknown a code to count by."""

    value: int
    why: str
    code: str = ""


class Room(Protocol):
    """What was asked so far, for the leaves that depend on it."""

    def answer(self, rule: Any, facts: Facts) -> Result: ...


@dataclass(frozen=True)
class Judgement:
    """What a tree says of a sample. `final`: it can never be true, whatever model scores it and whatever is asked."""

    passed: bool
    final: bool
    results: Mapping[str, Result]

    def told(self) -> list[dict[str, Any]]:
        """The results as JSON: passed is null where the answer is not known."""
        named = {TRUE: True, FALSE: False, UNKNOWN: None}
        return [{"rule": name, "passed": named[r.value], "why": r.why} for name, r in self.results.items()]


class Tree:
    """A policy's tree, made ready to judge many samples. Without a rule everything passes."""

    def __init__(self, rule: Rule | None) -> None:
        self.rule = rule
        self.leaves: tuple[tuple[str, Leaf], ...] = tuple(leaves(rule)) if rule else ()
        self.counts = any(isinstance(leaf, LEDGER) for _, leaf in self.leaves)
        self.rises = rule is None or not _negates(rule)  # no leaf that turns false can make it true
        self.streams = {stream_flag(leaf): leaf for _, leaf in self.leaves if isinstance(leaf, StreamShare)}

    def settled(self, facts: Facts) -> list[int | None]:
        """The leaves' values that depend on the sample and its scores alone; None for the others."""
        return [None if isinstance(leaf, LEDGER) else ask(leaf, facts).value for _, leaf in self.leaves]

    def passes(self, settled: Sequence[int | None], facts: Callable[[], Facts], room: Room | None) -> bool:
        """Whether a sample may be asked about: `judge` without the words, on values that are settled already."""
        known = [value for value in settled if value is not None]
        if len(known) == len(settled) or room is None:
            return self._value([TRUE if value is None else value for value in settled]) == TRUE
        asked = facts()
        values = [
            room.answer(leaf, asked).value if value is None else value
            for (_, leaf), value in zip(self.leaves, settled, strict=True)
        ]
        return self._value(values) == TRUE

    def judge(self, facts: Facts, room: Room | None = None) -> Judgement:
        """What each leaf says and what follows. `room` answers the leaves about what was asked; without it they count
        as true."""
        answers = [
            ask(leaf, facts)
            if not isinstance(leaf, LEDGER)
            else room.answer(leaf, facts)
            if room
            else Result(TRUE, "not looked at")
            for _, leaf in self.leaves
        ]
        passed = self._value([answer.value for answer in answers]) == TRUE
        named = {name: answer for (name, _), answer in zip(self.leaves, answers, strict=True)}
        return Judgement(passed, not passed and self._final(answers), named)

    def never(self, facts: Facts) -> bool:
        """Whether the tree can never be true of this sample."""
        if self.rule is None or not any(isinstance(leaf, FINAL) for _, leaf in self.leaves):
            return False
        return self._final(
            [Result(FALSE, "") if isinstance(leaf, LEDGER) else ask(leaf, facts) for _, leaf in self.leaves]
        )

    def _final(self, answers: Sequence[Result]) -> bool:
        """Whether no answers of the leaves that may change could make the tree true: interval arithmetic."""
        if self.rule is None:
            return False
        bounds = iter(
            (answer.value, answer.value) if isinstance(leaf, FINAL) else (FALSE, TRUE)
            for (_, leaf), answer in zip(self.leaves, answers, strict=True)
        )
        return _bounds(self.rule, bounds)[1] < TRUE

    def _value(self, values: Sequence[int]) -> int:
        return TRUE if self.rule is None else _bounds(self.rule, iter([(v, v) for v in values]))[0]


def _bounds(rule: Rule, answers: Any) -> tuple[int, int]:
    """Least and greatest value of a tree whose leaves, in order, have these."""
    if isinstance(rule, Not):
        low, high = _bounds(rule.of, answers)
        return -high, -low
    if isinstance(rule, All | AnyOf):
        parts = [_bounds(part, answers) for part in rule.of]
        pick: Callable[[Iterable[int]], int] = min if isinstance(rule, All) else max
        return pick(low for low, _ in parts), pick(high for _, high in parts)
    return next(answers)


def _negates(rule: Rule) -> bool:
    parts = rule.of if isinstance(rule, All | AnyOf) else ()
    return isinstance(rule, Not) or any(map(_negates, parts))


def ask(leaf: Leaf, facts: Facts) -> Result:
    """A leaf's answer about a sample."""
    return _ASK[type(leaf)](leaf, facts)


def stream_flag(leaf: StreamShare) -> str:
    """The name under which a stream's threshold remembers what it said of a sample."""
    return f"{leaf.score}@{leaf.share:g}/{leaf.window}"


def _of(passed: bool, why: str) -> Result:
    return Result(TRUE if passed else FALSE, why)


def _unknown(code: str, why: str) -> Result:
    return Result(UNKNOWN, why, code)


def _band(leaf: Band, value: float, what: str) -> Result:
    inside = leaf.low <= value <= leaf.high
    return _of(inside, f"{what} {value:.4g} is {'' if inside else 'not '}within {leaf.low:g}..{leaf.high:g}")


def _confidence(leaf: Confidence, facts: Facts) -> Result:
    if facts.confidence is None or not math.isfinite(facts.confidence):
        return _unknown("no_confidence", "no model has predicted anything")
    return _band(leaf, facts.confidence, "confidence")


def _score(leaf: Score, facts: Facts) -> Result:
    value = facts.scores.get(leaf.score)
    if value is None or not math.isfinite(value):
        there = ", ".join(sorted(facts.scores)) or "none"
        return _unknown("no_score", f"there is no score {leaf.score!r}; there are: {there}")
    return _band(leaf, value, leaf.score)


def _outcome(leaf: Outcome, facts: Facts) -> Result:
    if facts.outcome is None:
        return _unknown("no_outcome", "no model has predicted a class")
    if not facts.outcome:
        return _unknown("no_outcome", "the model has found nothing")
    there = next((name for name in facts.classes if name in leaf.labels), facts.outcome)
    return _member(there, leaf.labels, "predicted class")


def _member(value: str, wanted: Sequence[str], what: str) -> Result:
    inside = value in wanted
    return _of(inside, f"{what} {value!r} is {'' if inside else 'not '}among {', '.join(wanted[:5])}")


def _attribute(leaf: Attribute, facts: Facts) -> Result:
    if leaf.field not in facts.attributes:
        return _unknown("no_attribute", f"there is no attribute {leaf.field!r}")
    value = facts.attributes[leaf.field]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return _unknown("not_numeric", f"{leaf.field!r} is {str(value)[:40]!r}, which is no number")
    low = -math.inf if leaf.above is None else leaf.above
    high = math.inf if leaf.below is None else leaf.below
    inside = low < value < high
    return _of(inside, f"{leaf.field} {value:g} is {'' if inside else 'not '}between {low:g} and {high:g}")


def _tagged(leaf: Tagged, facts: Facts) -> Result:
    there = [tag for tag in leaf.tags if tag in facts.tags]
    passed = len(there) == len(leaf.tags) if leaf.match == "all" else bool(there)
    return _of(passed, f"has {len(there)} of the tags {', '.join(leaf.tags[:5])}")


def _stream(leaf: Stream, facts: Facts) -> Result:
    if facts.stream is None:
        return _unknown("no_stream", "the sample is of no stream")
    return _member(facts.stream, leaf.streams, "stream")


def _scored_by(leaf: ScoredBy, facts: Facts) -> Result:
    wanted = facts.active if leaf.version == "active" else leaf.version
    if "none" in (facts.version, wanted):
        return _unknown("no_model", "no model has scored it yet")
    return _of(facts.version == wanted, f"scored by {facts.version}, wanted is {wanted}")


def _during(leaf: During, facts: Facts) -> Result:
    at = facts.captured_at
    inside = (leaf.start is None or leaf.start <= at) and (leaf.end is None or at < leaf.end)
    return _of(inside, f"captured at {at.isoformat()}, {'inside' if inside else 'outside'} the window")


def _weekly(leaf: Weekly, facts: Facts) -> Result:
    zone = zone_of(leaf.zone)
    inside = in_week(facts.captured_at, zone, {DAYS.index(day) for day in leaf.days}, leaf.start, leaf.end)
    local = facts.captured_at.astimezone(zone)
    return _of(inside, f"captured on {local:%a %H:%M:%S %Z}, {'inside' if inside else 'outside'} the weekly window")


def _duty(leaf: DutyCycle, facts: Facts) -> Result:
    on = on_duty(facts.captured_at, leaf.share, leaf.period_seconds)
    return _of(on, f"captured while the duty cycle of {leaf.share:g} was {'on' if on else 'off'}")


def chance(*parts: str) -> float:
    """A number in 0..1 that looks drawn at random, and is the same for the same parts."""
    return int.from_bytes(sha256("\x1f".join(parts).encode()).digest()[:8], "big") / 2**64


def _random(leaf: RandomShare, facts: Facts) -> Result:
    drawn = chance("random", leaf.salt, facts.sample_id)
    return _of(drawn < leaf.share, f"drew {drawn:.4f} for a share of {leaf.share:g}")


def _stream_share(leaf: StreamShare, facts: Facts) -> Result:
    said = facts.flags.get(stream_flag(leaf))
    if said is None:
        return _unknown("not_streamed", "it came before this rule did, or with no such score")
    return _of(said, f"{leaf.score} was {'' if said else 'not '}among the highest {leaf.share:.0%} as it came")


_ASK: dict[type, Callable[[Any, Facts], Result]] = {
    Confidence: _confidence,
    Score: _score,
    Outcome: _outcome,
    Attribute: _attribute,
    Tagged: _tagged,
    Stream: _stream,
    Site: lambda leaf, facts: _member(facts.site, leaf.sites, "site"),
    Device: lambda leaf, facts: _member(facts.device, leaf.devices, "device"),
    ScoredBy: _scored_by,
    During: _during,
    Weekly: _weekly,
    DutyCycle: _duty,
    RandomShare: _random,
    StreamShare: _stream_share,
}
