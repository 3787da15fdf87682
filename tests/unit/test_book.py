"""What a replica remembers: whoever asks gets the best that fits, however ranks change. Hypothesis prints its seed."""

from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.label_queue import book as module
from services.label_queue.book import Book, Entry
from services.label_queue.tasks import State, Task

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def task(number: int, priority: float, revision: int, **more: Any) -> Task:
    fields = {"project": "p", "sample_id": str(number), "created_at": NOW, "changed_at": NOW, "asked": True}
    state = {"state": State.QUEUED, "priority": priority, "revision": revision, **more}
    return Task.model_validate({"id": f"tsk_{number:03}", **fields, **state})


def anybody(_: Entry) -> bool:
    return True


RANKS = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 100)), min_size=1, max_size=200)


@given(RANKS, st.integers(0, 20))
def test_tasks_come_by_their_newest_rank_and_each_once(ranks: list[tuple[int, int]], odd: int) -> None:
    book, newest = Book(), dict[str, tuple[float, int]]()
    for revision, (number, priority) in enumerate(ranks, start=1):
        book.observe(task(number, priority / 100, revision))
        order = newest.get(f"tsk_{number:03}", (0.0, len(newest)))[1]
        newest[f"tsk_{number:03}"] = (-priority / 100, order)
    expected = sorted(newest, key=lambda name: newest[name])
    fitting = [name for name in expected if int(name[-3:]) != odd]
    assert book.take(3, lambda entry: int(entry.id[-3:]) != odd) == fitting[:3]
    book.settle(fitting[:3])
    assert book.take(100, anybody) == expected
    assert book.take(100, anybody) == [], "nobody else gets them"
    book.settle(expected)
    assert book.take(100, anybody) == expected


def test_old_ranks_do_not_pile_up() -> None:
    book = Book()
    for revision in range(1, 1000):
        for number in range(20):
            book.observe(task(number, (revision * (number + 1) % 101) / 101, revision))
    assert len(book._free) <= 2 * 20 + module.SPARE + 1
    assert len(book.take(100, anybody)) == 20
