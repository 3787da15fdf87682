"""The rules of a collection policy: a tree of all, any and not over what is known of a sample. Data, never code.

A leaf is true, false, or unknown where what it asks for is missing; only a tree that is true lets a sample be asked
about (Kleene's three-valued logic). `FINAL` leaves never change for a sample, `LEDGER` leaves depend on what was asked.
"""

from collections.abc import Iterator
from datetime import time
from functools import cache
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Names = Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(min_length=1, max_length=1000)]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
Key = Literal["class", "stream", "site", "device"]
GivenBack = Literal["labelled", "skipped", "expired"]

MOST_RULES = 200
DEEPEST = 12


@cache
def zones() -> frozenset[str]:
    """Every IANA name that this machine knows."""
    return frozenset(available_timezones())


class Node(BaseModel):
    """What all rules have: a name for the statistics; by default its place in the tree."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,62}$")


class All(Node):
    """Every one of these."""

    rule: Literal["all"]
    of: list["Rule"] = Field(min_length=1, max_length=50)


class AnyOf(Node):
    """At least one of these."""

    rule: Literal["any"]
    of: list["Rule"] = Field(min_length=1, max_length=50)


class Not(Node):
    """Not this one; what is unknown stays unknown."""

    rule: Literal["not"]
    of: "Rule"


class Band(Node):
    """`low` <= value <= `high`."""

    low: Share = 0.0
    high: Share = 1.0

    @field_validator("high")
    @classmethod
    def _ordered(cls, high: float, info: ValidationInfo) -> float:
        if high < info.data.get("low", 0.0):
            raise ValueError(
                f"high ({high}) is below low ({info.data['low']}); swap them: both ends are inside the band"
            )
        return high


class Confidence(Band):
    """The confidence of the most probable class lies in the band, its ends included."""

    rule: Literal["confidence"]


class Score(Band):
    """An uncertainty score (`margin`, `entropy`, `least_confidence`, ...) lies in the band, its ends included."""

    rule: Literal["score"]
    score: str = Field(min_length=1, max_length=60, description="the score's name, as SampleScored has it")


class Outcome(Node):
    """The predicted class is one of these."""

    rule: Literal["outcome"]
    labels: Names


class Attribute(Node):
    """A number among the sample's attributes lies strictly between the thresholds."""

    rule: Literal["attribute"]
    field: str = Field(min_length=1, max_length=200)
    above: float | None = None
    below: float | None = None

    @field_validator("below")
    @classmethod
    def _bounded(cls, below: float | None, info: ValidationInfo) -> float | None:
        above = info.data.get("above")
        if below is not None and above is not None and below <= above:
            raise ValueError(f"nothing is above {above} and below {below}; below must be the greater number")
        return below

    @model_validator(mode="after")
    def _limited(self) -> "Attribute":
        if self.above is None and self.below is None:
            raise ValueError("say above, below, or both; without a threshold there is nothing to compare with")
        return self


class Tagged(Node):
    """The sample has all (or at least one) of these tags."""

    rule: Literal["tagged"]
    tags: Names
    match: Literal["all", "any"] = "all"


class Stream(Node):
    """The sample is of one of these streams."""

    rule: Literal["stream"]
    streams: Names


class Site(Node):
    """The sample is of one of these sites."""

    rule: Literal["site"]
    sites: Names


class Device(Node):
    """The sample is of one of these devices."""

    rule: Literal["device"]
    devices: Names


class ScoredBy(Node):
    """The scores are this model version's; `active` is whichever serves."""

    rule: Literal["model_version"]
    version: str = Field(default="active", min_length=1, max_length=200)


class During(Node):
    """Captured in a window: `start` is inside, `end` is not. Either end may be left open."""

    rule: Literal["during"]
    start: AwareDatetime | None = None
    end: AwareDatetime | None = None

    @field_validator("end")
    @classmethod
    def _ordered(cls, end: AwareDatetime | None, info: ValidationInfo) -> AwareDatetime | None:
        start = info.data.get("start")
        if end is not None and start is not None and end <= start:
            raise ValueError(f"end ({end.isoformat()}) is not after start ({start.isoformat()})")
        return end

    @model_validator(mode="after")
    def _limited(self) -> "During":
        if self.start is None and self.end is None:
            raise ValueError("say start, end, or both")
        return self


