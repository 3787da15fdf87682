"""When annotators agree: the quorum on one task, and agreement by pair and by class over many. Pure."""

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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


def agreement(tasks: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Over tasks, each {annotator: value}: who agrees with whom, and on which class.

    A pair's agreement is the share of their common tasks with equal answers, its kappa that share corrected for
    chance (Cohen 1960; None when chance alone would agree). A class's is the specific agreement
    2·both / (both + either), over all pairs of answers (Cicchetti and Feinstein 1990).
    """
    pairs: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for answers in tasks:
        named = sorted((annotator, canonical(value)) for annotator, value in answers.items())
        for (one, first), (other, second) in itertools.combinations(named, 2):
            pairs.setdefault((one, other), []).append((first, second))
    return {
        "pairs": [_pair(names, both) for names, both in sorted(pairs.items())],
        "classes": _classes([both for answers in pairs.values() for both in answers]),
    }


def _pair(names: tuple[str, str], answers: Sequence[tuple[str, str]]) -> dict[str, Any]:
    total = len(answers)
    equal = sum(first == second for first, second in answers) / total
    firsts, seconds = Counter(a for a, _ in answers), Counter(b for _, b in answers)
    chance = sum(firsts[label] * seconds[label] for label in firsts) / total**2
    kappa = (equal - chance) / (1 - chance) if chance < 1 else None
    return {"annotators": list(names), "tasks": total, "agreement": equal, "kappa": kappa}


def _classes(answers: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    named = Counter(itertools.chain.from_iterable(answers))
    agreed = Counter(first for first, second in answers if first == second)
    return [
        {"value": json.loads(label), "answers": count, "agreement": 2 * agreed[label] / count}
        for label, count in sorted(named.items())
    ]
