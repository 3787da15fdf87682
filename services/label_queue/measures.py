"""From answers to what is known of annotators and of tasks in dispute. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from services.contracts.values import agree, classes_of
from services.label_queue.agreement import agreement
from services.label_queue.consensus import merged
from services.label_queue.dawid_skene import Estimate, estimate
from services.label_queue.intervals import newcombe, share
from services.label_queue.tasks import Answer, State, Task

CELLS = 20_000_000  # of confusion matrices; beyond, reliability is not estimated

Ballot = tuple[str, str, str]  # question, annotator, answer


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
            person.gold.append(agree(answer.value, master.value))
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
        others = [other for other in task.counted if other.annotator != answer.annotator]
        person.equal += [agree(other.value, answer.value) for other in others]
        if task.prelabel is not None:
            person.follows[answer.suggestion != "never"].append(agree(answer.value, task.prelabel.answer))


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
    """Reliability of annotators, and each task's most probable answer, from all that more than one has answered.

    Of several labels and of boxes each label is a question of its own: whether it is there.
    """
    shared = [task for task in tasks if len(task.counted) > 1]
    every = [*shared, *(copy for copy, _ in tested)]
    parts = Parts([*(a.value for task in every for a in task.counted), *(master.value for _, master in tested)])
    ballots = [
        (f"{task.id}|{part}", a.annotator, said)
        for task in shared
        for a in task.counted
        for part, said in parts.of(a.value)
    ]
    truths: dict[str, str] = {}
    for task, master in tested:
        truths |= {f"gold|{task.id}|{part}": said for part, said in parts.of(master.value)}
        for a in task.counted:
            ballots += [(f"gold|{task.id}|{part}", a.annotator, said) for part, said in parts.of(a.value)]
    values = sorted({said for _, _, said in ballots} | set(truths.values()))
    people = sorted({who for _, who, _ in ballots})
    if not ballots or len(people) * len(values) ** 2 > CELLS:
        return _Estimated({}, {})
    questions = list(dict.fromkeys([name for name, _, _ in ballots] + list(truths)))
    found = _fit(ballots, truths, people, values, questions)
    places = {name: at for at, name in enumerate(questions)}
    return _Estimated(
        {who: float(found.reliability[at]) for at, who in enumerate(people)},
        {task.id: _suggested(task, parts, places, values, found.posterior) for task in shared},
    )


def _suggested(
    task: Task, parts: "Parts", places: Mapping[str, int], values: Sequence[str], posterior: np.ndarray
) -> dict[str, Any]:
    """The most probable answer; of boxes those that most have drawn."""
    rows = {name: posterior[places[f"{task.id}|{name}"]] for name in parts.names}
    best = {name: values[int(row.argmax())] for name, row in rows.items()}
    sure = min((float(row.max()) for row in rows.values()), default=1.0)
    drawn = [a.value for a in task.counted]
    return {"value": merged(drawn) if isinstance(drawn[0], dict) else parts.whole(best), "confidence": sure}


class Parts:
    """Answers as questions with one word for an answer: of one label the question which, of several each if it is."""

    def __init__(self, values: Iterable[Any]) -> None:
        every = list(values)
        self._plain = all(isinstance(value, str) for value in every)
        self.names = [""] if self._plain else sorted({name for value in every for name in classes_of(value)})

    def of(self, value: Any) -> list[tuple[str, str]]:
        """(question, answer) of each."""
        if self._plain:
            return [("", str(value))]
        there = classes_of(value)
        return [(name, "yes" if name in there else "no") for name in self.names]

    def whole(self, answers: Mapping[str, str]) -> Any:
        """The value that has these answers."""
        return answers[""] if self._plain else [name for name in self.names if answers[name] == "yes"]


def _fit(
    ballots: Sequence[Ballot],
    truths: Mapping[str, str],
    people: Sequence[str],
    values: Sequence[str],
    questions: Sequence[str],
) -> Estimate:
    asked, who, what = ({name: at for at, name in enumerate(names)} for names in (questions, people, values))
    columns = np.array([(asked[name], who[person], what[said]) for name, person, said in ballots])
    known = None
    if truths:
        known = np.array([asked[name] for name in truths]), np.array([what[said] for said in truths.values()])
    shape = (len(questions), len(people), len(values))
    return estimate(columns[:, 0], columns[:, 1], columns[:, 2], shape, known)
