"""When the answers to one task amount to a label: the quorum. Pure.

Labels, and lists of labels, are equal as a whole or they are not: what nobody said is never accepted. Boxes are put
together: those of a label that overlap (`boxes.SAME`) are one thing, which is there, as their mean, if a majority drew
it, and is not if a majority did not. Where a majority drew something but disagrees what or where, nothing is settled.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from services.contracts.boxes import SAME, overlap, sides
from services.contracts.values import in_order

TOUCHING = 0.1
"""Overlap from which two boxes may be meant for one thing."""


@dataclass(frozen=True)
class Outcome:
    """What the answers so far amount to; `value` and `agreement` (share of the answers) once they are accepted.

    The agreement about boxes is the mean over the things that anybody drew.
    """

    verdict: Literal["accepted", "further", "disputed"]
    value: Any = None
    agreement: float = 0.0


def quorum(values: Sequence[Any], required: int) -> Outcome:
    """`required` answers are asked for; a majority of them accepts, as soon as it is there.

    One annotator more is asked when they do not agree, and after that the task is disputed.
    """
    half = required // 2
    if len(values) > half:
        found = _of_boxes(values, half) if all(isinstance(value, dict) for value in values) else _alike(values, half)
        if found is not None:
            return found
    return Outcome("further" if len(values) <= required else "disputed")


def canonical(value: Any) -> str:
    """Equal answers are equal text, whatever the order of their fields."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def merged(answers: Sequence[Any]) -> dict[str, Any]:
    """The boxes that more than half of the answers have, each the mean of theirs."""
    drawn = _Drawn(answers)
    return drawn.value(group for group in drawn.groups if len(group) > len(answers) / 2)


def _alike(values: Sequence[Any], half: int) -> Outcome | None:
    best, votes = Counter(map(canonical, values)).most_common(1)[0]
    return Outcome("accepted", json.loads(best), votes / len(values)) if votes > half else None


def _of_boxes(values: Sequence[Any], half: int) -> Outcome | None:
    drawn, total = _Drawn(values), len(values)
    there = [group for group in drawn.groups if len(group) > half]
    rest = [group for group in drawn.groups if len(group) <= half]
    if any(total - len(group) <= half for group in rest) or drawn.contested(rest, half):
        return None
    if not there and sum(bool(value["boxes"]) for value in values) > half:
        return None  # most have found something, each another thing: that there is nothing is what none of them said
    shares = [max(len(group), total - len(group)) / total for group in drawn.groups]
    return Outcome("accepted", drawn.value(there), sum(shares) / len(shares) if shares else 1.0)


class _Drawn:
    """The boxes of all answers, in groups: one thing each, with one box of an answer at most."""

    def __init__(self, answers: Sequence[Any]) -> None:
        self._boxes = [box for answer in answers for box in answer["boxes"]]
        self._owners = np.repeat(np.arange(len(answers)), [len(answer["boxes"]) for answer in answers])
        self._sides = sides(self._boxes)
        self._shares = overlap(self._sides[:, None], self._sides[None])
        self.groups = self._grouped()

    def contested(self, groups: Sequence[Sequence[int]], half: int) -> bool:
        """Whether so many have drawn something at one place that it cannot be nothing."""
        left = np.array([at for group in groups for at in group], int)
        near = self._shares[np.ix_(left, left)] >= TOUCHING
        return any(len(set(self._owners[left[row]].tolist())) > half for row in near)

    def value(self, groups: Iterable[Sequence[int]]) -> dict[str, Any]:
        """The mean of each group; sorted before, so that the order of the answers does not even change a digit."""
        means = ((group[0], np.sort(self._sides[list(group)], axis=0).mean(axis=0).tolist()) for group in groups)
        return in_order((str(self._boxes[first]["label"]), *mean) for first, mean in means)

    def _grouped(self) -> list[list[int]]:
        """Around the boxes that most overlaps with first; each takes of every other answer the box that fits best."""
        labels = np.array([box["label"] for box in self._boxes], object)
        same = (labels[:, None] == labels[None]) & (self._owners[:, None] != self._owners[None])
        fits = np.where(same & (self._shares >= SAME), self._shares, 0.0)
        left = np.ones(len(labels), bool)
        groups: list[list[int]] = []
        for seed in np.argsort(-fits.sum(axis=1), kind="stable"):
            if not left[seed]:
                continue
            group = [int(seed)]
            for owner in np.unique(self._owners[left & (fits[seed] > 0)]):
                mine = np.flatnonzero(left & (self._owners == owner))
                group.append(int(mine[fits[seed][mine].argmax()]))
            left[group] = False
            groups.append(group)
        return groups