class Weekly(Node):
    """Captured at a local time of day, `start` inside and `end` not, on days by their name where the window starts.

    An `end` before `start` is on the next day. A window that starts in the gap of a clock change starts at the first
    instant after it; one in the repeated hour holds in both.
    """

    rule: Literal["weekly"]
    zone: str = Field(description="IANA name, such as Europe/Berlin")
    days: list[Day] = Field(default=list(DAYS), min_length=1, max_length=7)
    start: time | None = Field(default=None, description="none: from midnight")
    end: time | None = Field(default=None, description="none: to midnight")

    @field_validator("zone")
    @classmethod
    def _known(cls, zone: str) -> str:
        if zone not in zones():
            raise ValueError(
                f"{zone!r} is no time zone that is known here; say an IANA name such as Europe/Berlin or UTC"
            )
        return zone

    @field_validator("start", "end", mode="before")
    @classmethod
    def _written(cls, value: object) -> object:
        if value is not None and not isinstance(value, str | time):
            raise ValueError('a time of day is written "HH:MM"')
        return value

    @field_validator("start", "end")
    @classmethod
    def _local(cls, value: time | None) -> time | None:
        if value is not None and value.tzinfo is not None:
            raise ValueError("a time of day has no offset here: the zone says what it means")
        return value

    @field_validator("end")
    @classmethod
    def _lasting(cls, end: time | None, info: ValidationInfo) -> time | None:
        if end is not None and end == info.data.get("start"):
            raise ValueError("start and end are the same; leave both away for the whole day")
        return end


class DutyCycle(Node):
    """Captured in the switched-on `share` of time: of every period, at a place that moves from one to the next."""

    rule: Literal["duty_cycle"]
    share: Share
    period_seconds: float = Field(default=60.0, ge=1, le=86_400)


class RandomShare(Node):
    """In a random share of all samples, by a hash of the sample's id: the same sample is always in or always out."""

    rule: Literal["random"]
    share: Share
    salt: str = Field(default="", max_length=200, description="another salt draws another share")


class Spacing(Node):
    """Captured at least so long before and after each sample of the same class, stream or site that was asked about."""

    rule: Literal["spacing"]
    seconds: float = Field(gt=0, le=31_536_000)
    per: Key | None = Field(default=None, description="none: whatever it is of")


class Quota(Node):
    """No more than so many questions hold a place: per hour, per day or in all, and of each class, stream or site.

    Hours and days are the last 3,600 and 86,400 seconds, so no burst slips in where one ends. A question gives its
    place back when it is labelled, skipped or expires, as `given_back` says.
    """

    rule: Literal["quota"]
    most: int = Field(ge=0, le=1_000_000)
    per: Literal["hour", "day", "total"] = "total"
    of: Key | None = Field(default=None, description="none: one quota for all samples")
    given_back: list[GivenBack] = Field(default=["labelled", "skipped", "expired"], max_length=3)


class LabelShare(Node):
    """At most this share of the samples seen is asked about."""

    rule: Literal["label_share"]
    share: Share


class StreamShare(Node):
    """Among the least certain `share` of the stream, decided as each sample comes, whatever way scores drift."""

    rule: Literal["stream_share"]
    share: Annotated[float, Field(gt=0, lt=1)]
    score: str = Field(default="margin", min_length=1, max_length=60)
    window: int = Field(default=500, ge=20, le=10_000, description="samples that the threshold looks back on")


Leaf = (
    Confidence
    | Score
    | Outcome
    | Attribute
    | Tagged
    | Stream
    | Site
    | Device
    | ScoredBy
    | During
    | Weekly
    | DutyCycle
    | RandomShare
    | Spacing
    | Quota
    | LabelShare
    | StreamShare
)
Rule = Annotated[All | AnyOf | Not | Leaf, Field(discriminator="rule")]

FINAL = (Attribute, Tagged, Stream, Site, Device, During, Weekly, DutyCycle, RandomShare)
"""Leaves whose answer about a sample never changes."""
LEDGER = (Spacing, Quota, LabelShare)
"""Leaves whose answer depends on what was asked before."""

for _node in (All, AnyOf, Not):
    _node.model_rebuild()


def leaves(rule: "Rule", at: str = "") -> Iterator[tuple[str, Leaf]]:
    """(name, leaf) for each leaf, in order; without a name of its own it is its kind and its JSON pointer."""
    if isinstance(rule, All | AnyOf):
        for index, part in enumerate(rule.of):
            yield from leaves(part, f"{at}/of/{index}")
    elif isinstance(rule, Not):
        yield from leaves(rule.of, f"{at}/of")
    else:
        yield rule.name or f"{rule.rule}{at and ' '}{at}", rule


def depth(rule: "Rule") -> int:
    """1 for a leaf."""
    parts = rule.of if isinstance(rule, All | AnyOf) else [rule.of] if isinstance(rule, Not) else []
    return 1 + max(map(depth, parts), default=0)


def checked(rule: "Rule | None") -> "Rule | None":
    """The rule. Raises ValueError for a tree that is too large, or that has two rules of one name."""
    if rule is None:
        return None
    if (deep := depth(rule)) > DEEPEST:
        raise ValueError(f"rules are {deep} deep; {DEEPEST} is the most")
    named = [name for name, _ in leaves(rule)]
    if len(named) > MOST_RULES:
        raise ValueError(f"{len(named)} rules; {MOST_RULES} is the most")
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise ValueError(f"two rules have the name {twice[0]!r}; the statistics could not tell them apart")
    return rule


def zone_of(name: str) -> ZoneInfo:
    """Cached by zoneinfo itself."""
    return ZoneInfo(name)
