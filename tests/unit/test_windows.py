"""Windows of a stream: each is made once, when its last point is there, whatever the order that points come in."""

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.ingest.windows import Stream


def _point(number: int) -> dict[str, Any]:
    return {"row": {"t": number}}


def _play(length: int, order: Sequence[Sequence[int]]) -> tuple[Stream, list[int]]:
    """The stream after these batches, and the windows that were made on the way, read and written each time."""
    record, made = None, []
    for batch in order:
        stream = Stream.read(record, length).added({number: _point(number) for number in batch})
        ends = stream.completed(batch)
        for end in ends:
            assert stream.rows(end) == [{"t": number} for number in range(end - length + 1, end + 1)]
        made += ends
        record = stream.added({}, ends).trimmed().record()
    return Stream.read(record, length), made


@given(st.integers(1, 6), st.integers(0, 20))
def test_in_order_there_is_none_before_it_is_full_and_one_a_point_after(length: int, count: int) -> None:
    stream, made = _play(length, [[number] for number in range(count)])
    assert made == list(range(length - 1, count))
    assert len(stream.points) <= 2 * length


@given(st.integers(1, 6), st.lists(st.integers(1, 40), max_size=4))
def test_a_batch_of_many_windows_makes_every_one(length: int, sizes: list[int]) -> None:
    numbers = iter(range(sum(sizes)))
    stream, made = _play(length, [[next(numbers) for _ in range(size)] for size in sizes])
    assert made == list(range(length - 1, sum(sizes)))
    assert len(stream.points) <= 2 * length


@given(st.data(), st.integers(1, 6))
def test_order_and_repetition_within_a_window_change_nothing(data: st.DataObject, length: int) -> None:
    count = length + data.draw(st.integers(0, length), label="more")
    numbers = data.draw(st.permutations(range(count)), label="order")
    again = data.draw(st.lists(st.sampled_from(range(count))), label="again")
    batches = [[number] for number in [*numbers, *again]]
    _, made = _play(length, batches)
    assert sorted(made) == list(range(length - 1, count))


def test_a_gap_is_never_bridged() -> None:
    _, made = _play(3, [[0], [1], [3], [4]])
    assert made == []
    _, made = _play(3, [[0], [1], [3], [4], [2]])
    assert made == [2, 3, 4]


def test_a_point_of_the_past_is_let_go_and_a_stream_stays_small() -> None:
    stream = Stream(3).added({number: _point(number) for number in range(100)}).trimmed()
    assert sorted(stream.points) == list(range(94, 100))
    assert stream.closed == 93
    assert stream.added({5: _point(5)}).trimmed().points == stream.points


def test_what_is_there_stays_as_it_was() -> None:
    assert Stream(2).added({0: _point(0)}).added({0: _point(9)}).points[0] == _point(0)
