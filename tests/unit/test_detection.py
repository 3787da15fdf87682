"""From a detector's places to the boxes that it finds, and which boxes mean the same: against the plain definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contracts.boxes import matched, overlap, sides
from services.contracts.detection import decoded, found, told
from services.contracts.events import Detection
from services.contracts.manifest import Thresholds
from services.contracts.values import MAX_BOXES, agree, checked

LABELS = ["cat", "dog", "cow"]
seeds = st.integers(0, 2**32 - 1)


def places(seed: int, samples: int = 3, count: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (N, M, 4), some of them beyond the edge or without area, and probabilities (N, M, 3)."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(-0.2, 1.0, (samples, count, 2))
    boxes = np.concatenate([corner, rng.uniform(-0.1, 0.6, (samples, count, 2))], axis=2)
    p = rng.dirichlet(np.full(len(LABELS) + 1, 0.3), (samples, count))[..., :-1]
    return boxes.astype(np.float32), p.astype(np.float32)


def plainly(boxes: np.ndarray, p: np.ndarray, thresholds: Thresholds) -> list[tuple[float, int]]:
    """(confidence, place) of one picture's boxes: the definition of non-maximum suppression, one box at a time."""
    kept: list[tuple[float, int, int, np.ndarray]] = []
    for at in sorted(range(len(boxes)), key=lambda at: -p[at].max()):
        sure, label = float(p[at].max()), int(p[at].argmax())
        x, y, width, height = map(float, boxes[at])
        ends = np.clip([x, y, x + width, y + height], 0, 1)
        box = np.round([ends[0], ends[1], ends[2] - ends[0], ends[3] - ends[1]], 6)
        if sure < thresholds.confidence or (box[2:] <= 0).any():
            continue
        if all(label != other or shared(box, cut) <= thresholds.overlap for _, _, other, cut in kept):
            kept.append((sure, at, label, box))
    return [(sure, at) for sure, at, _, _ in kept]


def shared(one: np.ndarray, other: np.ndarray) -> float:
    wide = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    high = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    both = max(wide, 0) * max(high, 0)
    return both / (one[2] * one[3] + other[2] * other[3] - both)


@given(seeds, st.floats(0.05, 0.9), st.floats(0.05, 1.0))
def test_what_is_found_is_what_the_plain_definition_finds(seed: int, confidence: float, most: float) -> None:
    boxes, p = places(seed)
    thresholds = Thresholds(confidence=confidence, overlap=most)
    for at, rows in enumerate(decoded(boxes, p, LABELS, thresholds)):
        wanted = plainly(boxes[at], p[at], thresholds)
        assert [row.confidence for row in rows] == pytest.approx([sure for sure, _ in wanted], abs=1e-6)
        assert [row.label for row in rows] == [LABELS[p[at][place].argmax()] for _, place in wanted]


@given(seeds)
def test_pictures_do_not_touch_each_other_and_values_are_in_their_one_form(seed: int) -> None:
    boxes, p = places(seed)
    thresholds = Thresholds(confidence=0.3)
    together = decoded(boxes, p, LABELS, thresholds)
    assert together == [decoded(boxes[[at]], p[[at]], LABELS, thresholds)[0] for at in range(len(boxes))]
    for rows in together:
        given_ = {"boxes": [row.model_dump(exclude={"confidence"}) for row in rows]}
        value = checked(given_, "image-detection", LABELS)
        assert sorted(map(str, given_["boxes"])) == sorted(map(str, value["boxes"]))


def test_no_more_boxes_than_an_answer_may_have() -> None:
    side = 40
    corners = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2) / side
    boxes = np.concatenate([corners, np.full_like(corners, 1 / side)], axis=1)[None]
    p = np.linspace(0.6, 0.9, side * side)[None, :, None]
    (rows,) = decoded(boxes, p, ["cat"], Thresholds())
    assert len(rows) == MAX_BOXES < side * side
    assert rows[0].confidence == pytest.approx(0.9)


@pytest.mark.parametrize("samples", [0, 2])
def test_without_places_nothing_is_found(samples: int) -> None:
    none = found(np.zeros((samples, 0, 4)), np.zeros((samples, 0, 3)), Thresholds())
    assert told(none, samples, LABELS) == [[]] * samples


def test_a_box_beyond_the_edge_is_cut() -> None:
    (rows,) = decoded(np.array([[[-0.5, 0.9, 1.0, 1.0]]]), np.array([[[0.8]]]), ["cat"], Thresholds())
    assert rows == [Detection(label="cat", confidence=0.8, x=0.0, y=0.9, width=0.5, height=0.1)]


def answer(seed: int, count: int) -> dict:
    rng = np.random.default_rng(seed)
    corner, size = rng.uniform(0, 0.5, (count, 2)), rng.uniform(0.05, 0.5, (count, 2))
    rows = np.concatenate([corner, size], axis=1).tolist()
    return {
        "boxes": [
            dict(zip(("label", "x", "y", "width", "height"), (LABELS[at % 3], *row), strict=True))
            for at, row in enumerate(rows)
        ]
    }


def moved(value: dict, by: float) -> dict:
    return {"boxes": [{**box, "x": box["x"] + by * box["width"]} for box in value["boxes"]]}


@given(seeds, st.integers(0, 8), st.randoms(use_true_random=False))
def test_answers_agree_whatever_the_order_and_a_little_to_the_side(seed: int, count: int, random) -> None:
    value = answer(seed, count)
    shuffled = {"boxes": random.sample(value["boxes"], count)}
    assert agree(value, shuffled)
    if count == 1:
        # Shifted by s of its width a box shares (1 - s) / (1 + s) with what it was: one half at s = 1/3.
        assert agree(value, moved(value, 0.33))
        assert not agree(value, moved(value, 0.34))
    if count:
        assert not agree(value, {"boxes": value["boxes"][1:]})
        assert not agree(value, {"boxes": [{**value["boxes"][0], "label": "fox"}, *value["boxes"][1:]]})


@given(seeds, seeds, st.integers(0, 6), st.integers(0, 6))
def test_agreeing_goes_both_ways(one: int, other: int, few: int, many: int) -> None:
    ours, theirs = answer(one, few), answer(other, many)
    assert agree(ours, theirs) == agree(theirs, ours)
    pairs = matched(ours["boxes"], theirs["boxes"])
    assert len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs) <= min(few, many)
    shares = overlap(sides(ours["boxes"])[:, None], sides(theirs["boxes"])[None])
    assert all(shares[pair] >= 0.5 for pair in pairs)


def test_lists_and_labels_agree_when_they_are_equal() -> None:
    assert agree("cat", "cat")
    assert not agree("cat", "dog")
    assert agree(["cat", "dog"], ["cat", "dog"])
    assert not agree(["cat"], ["cat", "dog"])
    assert not agree(["cat"], "cat")
    assert not agree({"boxes": []}, "cat")
