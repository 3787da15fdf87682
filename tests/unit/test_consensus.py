"""The quorum of boxes: one thing for many is their mean, what most did not draw is not there, the rest is disputed."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contracts.values import agree, checked
from services.label_queue.consensus import Outcome, merged, quorum

LABELS = ["cat", "dog", "cow"]


def box(x: float, y: float = 0.1, label: str = "cat", width: float = 0.2) -> dict[str, Any]:
    return {"label": label, "x": x, "y": y, "width": width, "height": 0.2}


def drawn(*boxes: dict[str, Any]) -> dict[str, Any]:
    return checked({"boxes": list(boxes)}, "image-detection", LABELS)


@pytest.mark.parametrize(
    ("answers", "required", "verdict", "kept", "agreement"),
    [
        ([drawn(box(0.1))], 1, "accepted", drawn(box(0.1)), 1.0),
        ([drawn()], 1, "accepted", drawn(), 1.0),
        ([drawn(box(0.1))], 2, "further", None, 0.0),
        ([drawn(box(0.1)), drawn(box(0.14))], 2, "accepted", drawn(box(0.12)), 1.0),
        ([drawn(), drawn()], 3, "accepted", drawn(), 1.0),
        # One saw nothing: a third decides, either way.
        ([drawn(box(0.1)), drawn()], 2, "further", None, 0.0),
        ([drawn(box(0.1)), drawn(), drawn(box(0.12))], 2, "accepted", drawn(box(0.11)), 2 / 3),
        ([drawn(box(0.1)), drawn(), drawn()], 2, "accepted", drawn(), 2 / 3),
        # Each misses another of three things: all of them are there.
        (
            [drawn(box(0.1), box(0.4)), drawn(box(0.1), box(0.7)), drawn(box(0.4), box(0.7))],
            3,
            "accepted",
            drawn(box(0.1), box(0.4), box(0.7)),
            2 / 3,
        ),
        # All saw something there, and no two the same: that is not nothing.
        ([drawn(box(0.1)), drawn(box(0.2)), drawn(box(0.1, label="dog"))], 3, "further", None, 0.0),
        ([drawn(box(0.1)), drawn(box(0.1, label="cow")), drawn(box(0.1, label="dog"))] * 2, 5, "disputed", None, 0.0),
        # Two boxes of one annotator are two things, however near.
        ([drawn(box(0.1), box(0.11)), drawn(box(0.1), box(0.11))], 2, "accepted", drawn(box(0.1), box(0.11)), 1.0),
    ],
)
def test_what_boxes_amount_to(answers: list[Any], required: int, verdict: str, kept: Any, agreement: float) -> None:
    found = quorum(answers, required)
    assert (found.verdict, found.agreement) == (verdict, pytest.approx(agreement))
    assert found.value == kept


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 4), st.randoms(use_true_random=False))
def test_whoever_draws_nearly_the_same_agrees_and_the_order_means_nothing(
    seed: int, things: int, people: int, random: Any
) -> None:
    rng = np.random.default_rng(seed)
    cells = rng.permutation(9)[:things]  # far from each other
    answers = []
    for _ in range(people):
        shift = rng.uniform(-0.02, 0.02, (things, 2))
        rows = [
            {**box(0.05 + cell % 3 * 0.3 + dx, 0.05 + cell // 3 * 0.3 + dy), "label": LABELS[cell % 3]}
            for cell, (dx, dy) in zip(cells, shift, strict=True)
        ]
        answers.append(drawn(*rows))
    found = quorum(answers, people)
    assert (found.verdict, found.agreement) == ("accepted", 1.0)
    assert all(agree(found.value, answer) for answer in answers)
    assert checked(found.value, "image-detection", LABELS) == found.value
    assert quorum(random.sample(answers, people), people).value == merged(answers) == found.value


def test_lists_are_equal_as_a_whole_or_not_at_all() -> None:
    assert quorum([["cat"], ["cat", "dog"]], 2) == Outcome("further")
    assert quorum([["cat"], ["cat", "dog"], ["cat"]], 2) == Outcome("accepted", ["cat"], 2 / 3)
    assert quorum([["cat"], ["dog"], ["cow"]], 2) == Outcome("disputed")
    assert quorum([[]], 1) == Outcome("accepted", [], 1.0)


def test_that_most_have_found_something_else_is_not_that_there_is_nothing() -> None:
    """Each thing has a majority against it; a picture without anything has none for it either."""
    cat, dog, cow = (
        {"boxes": [{"label": "cat", "x": at, "y": at, "width": 0.1, "height": 0.1}]} for at in (0.0, 0.4, 0.8)
    )
    nothing = {"boxes": []}
    assert quorum([cat, dog, cow], 2).verdict == "disputed"
    assert quorum([cat, dog, cow], 3).verdict == "further"
    assert quorum([cat, nothing, nothing], 2).value == nothing
