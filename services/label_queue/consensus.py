"""When the answers to one task amount to a label: the quorum. Pure."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Outcome:
    """What the answers so far amount to; `value` and `agreement` (share of the answers) once they are accepted."""

    verdict: Literal["accepted", "further", "disputed"]
    value: Any = None
    agreement: float = 0.0


def quorum(values: Sequence[Any], required: int) -> Outcome:
    """`required` answers are asked for; a majority of them accepts, as soon as it is there.

    One annotator more is asked when they do not agree, and after that the task is disputed.
    """
    counts = Counter(map(canonical, values))
    if counts:
        best, votes = counts.most_common(1)[0]
        if votes > required // 2:
            return Outcome("accepted", json.loads(best), votes / len(values))
    return Outcome("further" if len(values) <= required else "disputed")


def canonical(value: Any) -> str:
    """Equal answers are equal text, whatever the order of their fields."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
