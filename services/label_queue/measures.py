"""From answers to what is known of annotators and of tasks in dispute. Pure."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from services.label_queue.agreement import agreement
from services.label_queue.consensus import canonical
from services.label_queue.dawid_skene import Estimate, estimate
from services.label_queue.intervals import newcombe, share
from services.label_queue.tasks import Answer, State, Task

CELLS = 20_000_000  # of confusion matrices; beyond, reliability is not estimated

Ballot = tuple[int, str, str]  # task, annotator, value as canonical text


@dataclass(frozen=True)
class Report:
    """`agreement` as it is served, `annotators` by name, `disputed`: task id -> what the reviewer is suggested."""

    agreement: dict[str, Any]
    annotators: dict[str, dict[str, Any]]
    disputed: dict[str, dict[str, Any]]


@dataclass
class _Person:
    answers: int = 0
    seconds: list[float] = field(default_factory=list)
    gold: list[bool] = field(default_factory=list)
    equal: list[bool] = field(default_factory=list)  # with each other answer to the same task
    follows: dict[bool, list[bool]] = field(default_factory=lambda: {True: [], False: []})  # by: was it shown
    revised: int = 0


def report(people: Iterable[str], tasks: Sequence[Task], gold: Mapping[str, Task], probes: Sequence[Task]) -> Report:
    """`tasks` are those with answers, `gold` the true ones by id, `probes` the copies that annotators were given."""
    persons = {name: _Person() for name in people}
    for task in tasks:
        _count(persons, task)
    tested = [(task, gold[task.id]) for task in probes if task.id in gold and task.counted]
    for task, master in tested:
        for answer in task.counted:
            person = persons.setdefault(answer.annotator, _Person())
            person.gold.append(canonical(answer.value) == canonical(master.value))
            _time(person, answer)
    found = _estimated(tasks, tested)
    rows = {name: _row(name, person, found.reliability.get(name)) for name, person in sorted(persons.items())}
    disputed = [task.id for task in tasks if task.state == State.DISPUTED]
    return Report(
        agreement([{a.annotator: a.value for a in task.counted} for task in tasks]),
        rows,
        {name: found.suggested[name] for name in disputed if name in found.suggested},
    )


def _count(persons: dict[str, _Person], task: Task) -> None:
    for answer in task.counted:
        person = persons.setdefault(answer.annotator, _Person())
        person.answers += 1
        person.revised += answer.revises is not None
        _time(person, answer)
        value = canonical(answer.value)
        others = [other for other in task.counted if other.annotator != answer.annotator]
        person.equal += [canonical(other.value) == value for other in others]
        if task.prelabel is not None:
            person.follows[answer.suggestion != "never"].append(value == canonical(task.prelabel.label))


def _time(person: _Person, answer: Answer) -> None:
    if answer.seconds is not None and not answer.revises:
        person.seconds.append(answer.seconds)


def _row(name: str, person: _Person, reliability: float | None) -> dict[str, Any]:
    shown, blind = (person.follows[was] for was in (True, False))
    both = (sum(shown), len(shown)), (sum(blind), len(blind))
    gap = sum(shown) / len(shown) - sum(blind) / len(blind) if shown and blind else None
    return {
        "annotator": name,
        "answers": person.answers,
        "revised": person.revised,
        "median_seconds": median(person.seconds) if person.seconds else None,
        "gold": share(sum(person.gold), len(person.gold)),
        "agreement": share(sum(person.equal), len(person.equal)),
        "reliability": reliability,
        "blind_gap": {
            "shown": share(*both[0]),
            "blind": share(*both[1]),
            "gap": gap,
            "interval": list(newcombe(*both)) if gap is not None else None,
        },
    }


@dataclass(frozen=True)
class _Estimated:
    reliability: dict[str, float]
    suggested: dict[str, dict[str, Any]]


def _estimated(tasks: Sequence[Task], tested: Sequence[tuple[Task, Task]]) -> _Estimated:
    """Reliability of annotators, and each task's most probable answer, from all that more than one has answered."""
    shared = [task for task in tasks if len(task.counted) > 1]
    names = [task.id for task in shared]
    ballots = [(at, a.annotator, canonical(a.value)) for at, task in enumerate(shared) for a in task.counted]
    truths: dict[int, str] = {}
    places: dict[str, int] = {}
    for task, master in tested:
        at = places.setdefault(task.id, len(shared) + len(places))
        truths[at] = canonical(master.value)
        ballots += [(at, a.annotator, canonical(a.value)) for a in task.counted]
    values = sorted({value for _, _, value in ballots} | set(truths.values()))
    people = sorted({who for _, who, _ in ballots})
    if not ballots or len(people) * len(values) ** 2 > CELLS:
        return _Estimated({}, {})
    found = _fit(ballots, truths, people, values, len(shared) + len(places))
    given = Counter(who for _, who, _ in ballots)
    best = found.posterior[: len(names)].argmax(axis=1)
    return _Estimated(
        {who: float(found.reliability[at]) for at, who in enumerate(people) if given[who]},
        {
            name: {"value": json.loads(values[best[at]]), "confidence": float(found.posterior[at, best[at]])}
            for at, name in enumerate(names)
        },
    )


def _fit(
    ballots: Sequence[Ballot], truths: Mapping[int, str], people: Sequence[str], values: Sequence[str], total: int
) -> Estimate:
    who, what = ({name: at for at, name in enumerate(names)} for names in (people, values))
    columns = np.array([(at, who[name], what[value]) for at, name, value in ballots])
    known = (np.array(list(truths)), np.array([what[value] for value in truths.values()])) if truths else None
    return estimate(columns[:, 0], columns[:, 1], columns[:, 2], (total, len(people), len(values)), known)
