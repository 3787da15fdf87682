"""What an answer may look like, for each kind of task: one form for equal answers, and a pointer to every fault."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contracts.values import BadValue, checked, classes_of

LABELS = ["cat", "dog", "cow"]


@st.composite
def boxes(draw: st.DrawFn) -> dict[str, Any]:
    """A box of some area within the picture."""
    x, y = draw(st.floats(0, 0.9)), draw(st.floats(0, 0.9))
    width, height = draw(st.floats(0.001, 1 - x)), draw(st.floats(0.001, 1 - y))
    return {"label": draw(st.sampled_from(LABELS)), "x": x, "y": y, "width": width, "height": height}


@given(st.lists(boxes(), max_size=8), st.randoms(use_true_random=False))
def test_the_order_of_boxes_means_nothing_and_checking_twice_changes_nothing(found: list[Any], random: Any) -> None:
    once = checked({"boxes": found}, "image-detection", LABELS)
    random.shuffle(found)
    assert checked({"boxes": found}, "image-detection", LABELS) == once
    assert checked(once, "image-detection", LABELS) == once
    assert classes_of(once) == sorted({box["label"] for box in found})
    for box in once["boxes"]:
        for start, size in (("x", "width"), ("y", "height")):
            assert 0 <= box[start] < box[start] + box[size] <= 1 + 1e-9


@given(st.permutations(LABELS))
def test_several_labels_are_in_the_order_of_the_project(chosen: list[str]) -> None:
    assert checked(chosen, "image-multi-label", LABELS) == LABELS


def test_none_of_the_labels_is_an_answer() -> None:
    assert checked([], "text-multi-label", LABELS) == []
    assert checked({"boxes": []}, "image-detection", LABELS) == {"boxes": []}


def _box(**more: Any) -> dict[str, Any]:
    return {"label": "cat", "x": 0.1, "y": 0.1, "width": 0.5, "height": 0.5, **more}


@pytest.mark.parametrize(
    ("task", "value", "pointer", "code"),
    [
        ("image-classification", "fox", "", "unknown-label"),
        ("image-classification", ["cat"], "", "unknown-label"),
        ("image-classification", None, "", "unknown-label"),
        ("image-multi-label", "cat", "", "no-list"),
        ("image-multi-label", ["cat", "fox"], "/1", "unknown-label"),
        ("image-multi-label", ["cat", "cat"], "/1", "twice"),
        ("image-detection", "cat", "", "no-boxes"),
        ("image-detection", {"boxes": "cat"}, "/boxes", "no-boxes"),
        ("image-detection", {"boxes": [{"label": "cat"}]}, "/boxes/0/x", "no-boxes"),
        ("image-detection", {"boxes": [], "more": 1}, "/more", "no-boxes"),
        ("image-detection", {"boxes": [_box(x=float("nan"))]}, "/boxes/0/x", "no-boxes"),
        ("image-detection", {"boxes": [_box(), _box(label="fox")]}, "/boxes/1/label", "unknown-label"),
        ("image-detection", {"boxes": [_box(x=0.6)]}, "/boxes/0/x", "outside"),
        ("image-detection", {"boxes": [_box(y=-0.1)]}, "/boxes/0/y", "outside"),
        ("image-detection", {"boxes": [_box(width=0.0)]}, "/boxes/0", "no-area"),
        ("image-detection", {"boxes": [_box()] * 1001}, "/boxes", "no-boxes"),
    ],
)
def test_what_is_no_answer_is_refused_at_its_place(task: str, value: Any, pointer: str, code: str) -> None:
    with pytest.raises(BadValue) as refused:
        checked(value, task, LABELS)
    assert (refused.value.pointer, refused.value.code) == (pointer, code)
