"""Follows every sample of a played loop, from ingest to the last snapshot: nothing lost, nothing doubled."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import redis

from services.cli.player import Plan, Progress
from services.cli.rest import Rest
from services.contracts.envelope import read
from services.contracts.events import TOPICS
from services.contracts.ids import event_id


@dataclass
class Findings:
    """What was lost or doubled, as sentences: none, if all is well."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)

    def equal(self, what: str, found: Counter[str], wanted: Counter[str]) -> None:
        """Every id that is wanted, as often as it is wanted."""
        self.lost += [f"{what}: {one} is missing" for one in sorted((wanted - found).elements())]
        self.doubled += [f"{what}: {one} is one too many" for one in sorted((found - wanted).elements())]

    def __bool__(self) -> bool:
        return bool(self.lost or self.doubled)

    def __str__(self) -> str:
        return "\n".join([*self.lost[:20], *self.doubled[:20]])


async def follow(rest: Rest, plan: Plan, progress: Progress, brought: Counter[str]) -> Findings:
    """Of the samples that were brought: each stored once; each asked, answered, accepted and in the last snapshot once,
    and new in exactly one (settled point 14)."""
    found = Findings()
    stored = Counter(row["sample_id"] for row in await rest.everything("ingest", "/v1/samples"))
    found.equal("stored", stored, brought)
    found.equal("counts", Counter(_counts(progress)), Counter(_wanted(plan)))
    tasks = await rest.everything("label-queue", "/v1/tasks")
    asked = Counter(row["sample_id"] for row in tasks if row["state"] == "ACCEPTED" and row["round_id"])
    found.equal("asked", asked, Counter(dict.fromkeys(asked, 1)))
    found.equal("labels", Counter({"asked": len(asked)}), Counter({"asked": plan.budget}))
    runs = (await rest.everything("retrain-trigger", "/v1/runs"))[::-1]  # as they were begun; clocks may have jumped
    new, last = Counter[str](), Counter[str]()
    for run in runs:
        if run["state"] != "SUCCEEDED":
            found.lost.append(f"run {run['run_id']} has ended as {run['state']}: {run.get('error')}")
            continue
        snapshot = await rest.get("retrain-trigger", f"/v1/snapshots/{run['snapshot']['id']}/content")
        last = Counter(row["sample_id"] for row in snapshot["train"])
        new.update({sample: 1 for sample in last if sample not in new})
    found.equal("last snapshot", last, Counter(dict.fromkeys(asked, 1)))
    found.equal("new in a snapshot", new, Counter(dict.fromkeys(asked, 1)))
    return found


def _counts(progress: Progress) -> dict[str, int]:
    names = ("ingested", "scored", "asked", "accepted", "in_snapshot")
    return {name: getattr(progress, name) for name in names}


def _wanted(plan: Plan) -> dict[str, int]:
    pool = len(plan.split.pool)
    return {"ingested": pool, "scored": pool, "asked": plan.budget, "accepted": plan.budget, "in_snapshot": plan.budget}


class Wire:
    """What goes over the broker's streams from now on."""

    def __init__(self, port: int) -> None:
        self._bus = redis.Redis(port=port)
        self._since = {topic: self._last(topic) for topic in TOPICS}

    def _last(self, topic: str) -> str:
        rows = self._bus.xrevrange(topic, count=1)
        return rows[0][0].decode() if rows else "0"

    def check(self) -> Counter[str]:
        """Messages by topic: each a CloudEvent 1.0 of the contract, with an id made from its key."""
        seen: Counter[str] = Counter()
        facts: dict[str, Any] = {}
        for topic, _, envelope in self.rows():
            message = read(envelope)
            assert message.id == event_id(message.event.type, message.event.key)
            assert (message.event.topic, envelope["subject"]) == (topic, message.event.subject)
            assert facts.setdefault(message.id, message.event.subject) == message.event.subject
            seen[topic] += 1
        return seen

    def rows(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """(topic, entry id, envelope) of each message."""
        for topic, since in self._since.items():
            for entry, fields in self._bus.xrange(topic, min=f"({since}"):
                yield topic, entry.decode(), json.loads(fields[b"data"])

    def records(self, word: str) -> dict[str, str]:
        """The state store's records whose keys or values have the word."""
        found = {}
        for key in self._bus.scan_iter(count=1000, _type="hash"):
            value = self._bus.hget(key, "data") or b""
            if word.encode() in key + value:
                found[key.decode()] = value.decode(errors="replace")
        return found

    def close(self) -> None:
        self._bus.close()
