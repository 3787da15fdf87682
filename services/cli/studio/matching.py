"""What is to be done here so that our answers to a task are the annotations that Label Studio has of it. Pure.

It compares how both sides stand, not what has happened: the same again does nothing, in whatever order news comes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.contracts.label_studio import answer

PREFIX = "label-studio:"
LONGEST = 86_400.0  # seconds
FREE = ("QUEUED", "LABELED")


@dataclass(frozen=True)
class Wish:
    """What one person says of a task over there, since when; no value: they skipped it."""

    annotator: str
    value: str | None
    seconds: float | None
    at: datetime


@dataclass(frozen=True)
class Give:
    """Claim the task and answer it."""

    wish: Wish


@dataclass(frozen=True)
class Revise:
    """Put another value in the place of our answer `first`, under its epoch."""

    wish: Wish
    first: str
    epoch: int


@dataclass(frozen=True)
class Undo:
    """Take our answer back."""

    answer: str


@dataclass(frozen=True)
class Skip:
    """Claim the task and skip it."""

    wish: Wish


Move = Give | Revise | Undo | Skip


def wishes(annotations: Iterable[Mapping[str, Any]], names: Mapping[int, str]) -> list[Wish]:
    """The newest annotation of each person; what is no single choice (and no skip) is none."""
    newest: dict[str, Wish] = {}
    for one in sorted(annotations, key=lambda one: (_time(one), one["id"])):
        value = answer(one)
        if value is None and not one.get("was_cancelled"):
            continue
        lead = one.get("lead_time")
        seconds = min(max(float(lead), 0.0), LONGEST) if isinstance(lead, int | float) else None
        who = f"{PREFIX}{_person(one.get('completed_by'), names)}"
        newest[who] = Wish(who, value, seconds, _time(one))
    return list(newest.values())


def _time(annotation: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(annotation["updated_at"])


def _person(who: Any, names: Mapping[int, str]) -> str:
    if isinstance(who, dict):
        return str(who.get("email") or who.get("id"))
    return names.get(who, str(who))


def moves(wanted: Iterable[Wish], record: Mapping[str, Any], round_id: str) -> list[Move]:
    """The moves for one task; takings-back first, so that an answer may come into a free place.

    What was brought here before and has lost its effect here, by a retraction, is not brought again; and who skipped it
    in an earlier round is not asked about this one.
    """
    answers = [one for one in record["answers"] if one["kind"] == "counted" and one["annotator"].startswith(PREFIX)]
    mine = {one["annotator"]: one for one in answers}
    by_person = {wish.annotator: wish for wish in wanted}
    found: list[Move] = [Undo(one["id"]) for who, one in mine.items() if _gone(by_person.get(who))]
    for who, wish in by_person.items():
        known = mine.get(who)
        if wish.value is None:
            if known or (record["state"] in FREE and record["round_id"] == round_id):
                found.append(Skip(wish))
        elif known is None:
            if not _brought(wish, record):
                found.append(Give(wish))
        elif known["value"] != wish.value:
            found.append(Revise(wish, known["id"], known["epoch"]))
    return found


def _brought(wish: Wish, record: Mapping[str, Any]) -> bool:
    return any(
        one["annotator"] == wish.annotator
        and one["value"] == wish.value
        and datetime.fromisoformat(one["at"]) >= wish.at
        for one in record["answers"]
    )


def _gone(wish: Wish | None) -> bool:
    return wish is None or wish.value is None


def settled(task: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a task of theirs is recognised by; as long as it stays, there is nothing to look at."""
    return tuple(sorted((one["id"], str(one.get("updated_at"))) for one in task.get("annotations") or ()))
