"""Boxes as x, y, width and height in fractions of a picture: how far they overlap, and which of two sets mean the same.

Pure. A box of either set is matched with one of the other at most, the greatest overlap first, as COCO's evaluation
does: https://cocodataset.org/#detection-eval
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

SIDES = ("x", "y", "width", "height")
SAME = 0.5
"""Overlap (intersection over union) from which two boxes of a label are taken for one thing."""

Boxed = Sequence[Mapping[str, Any]]
"""Boxes with their labels, as values have them."""


def sides(boxes: Boxed) -> np.ndarray:
    """(B, 4) of x, y, width and height."""
    rows = [[box[side] for side in SIDES] for box in boxes]
    return np.array(rows, np.float64).reshape(-1, 4)


def overlap(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(..., 4) and (..., 4) -> (...): intersection over union of each with its counterpart, broadcast; 0 of no area."""
    low = np.maximum(one[..., :2], other[..., :2])
    high = np.minimum(one[..., :2] + one[..., 2:], other[..., :2] + other[..., 2:])
    both = np.maximum(high - low, 0.0).prod(axis=-1)
    either = one[..., 2:].prod(axis=-1) + other[..., 2:].prod(axis=-1) - both
    return np.divide(both, either, out=np.zeros_like(both), where=either > 0)


def matched(ours: Boxed, theirs: Boxed, least: float = SAME) -> list[tuple[int, int]]:
    """Places of the boxes that are one thing to both: of one label, and overlapping by `least`."""
    labels = [np.array([box["label"] for box in boxes], object) for boxes in (ours, theirs)]
    shares = overlap(sides(ours)[:, None], sides(theirs)[None])
    shares = np.where(labels[0][:, None] == labels[1][None], shares, 0.0)
    rows, columns = np.nonzero(shares >= least)
    left, right = set(range(len(ours))), set(range(len(theirs)))
    pairs: list[tuple[int, int]] = []
    for at in np.argsort(-shares[rows, columns], kind="stable"):
        pair = int(rows[at]), int(columns[at])
        if pair[0] in left and pair[1] in right:
            left.remove(pair[0])
            right.remove(pair[1])
            pairs.append(pair)
    return pairs
