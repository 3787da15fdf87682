"""What there is to tell, in words and in data. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from services.contracts.envelope import Message
from services.contracts.events import Event, ModelActivated, ModelRejected, ModelRolledBack, TrainingFailed
from services.portal.notifications.config import Kind

LONGEST = 2000  # characters of an error


@dataclass(frozen=True)
class Fact:
    """Something that has happened; the same fact has the same `id`, however often it is heard of."""

    id: str
    kind: Kind | Literal["test"]
    project: str
    time: datetime
    title: str
    data: Mapping[str, Any]


def fact_of(message: Message[Event]) -> Fact | None:
    """What an event gives to tell, if anything."""
    found = _told(message.event)
    if found is None:
        return None
    kind, title, data = found
    project = message.event.project
    return Fact(message.id, kind, project, message.time, title, {"project": project, **data})


def _told(event: Event) -> tuple[Kind, str, dict[str, Any]] | None:
    match event:
        case TrainingFailed():
            error = (event.error or "")[:LONGEST]
            return "run.failed", f"{event.project}: a training has failed", {"run_id": event.run_id, "error": error}
        case ModelRejected():
            title = f"{event.project}: the gate has refused a candidate"
            return "gate.refused", title, {"version": event.version, "gate": dict(event.gate)}
        case ModelRolledBack():
            title = f"{event.project}: an earlier model serves again"
            return "model.rolled_back", title, _serving(event)
        case ModelActivated():
            share = event.rollout.get("share", 1.0)
            part = "" if share >= 1 else f" to {share:.0%} of the traffic"
            return "model.promoted", f"{event.project}: a model is promoted{part}", _serving(event)
        case _:
            return None


def _serving(event: ModelActivated | ModelRolledBack) -> dict[str, Any]:
    names = ("version", "previous", "activation_epoch", "reason")
    return {**{name: getattr(event, name) for name in names}, "share": event.rollout.get("share", 1.0)}


@dataclass(frozen=True)
class Reading:
    """A number that has a limit; `of` is the project, or the service, that it was read of."""

    kind: Kind
    project: str
    of: str
    value: int
    at: datetime


def over(reading: Reading, limit: int, key: str) -> Fact:
    """A limit is passed; `key` tells this time from all others."""
    words = {
        "labels.waiting": "{:,} samples wait for a label",
        "dead_letters.over": "{:,} dead letters",
        "buffer.over": "{:,} units of work wait for the broker",
    }
    title = f"{reading.of}: {words[reading.kind].format(reading.value)}"
    data = {"project": reading.project, "of": reading.of, "value": reading.value, "limit": limit}
    return Fact(key, reading.kind, reading.project, reading.at, title, data)
