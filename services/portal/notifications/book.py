"""The notices that wait, with what is needed to find more: one record, so that all of it is written or none. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Self

from services.contracts.ids import digest
from services.portal.notifications.config import Rule
from services.portal.notifications.facts import Fact

MOST = 1000  # notices that wait; what is older gives way
KEPT = 100  # notices given up that are remembered
TOGETHER = 20  # sent at a time
# Seconds to the next try, much as Standard Webhooks has them; after the last one it is given up.
PATIENCE = (5, 60, 300, 1800, 7200, 18_000, 36_000)

Row = dict[str, Any]


@dataclass
class Book:
    """`levels` by what they are of; `watched` are the projects whose waiting tasks are counted."""

    waiting: list[Row] = field(default_factory=list)
    given_up: list[Row] = field(default_factory=list)
    levels: dict[str, Row] = field(default_factory=dict)
    watched: list[str] = field(default_factory=list)

    @classmethod
    def of_record(cls, record: Mapping[str, Any] | None) -> Self:
        names = ("waiting", "given_up", "levels", "watched")
        return cls(**{name: type(record[name])(record[name]) for name in names}) if record else cls()

    def record(self) -> dict[str, Any]:
        parts = {"levels": self.levels, "watched": self.watched}
        return {"waiting": self.waiting, "given_up": self.given_up[-KEPT:], **parts}

    def knows(self, name: str) -> bool:
        return any(row["id"] == name for row in (*self.waiting, *self.given_up))

    def add(self, rows: Sequence[Row]) -> None:
        """Have these wait; the oldest give way where there are too many."""
        self.waiting += rows
        dropped, self.waiting = self.waiting[:-MOST], self.waiting[-MOST:]
        self.given_up += [{**row, "error": "too many others waited"} for row in dropped]

    def due(self, now: datetime) -> bool:
        return any(row["next"] <= now.isoformat() for row in self.waiting)

    def take(self, now: datetime) -> list[Row]:
        """Those that are due, each with one try more, which is counted before it is made."""
        due = [row["id"] for row in self.waiting if row["next"] <= now.isoformat()][:TOGETHER]
        self.waiting = [_tried(row, now) if row["id"] in due else row for row in self.waiting]
        return [row for row in self.waiting if row["id"] in due]

    def settle(self, sent: set[str], failed: Mapping[str, str], for_good: set[str]) -> None:
        """What has become of tries: those that failed wait for the next, unless it was the last, or is of no use."""
        left: list[Row] = []
        for row in self.waiting:
            if row["id"] in sent:
                continue
            told = {**row, "error": failed.get(row["id"], row["error"])}
            last = row["id"] in failed and (row["id"] in for_good or row["tries"] > len(PATIENCE))
            (self.given_up if last else left).append(told)
        self.waiting = left


def notice_id(rule: Rule, fact: Fact) -> str:
    return f"ntc_{digest(rule.name, fact.id)}"


def notice(rule: Rule, fact: Fact, now: datetime) -> Row:
    """A fact on its way to whoever the rule names; due at once."""
    told = {"kind": fact.kind, "project": fact.project, "time": fact.time.isoformat(), "title": fact.title}
    state = {"tries": 0, "next": now.isoformat(), "error": None}
    return {"id": notice_id(rule, fact), "rule": rule.name, **told, "data": dict(fact.data), **state}


def _tried(row: Row, now: datetime) -> Row:
    wait = PATIENCE[min(row["tries"], len(PATIENCE) - 1)]
    return {**row, "tries": row["tries"] + 1, "next": (now + timedelta(seconds=wait)).isoformat()}
