"""What is known of a source: is it connected or why not, what has it brought, what was refused or dropped."""

from collections import Counter as Counts
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from prometheus_client import Counter, Gauge

from services.contracts.problem import Problem
from services.ingest.intake import Outcome
from services.ingest.sources.config import Common

SAMPLES = Counter(
    "halfsure_source_samples_total",
    "Samples of a source, by what became of them",
    ["source", "outcome"],
)
RECONNECTS = Counter("halfsure_source_reconnects_total", "Connections of a source after its first", ["source"])
CONNECTED = Gauge("halfsure_source_connected", "Whether this replica is connected to the source", ["source"])
LAST_SEEN = Gauge("halfsure_source_last_seen_seconds", "Unix time of the last sign of life of a source", ["source"])

State = Literal["connecting", "connected", "retrying", "ended", "stopped", "elsewhere"]


@dataclass
class Status:
    """One source on this replica, from its start on."""

    source: Common
    state: State = "stopped"
    reason: str | None = None
    held: str | None = None  # why what was read cannot be stored now: the connection may be as it will
    since: datetime | None = None
    last_seen: datetime | None = None
    taken: int = 0
    duplicates: int = 0
    gathering: int = 0  # points that came before their window was whole
    refused: Counts[str] = field(default_factory=Counts)
    dropped: Counts[str] = field(default_factory=Counts)
    reconnects: int = 0
    last_refusal: dict[str, str] | None = None

    def enter(self, state: State, now: datetime, reason: str | None = None) -> None:
        if (state, reason) != (self.state, self.reason):
            self.state, self.reason, self.since = state, reason, now
        CONNECTED.labels(self.source.name).set(state == "connected")

    def seen(self, now: datetime) -> None:
        self.last_seen = now
        LAST_SEEN.labels(self.source.name).set(now.timestamp())

    def reconnecting(self) -> None:
        self.reconnects += 1
        RECONNECTS.labels(self.source.name).inc()

    def drop(self, reason: str, count: int = 1) -> None:
        self.dropped[reason] += count
        SAMPLES.labels(self.source.name, f"dropped:{reason}").inc(count)

    def refuse(self, reason: str, detail: str, now: datetime) -> None:
        self.refused[reason] += 1
        self.last_refusal = {"reason": reason, "detail": detail, "at": now.isoformat()}
        SAMPLES.labels(self.source.name, f"refused:{reason}").inc()

    def count(self, outcome: Outcome | Problem, now: datetime) -> None:
        """What became of one sample."""
        if isinstance(outcome, Problem):
            self.refuse(outcome.code, str(outcome), now)
        elif outcome.created:
            self.taken += 1
            SAMPLES.labels(self.source.name, "taken").inc()
        elif outcome.gathering:
            self.gathering += 1
            SAMPLES.labels(self.source.name, "gathering").inc()
        else:
            self.duplicates += 1
            SAMPLES.labels(self.source.name, "duplicate").inc()

    def view(self) -> dict[str, Any]:
        """As callers see it; plain values, so that it can be kept in the store for other replicas."""
        source = self.source
        return {
            "name": source.name,
            "kind": getattr(source, "kind", ""),
            "project": source.project,
            "stream_id": source.stream,
            "tags": source.tags,
            "rate": source.rate,
            "place": source.place,
            "state": "waiting" if self.held else self.state,
            "reason": self.held or self.reason,
            "since": self.since.isoformat() if self.since else None,
            "last_seen": self.last_seen.isoformat() if self.last_seen else None,
            "taken": self.taken,
            "duplicates": self.duplicates,
            "gathering": self.gathering,
            "refused": dict(self.refused),
            "dropped": dict(self.dropped),
            "reconnects": self.reconnects,
            "last_refusal": self.last_refusal,
        }
