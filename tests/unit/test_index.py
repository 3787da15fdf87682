"""The index of samples: appending, counting, filters and cursors."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contracts.problem import Problem
from services.ingest import index
from services.runtime.memory import MemoryState
from services.runtime.ports import Put

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def header(name: str, minute: int = 0, stream: str | None = None, *tags: str) -> index.Header:
    return [name, (NOON + timedelta(minutes=minute)).timestamp(), stream, list(tags)]


@given(st.lists(st.integers(0, 9)), st.lists(st.integers(0, 9)))
def test_appending_twice_is_appending_once(first: list[int], second: list[int]) -> None:
    rows = index.appended([], [header(str(n)) for n in dict.fromkeys(first)])
    new = [header(str(n)) for n in dict.fromkeys(second)]
    once = index.appended(rows, new)
    assert index.appended(once, new) == once
    assert len({row[0] for row in once}) == len(once)


def test_a_filter_is_half_open_in_time() -> None:
    row = header("a", 0, "cam", "night")
    assert index.Filter(since=NOON, until=NOON + timedelta(seconds=1), tag="night", stream="cam").takes(row)
    for wrong in (
        index.Filter(until=NOON),
        index.Filter(since=NOON + timedelta(seconds=1)),
        index.Filter(tag="day"),
        index.Filter(stream="other"),
    ):
        assert not wrong.takes(row)


@pytest.mark.parametrize("text", ["", "1", "1.2", "a.b.c", "1.2.x", "-1.2.3", "1.2.3.4", "١.x.1"])
def test_a_strange_cursor_is_a_400(text: str) -> None:
    if text == "1.2":
        assert index.Place.read(text).left is None
        return
    with pytest.raises(Problem) as caught:
        index.Place.read(text)
    assert caught.value.status == 400


@given(sizes=st.lists(st.integers(0, 7), min_size=1, max_size=5), limit=st.integers(1, 9), shards=st.integers(1, 3))
async def test_pages_together_are_everything_once(sizes: list[int], limit: int, shards: int) -> None:
    state, names = MemoryState(), []
    for shard in range(shards):
        await state.commit([Put(index.head_key("p", shard), {"segment": len(sizes) - 1, "counts": {"STORED": 1}})])
        for number, size in enumerate(sizes):
            rows = [header(f"{shard}-{number}-{n}") for n in range(size)]
            names += [row[0] for row in rows]
            records: list[Any] = [
                Put(f"smp:p:{row[0]}", {"sample_id": row[0], "shard": shard, "state": "STORED"}) for row in rows
            ]
            await state.commit([Put(index.segment_key("p", shard, number), {"rows": rows}), *records])
    read: list[str] = []
    cursor = None
    while True:
        found = await index.page(state, "p", index.Filter(), limit, cursor)
        assert len(found.items) <= limit
        read += [row["sample_id"] for row in found.items]
        if found.cursor is None:
            break
        cursor = found.cursor
    assert sorted(read) == sorted(names)
    assert await index.counts(state, "p") == {"STORED": shards}
