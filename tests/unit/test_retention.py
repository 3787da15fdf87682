"""Which artefacts may go: never one that is in use, nor one that a comparison needs; the newest of the others stay."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.retrain_trigger.models import no_pointer
from services.retrain_trigger.retention import expendable


def record(number: int, base: int | None = None, gone: bool = False) -> dict[str, Any]:
    lineage = {"base": f"m{base}" if base is not None else None}
    return {"version": f"m{number}", "lineage": lineage, "gone": {"swept": True} if gone else None}


def pointer(*history: int, shadow: int | None = None) -> dict[str, Any]:
    names = [f"m{number}" for number in history]
    return {**no_pointer(), "version": names[-1], "history": names, "shadow": f"m{shadow}" if shadow else None}


def test_the_oldest_of_what_nobody_needs_go() -> None:
    records = [record(number) for number in range(10)]
    assert expendable(records, pointer(3, 7, 8), (), kept=4) == ["m0", "m1", "m2", "m3"]
    assert expendable(records, pointer(3, 7, 8), ("m1",), kept=4) == ["m0", "m2", "m3"]
    assert expendable(records, pointer(7, 8, shadow=2), (), kept=0) == ["m0", "m1", "m3", "m4", "m5", "m6", "m9"]


def test_who_the_kept_were_judged_against_is_kept() -> None:
    records = [record(0), record(1), record(2, base=0), record(3, base=1)]
    assert expendable(records, pointer(2, 3), (), kept=0) == []


@given(st.integers(1, 12), st.integers(0, 5), st.data())
def test_what_is_in_use_never_goes(count: int, kept: int, data: st.DataObject) -> None:
    bases = [data.draw(st.none() | st.integers(0, number - 1)) if number else None for number in range(count)]
    records = [record(number, base, data.draw(st.booleans())) for number, base in enumerate(bases)]
    serves = data.draw(st.lists(st.integers(0, count - 1), min_size=1, unique=True))
    going = expendable(records, pointer(*serves), ("m0",), kept)
    assert not set(going) & {f"m{number}" for number in serves[-2:]}
    assert "m0" not in going
    assert all(not one["gone"] for one in records if one["version"] in going)
    left = [one for one in records if not one["gone"] and one["version"] not in going]
    assert len(left) >= min(kept, sum(not one["gone"] for one in records))
