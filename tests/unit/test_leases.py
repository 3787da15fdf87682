"""Leases: every move that there is, none that there is not, and what holds over any course of them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from services.contracts.events import Content, SampleSelected
from services.contracts.problem import Problem
from services.label_queue import leases
from services.label_queue.agreement import agreement
from services.label_queue.consensus import quorum
from services.label_queue.tasks import FREE, MOVES, OPEN, IllegalMove, LeaseLost, NotFree, State, Task

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
TTL = timedelta(seconds=120)
HOLD = timedelta(minutes=30)
CONTENT = Content(uri="blob:x", sha256="0" * 64, bytes=1, media_type="image/png")


def selected(round_id: str = "rnd_1", required: int = 1, **more: Any) -> SampleSelected:
    fields = {
        "content": CONTENT,
        "priority": 0.5,
        "reasons": ["margin"],
        "policy": {"id": "default", "version": 1},
        "strategy": "margin",
        "seed": 0,
        "required_labels": required,
    }
    return SampleSelected(project="p", sample_id="smp_a", round_id=round_id, **{**fields, **more})


def task(required: int = 1) -> Task:
    return leases.asked(selected(required=required), NOON)


def leased(required: int = 1, who: str = "ann") -> Task:
    return leases.claim(task(required), who, NOON, TTL)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def test_a_claim_leases_under_the_next_epoch_and_nobody_else_gets_it() -> None:
    held = leased()
    assert (held.state, held.epoch, held.lease and held.lease.until) == (State.LEASED, 1, at(120))
    with pytest.raises(NotFree):
        leases.claim(held, "bob", at(119), TTL)
    again = leases.claim(held, "bob", at(120), TTL)
    assert (again.epoch, again.lease and again.lease.holder) == (2, "bob")


def test_a_heartbeat_extends_up_to_the_longest_hold() -> None:
    held = leased()
    for minute in range(1, 30):
        held = leases.heartbeat(held, "ann", 1, at(60 * minute), TTL, HOLD)
    assert held.lease
    assert held.lease.until == NOON + HOLD
    with pytest.raises(LeaseLost):
        leases.heartbeat(held, "ann", 1, NOON + HOLD, TTL, HOLD)


def test_a_heartbeat_never_shortens_a_lease() -> None:
    short = timedelta(seconds=15)
    assert leases.heartbeat(leased(), "ann", 1, at(1), short, HOLD).lease == leased().lease


@pytest.mark.parametrize(("who", "epoch"), [("bob", 1), ("ann", 2), ("ann", 0)])
def test_only_the_holder_of_the_epoch_may_touch_a_lease(who: str, epoch: int) -> None:
    held = leased()
    for touch in (
        lambda: leases.heartbeat(held, who, epoch, NOON, TTL, HOLD),
        lambda: leases.release(held, who, epoch, NOON),
        lambda: leases.skip(held, who, epoch, NOON, "blurred"),
        lambda: leases.submit(held, who, epoch, "a", NOON),
    ):
        with pytest.raises(LeaseLost):
            touch()


def test_release_and_expiry_give_the_task_back_and_keep_the_epoch() -> None:
    assert leases.release(leased(), "ann", 1, NOON).state == State.QUEUED
    assert leases.expire(leased(), at(119)) is None
    back = leases.expire(leased(), at(120))
    assert back
    assert (back.state, back.epoch, back.lease) == (State.QUEUED, 1, None)


@pytest.mark.parametrize("late", [False, True])
def test_an_answer_under_the_current_epoch_counts_even_after_until(late: bool) -> None:
    held = leased()
    before = leases.expire(held, at(500)) if late else held
    assert before
    after, answer = leases.submit(before, "ann", 1, "a", at(1000))
    assert (after.state, after.value, after.label_revision, answer.kind) == (State.ACCEPTED, "a", 1, "counted")


def test_an_answer_under_an_old_epoch_counts_while_there_is_no_label() -> None:
    second = leases.claim(leased(), "bob", at(200), TTL)
    after, answer = leases.submit(second, "ann", 1, "a", at(201))
    assert (after.state, after.lease, answer.kind) == (State.ACCEPTED, None, "counted")
    final, draft = leases.submit(after, "bob", 2, "b", at(202))
    assert (final.state, final.value, final.label_revision, draft.kind) == (State.ACCEPTED, "a", 1, "draft")


def test_an_old_epoch_beside_a_lease_leaves_the_lease_when_more_answers_are_needed() -> None:
    second = leases.claim(leased(3), "bob", at(200), TTL)
    after, _ = leases.submit(second, "ann", 1, "a", at(201))
    assert (after.state, after.lease and after.lease.holder) == (State.LEASED, "bob")
    final, _ = leases.submit(after, "bob", 2, "a", at(202))
    assert (final.state, final.value) == (State.ACCEPTED, "a")


def test_the_same_answer_again_changes_nothing_and_another_is_refused() -> None:
    after, first = leases.submit(leased(), "ann", 1, "a", NOON)
    again, same = leases.submit(after, "ann", 1, "a", at(9))
    assert again is after
    assert same == first
    with pytest.raises(Problem, match="answered otherwise"):
        leases.submit(after, "ann", 1, "b", at(9))


@pytest.mark.parametrize(
    ("required", "answers", "state"),
    [
        (1, "a", State.ACCEPTED),
        (2, "aa", State.ACCEPTED),
        (2, "ab", State.LABELED),
        (2, "aba", State.ACCEPTED),
        (2, "abc", State.DISPUTED),
        (3, "a", State.LABELED),
        (3, "aa", State.ACCEPTED),
        (3, "abc", State.LABELED),
        (3, "abcb", State.ACCEPTED),
        (3, "abcd", State.DISPUTED),
        (5, "abaa", State.ACCEPTED),
    ],
)
def test_quorum(required: int, answers: str, state: State) -> None:
    now = task(required)
    for number, value in enumerate(answers):
        now = leases.claim(now, f"annotator {number}", NOON, TTL)
        now, _ = leases.submit(now, f"annotator {number}", now.epoch, value, NOON)
    assert now.state == state
    if state == State.DISPUTED:
        solved = leases.resolve(now, "rev", "z", NOON, 1)
        assert (solved.state, solved.value, solved.agreement) == (State.ACCEPTED, "z", 0.0)


def test_an_annotator_never_gets_a_task_twice() -> None:
    after, _ = leases.submit(leased(3), "ann", 1, "a", NOON)
    with pytest.raises(NotFree):
        leases.claim(after, "ann", NOON, TTL)
    assert leases.claim(after, "bob", NOON, TTL).epoch == 2


def test_a_retracted_label_is_asked_again_under_a_new_epoch_and_revision() -> None:
    done, _ = leases.submit(leased(), "ann", 1, "a", NOON)
    gone = leases.retract(done, NOON)
    assert (gone.state, gone.label_revision, gone.value) == (State.RETRACTED, 2, None)
    back = leases.requeue(gone, NOON)
    held = leases.claim(back, "ann", NOON, TTL)
    again, _ = leases.submit(held, "ann", held.epoch, "b", NOON)
    assert (held.epoch, again.label_revision, again.value) == (3, 3, "b")


def test_undo_takes_the_label_back_only_if_the_others_do_not_carry_it() -> None:
    now = task(3)
    for who, value in (("a", "x"), ("b", "y"), ("c", "x")):
        now = leases.claim(now, who, NOON, TTL)
        now, _ = leases.submit(now, who, now.epoch, value, NOON)
    assert now.state == State.ACCEPTED
    assert leases.undo(now, now.answers[1], NOON).state == State.ACCEPTED
    back = leases.undo(now, now.answers[0], NOON)
    assert (back.state, back.label_revision, back.epoch) == (State.LABELED, 2, now.epoch + 1)


@pytest.mark.parametrize(
    ("before", "asks"),
    [
        (task(), False),
        (leased(), False),
        (leases.submit(leased(), "ann", 1, "a", NOON)[0], False),
        (leases.skip(leased(), "ann", 1, NOON, "why"), False),
        (leases.skip(leased(), "ann", 1, NOON, "why", may_return=True), True),
        (leases.retract(leases.submit(leased(), "ann", 1, "a", NOON)[0], NOON), True),
        (leases.withdraw(task(), "privacy", NOON), False),
    ],
)
def test_only_a_new_round_asks_again_and_only_for_what_may_return(before: Task, asks: bool) -> None:
    assert leases.ask_again(before, selected("rnd_1"), NOON) is None
    again = leases.ask_again(before, selected("rnd_2"), NOON)
    assert (again is not None) == asks
    if again:
        assert (again.state, again.rounds, again.epoch) == (State.QUEUED, ("rnd_1", "rnd_2"), before.epoch + 1)


def test_a_move_that_the_table_does_not_have_is_refused() -> None:
    made = task()
    for state in State:
        now = made.model_copy(update={"state": state})
        for other in State:
            if other != state and other not in MOVES[state]:
                with pytest.raises(IllegalMove):
                    now.move(other, NOON)
            else:
                assert now.move(other, NOON).revision == now.revision + 1


def test_agreement_by_pair_and_class() -> None:
    shown = agreement([{"a": "x", "b": "x"}, {"a": "x", "b": "y"}, {"a": "y", "b": "y", "c": "y"}])
    (first, second, _) = shown["pairs"]
    assert (first["annotators"], first["tasks"], first["agreement"]) == (["a", "b"], 3, pytest.approx(2 / 3))
    assert (second["annotators"], second["kappa"]) == (["a", "c"], None)
    assert {row["value"]: row["agreement"] for row in shown["classes"]} == {"x": 2 / 3, "y": pytest.approx(6 / 7)}


@given(st.lists(st.sampled_from("abc"), max_size=8), st.integers(1, 7), st.randoms())
def test_a_quorum_does_not_depend_on_who_came_first(values: list[str], required: int, random: Any) -> None:
    mixed = list(values)
    random.shuffle(mixed)
    one, other = quorum(values, required), quorum(mixed, required)
    assert one.verdict == other.verdict
    if max(map(values.count, "abc")) * 2 > len(values):
        assert one.value == other.value
    if one.verdict == "accepted":
        assert values.count(one.value) > required // 2


class Life(RuleBasedStateMachine):
    """Anybody does anything at any time: what must hold whatever comes."""

    grants = Bundle("grants")

    @initialize(required=st.integers(1, 3))
    def start(self, required: int) -> None:
        self.now = NOON
        self.task = task(required)
        self.granted: dict[int, tuple[str, datetime]] = {}
        self.accepted = 0

    def becomes(self, after: Task) -> None:
        assert after.epoch >= self.task.epoch
        assert after.label_revision >= self.task.label_revision
        assert after is self.task or after.revision > self.task.revision
        self.task = after

    def attempt(self, change: Any) -> Any:
        try:
            return change()
        except (Problem, NotFree):
            return None

    @rule(seconds=st.sampled_from([1, 60, 121, 2000]))
    def wait(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(target=grants, who=st.sampled_from("abcde"))
    def claim(self, who: str) -> tuple[str, int]:
        held = self.task.lease
        if after := self.attempt(lambda: leases.claim(self.task, who, self.now, TTL)):
            assert held is None or held.until <= self.now, "leased while somebody held it"
            assert after.epoch not in self.granted
            assert all(answer.annotator != who for answer in self.task.counted)
            self.becomes(after)
            self.granted[after.epoch] = (who, self.now)
        return who, self.task.epoch

    @rule(grant=grants)
    def heartbeat(self, grant: tuple[str, int]) -> None:
        if after := self.attempt(lambda: leases.heartbeat(self.task, *grant, self.now, TTL, HOLD)):
            assert after.lease
            assert after.lease.until <= self.granted[grant[1]][1] + HOLD
            self.becomes(after)

    @rule(grant=grants)
    def release(self, grant: tuple[str, int]) -> None:
        if after := self.attempt(lambda: leases.release(self.task, *grant, self.now)):
            self.becomes(after)

    @rule(grant=grants, back=st.booleans())
    def skip(self, grant: tuple[str, int], back: bool) -> None:
        if after := self.attempt(lambda: leases.skip(self.task, *grant, self.now, "why", back)):
            self.becomes(after)

    @rule(grant=grants)
    def unskip(self, grant: tuple[str, int]) -> None:
        if after := self.attempt(lambda: leases.unskip(self.task, *grant, self.now)):
            assert (self.task.state, self.task.skipped_by) == (State.SKIPPED, grant[0])
            self.becomes(after)

    @rule(grant=consumes(grants), value=st.sampled_from("xy"))
    def submit(self, grant: tuple[str, int], value: str) -> None:
        if done := self.attempt(lambda: leases.submit(self.task, *grant, value, self.now)):
            after, answer = done
            assert self.granted[grant[1]][0] == grant[0]
            if self.task.state == State.ACCEPTED and answer.kind == "draft":
                assert (after.value, after.label_revision) == (self.task.value, self.task.label_revision)
            self.becomes(after)

    @rule()
    def expire(self) -> None:
        if after := leases.expire(self.task, self.now):
            self.becomes(after)

    @rule(again=st.booleans())
    def retract(self, again: bool) -> None:
        if after := self.attempt(lambda: leases.retract(self.task, self.now)):
            self.becomes(leases.requeue(after, self.now) if again else after)

    @rule(number=st.integers(0, 3))
    def ask(self, number: int) -> None:
        if after := leases.ask_again(self.task, selected(f"rnd_{number}"), self.now):
            assert self.task.state not in OPEN
            self.becomes(after)

    @rule(pick=st.randoms(use_true_random=False))
    def undo(self, pick: Any) -> None:
        if self.task.answers:
            self.becomes(leases.undo(self.task, pick.choice(self.task.answers), self.now))

    @rule()
    def resolve(self) -> None:
        if after := self.attempt(lambda: leases.resolve(self.task, "rev", "x", self.now, 1)):
            self.becomes(after)

    @rule(pick=st.randoms(use_true_random=False), value=st.sampled_from("xy"))
    def revise(self, pick: Any, value: str) -> None:
        if self.task.answers:
            first = pick.choice(self.task.answers)
            if done := self.attempt(lambda: leases.revise(self.task, first.id, value, self.now)):
                after, answer = done
                assert (first.kind, answer.revises) == ("counted", first.id) or after is self.task
                self.becomes(after)

    @invariant()
    def sound(self) -> None:
        now = self.task
        assert (now.lease is not None) == (now.state == State.LEASED)
        assert (now.value is not None) == (now.state == State.ACCEPTED)
        assert (now.state == State.LABELED) <= bool(now.counted)
        assert now.state != State.QUEUED or not now.counted
        assert len({answer.annotator for answer in now.counted}) == len(now.counted)
        assert now.state not in FREE or quorum([a.value for a in now.counted], now.required).verdict == "further"
        assert Task.model_validate(now.model_dump(mode="json", exclude_defaults=True)) == now


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=100, stateful_step_count=30)
