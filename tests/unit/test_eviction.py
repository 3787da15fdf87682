"""What goes first: never more bytes than the budget, never what is promised, always what is worth least."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.eviction import Full, Going, Kept, Ledger, Limits, told, worth

TTL = 7200.0
DAY = 86_400.0
SIZE = 100

unit = st.floats(0, 1, allow_nan=False)


@dataclass
class Site:
    """A stream of samples into a ledger: each comes, is scored, and may be asked about; an uplink may take it."""

    budget: int
    asks_from: float = 1.1  # the score from which a sample is asked about
    ttl: float = TTL
    now: float = 0.0
    values: dict[str, float] = field(default_factory=dict)
    gone: list[Going] = field(default_factory=list)
    refused: int = 0

    def __post_init__(self) -> None:
        self.ledger = Ledger(Limits(self.budget, self.ttl))

    def comes(self, value: float, size: int = SIZE) -> str | None:
        name = f"p/{len(self.values) + self.refused}"
        try:
            self._go(self.ledger.room(size, self.now))
        except Full:
            self.refused += 1
            return None
        self.ledger.put(name, Kept(size, self.now, "unscored"))
        self.values[name] = value
        self.check()
        return name

    def scored(self, name: str) -> None:
        if name not in self.ledger.kept:
            return
        value = self.values[name]
        kept = told(self.ledger.kept[name], "sample.scored", self.now, {"scores": {"margin": value}})
        if value >= self.asks_from:
            kept = told(kept, "sample.selected", self.now, {"priority": value})
        self.ledger.put(name, kept)
        self._go(self.ledger.surplus(self.now))
        self.check()

    def check(self) -> None:
        kept = self.ledger.kept.values()
        assert self.ledger.bytes == sum(one.bytes for one in kept) <= self.budget
        assert self.ledger.new == sum(one.bytes for one in kept if one.standing == "unscored")

    def _go(self, going: list[Going]) -> None:
        for one in going:
            promised = one.kept.standing == "selected" and not one.kept.uploaded
            assert not (promised and self.now - one.kept.since < self.ttl), "it was promised"
            assert one.kept.standing != "labelled"
        self.gone += going


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


@given(st.lists(unit, min_size=60, max_size=200), st.integers(1, 4), st.sampled_from([0.0, 0.5, 1.1]))
def test_under_a_tenth_of_the_room_the_kept_are_worth_more(values: list[float], lag: int, asks: float) -> None:
    """Whatever the order, with scores that come late, asked about or not: in every run, once no promise is in force."""
    site = Site(len(values) // 10 * SIZE, asks, ttl=0)  # whole samples, so that the newcomers' share has room for one
    waiting: list[str] = []
    for value in values:
        site.now += 600
        if name := site.comes(value):
            waiting.append(name)
        while len(waiting) >= lag:
            site.scored(waiting.pop(0))
    for name in waiting:
        site.scored(name)
    kept = [site.values[name] for name in site.ledger.kept]
    dropped = [one.kept.value for one in site.gone if one.kept.standing != "unscored"]
    assert len(kept) >= len(values) // 10 * 8 // 10
    if dropped:
        assert mean(kept) >= mean(dropped)
        assert min(kept) >= max(dropped)


@given(st.lists(st.tuples(unit, st.integers(1, 400), st.booleans()), max_size=150), st.integers(400, 3000))
def test_bytes_never_exceed_the_budget_and_no_promise_is_broken(samples: list[tuple], budget: int) -> None:
    site = Site(budget, 0.7)
    for value, size, late in samples:
        site.now += 300
        name = site.comes(value, size)
        if name and not late:
            site.scored(name)


@given(st.lists(unit, min_size=1, max_size=40), unit)
def test_who_goes_is_worth_least(values: list[float], newcomer: float) -> None:
    site = Site(len(values) * SIZE * 2, 1.1)
    for value in values:
        site.scored(site.comes(value) or "")
    before = [kept.value for kept in site.ledger.kept.values()]
    site.ledger.limits = Limits(len(values) * SIZE, TTL)
    site.budget = len(values) * SIZE
    site.comes(newcomer)
    assert [one.kept.value for one in site.gone] == sorted(before)[: len(site.gone)]
    assert site.gone


def test_the_order_is_uploaded_discarded_unscored_if_crowded_then_value() -> None:
    ledger = Ledger(Limits(600, TTL))
    states = {
        "dear": Kept(100, 1, "scored", 0.9),
        "cheap": Kept(100, 2, "scored", 0.1),
        "young": Kept(100, 9, "unscored"),
        "old": Kept(100, 3, "unscored"),
        "no": Kept(100, 4, "discarded", 0.99),
        "up": Kept(100, 5, "selected", 1.0, since=5, uploaded=True),
    }
    for name, kept in states.items():
        ledger.put(name, kept)
    gone = [one for _ in states for one in ledger.room(600 - ledger.bytes + 100, 10)]
    assert [one.name for one in gone] == ["up", "no", "old", "young", "cheap", "dear"]
    assert [one.reason for one in gone] == ["uploaded", "discarded", "unscored", "unscored", "value", "value"]


def test_what_is_promised_or_labelled_refuses_the_newcomer_and_stays() -> None:
    ledger = Ledger(Limits(300, TTL))
    ledger.put("asked", Kept(100, 0, "selected", 0.2, since=0))
    ledger.put("labelled", Kept(100, 0, "labelled", 0.2, since=0))
    ledger.put("cheap", Kept(100, 0, "scored", 0.2, since=0))
    with pytest.raises(Full):
        ledger.room(200, TTL - 1)
    assert set(ledger.kept) == {"asked", "labelled", "cheap"}
    assert [one.reason for one in ledger.room(200, TTL)] == ["value", "ttl"]
    with pytest.raises(Full):
        ledger.room(301, TTL)


def test_fourteen_days_offline_keep_the_best_and_then_each_goes_up_once() -> None:
    """A sample a minute, a question for each that scores 0.8 and more, and a disk for an eighth of those."""
    import random

    rng = random.Random(14)
    minutes = int(14 * DAY / 60)
    site = Site(budget=minutes // 40 * SIZE, asks_from=0.8)
    for _ in range(minutes):
        site.now += 60
        if name := site.comes(rng.random()):
            site.scored(name)
    kept = [name for name, one in site.ledger.kept.items() if one.standing == "selected"]
    lost = [one for one in site.gone if one.kept.standing == "selected"]
    assert {one.reason for one in lost} == {"ttl"}
    # What was asked about in the last two hours is all there; before that, the best.
    recent = [one for one in site.ledger.kept.values() if one.standing == "selected" and site.now - one.since < TTL]
    old = [one for one in site.ledger.kept.values() if one.standing == "selected" and site.now - one.since >= TTL]
    assert not [one for one in lost if site.now - one.kept.since < TTL]
    assert len(recent) > 10
    assert mean([one.value for one in old]) > mean([one.kept.value for one in lost]) + 0.05
    for name in kept:
        site.ledger.put(name, told(site.ledger.kept[name], "sample.uploaded", site.now, {}))
    # Uploaded, they make room before anything else does, each once.
    site.gone.clear()
    site._go(site.ledger.room(site.budget, site.now))
    assert sorted(one.name for one in site.gone if one.reason == "uploaded") == sorted(kept)


def test_events_in_any_order_lead_to_the_same_standing() -> None:
    selected = ("sample.selected", 5.0, {"priority": 0.4})
    scored = ("sample.scored", 3.0, {"scores": {"margin": 0.9}})
    discarded = ("sample.discarded", 4.0, {})

    def after(*events: tuple) -> tuple[str, float]:
        kept = Kept(1, 0, "unscored")
        for event in events:
            kept = told(kept, *event)
        return kept.standing, kept.value

    assert after(scored, selected) == after(selected, scored) == ("selected", 0.4)
    assert after(scored, discarded)[0] == after(discarded, scored)[0] == "discarded"
    rescored = ("sample.scored", 6.0, {"scores": {"margin": 0.2}})
    assert after(scored, discarded, rescored) == ("scored", 0.2)
    assert after(("sample.scored", 1.0, {"scores": {}})) == ("unscored", 0.0)


def test_worth_is_margin_else_the_highest() -> None:
    assert worth({"margin": 0.2, "entropy": 0.9}) == 0.2
    assert worth({"entropy": 0.9, "least_confidence": 0.4}) == 0.9
    assert worth({"margin": 1.5}) == 1.0
    assert worth({}) is None
