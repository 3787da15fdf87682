"""The shelf: every message that could not be handled, with its reason, until somebody replays or discards it."""

from collections.abc import Callable, Mapping
from typing import Any

from services.contracts.ids import sha256
from services.runtime.errors import Conflict
from services.runtime.ports import CREATE, Clock, Delete, Entry, Put, State

INDEX = "dlq"
SHELF_SIZE = 10_000  # letters kept; the oldest go first, and are counted


PAGE = 500  # letters read at a time

Seen = Callable[[Mapping[str, Any]], bool]


def _everything(_: Mapping[str, Any]) -> bool:
    return True


def projects_of(record: Mapping[str, Any]) -> set[str]:
    """The projects that a letter speaks of: none, when it could not even be read."""
    event = record["event"] if isinstance(record["event"], dict) else {}
    data = event.get("data")
    told = [event.get("project"), data.get("project") if isinstance(data, dict) else None]
    return {name for name in told if isinstance(name, str)}


class DeadLetters:
    """One record an event, whoever brings it: this service with its reason, or the broker with its copy."""

    def __init__(self, state: State, clock: Clock) -> None:
        self._state = state
        self._clock = clock

    async def add(self, topic: str, envelope: Any, raw: bytes, reason: str) -> str:
        """Shelve a message. The same event again only adds to its attempts."""
        letter = _letter_id(envelope, raw)
        key = f"dlq:{letter}"
        found = await self._state.get([key, INDEX])
        old, index = found.get(key), found.get(INDEX)
        while True:
            try:
                await self._state.commit(self._ops(letter, old, index, topic, envelope, raw, reason))
                return letter
            except Conflict:
                # The letter may be written already although the index was not: it must not count twice.
                index = (await self._state.get([INDEX])).get(INDEX)

    async def newest(
        self, limit: int, after: str | None = None, seen: Seen = _everything
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Letters that may be seen, newest first, and the id to go on from."""
        index = (await self._state.get([INDEX])).get(INDEX)
        ids = list(reversed(index.value["ids"])) if index else []
        start = ids.index(after) + 1 if after in ids else 0
        found: list[dict[str, Any]] = []
        while start < len(ids) and len(found) <= limit:
            keys = [f"dlq:{letter}" for letter in ids[start : start + PAGE]]
            entries = await self._state.get(keys)
            found += [entries[key].value for key in keys if key in entries and seen(entries[key].value)]
            start += PAGE
        return found[:limit], found[limit - 1]["id"] if len(found) > limit else None

    async def counts(self) -> tuple[int, int]:
        """How many letters are on the shelf, and how many had to give way so far."""
        index = (await self._state.get([INDEX])).get(INDEX)
        return (len(index.value["ids"]), index.value["dropped"]) if index else (0, 0)

    async def get(self, letter: str) -> dict[str, Any] | None:
        entry = (await self._state.get([f"dlq:{letter}"])).get(f"dlq:{letter}")
        return entry.value if entry else None

    async def remove(self, letter: str) -> None:
        while True:
            index = (await self._state.get([INDEX])).get(INDEX)
            ids = [i for i in (index.value["ids"] if index else []) if i != letter]
            dropped = index.value["dropped"] if index else 0
            ops = [Put(INDEX, {"ids": ids, "dropped": dropped}, index.etag if index else CREATE)]
            try:
                await self._state.commit([*ops, Delete(f"dlq:{letter}")])
                return
            except Conflict:
                continue

    def _ops(
        self,
        letter: str,
        old: Entry | None,
        index: Entry | None,
        topic: str,
        envelope: Any,
        raw: bytes,
        reason: str,
    ) -> list[Put | Delete]:
        now = self._clock.now().isoformat()
        record = {
            "id": letter,
            "topic": old.value["topic"] if old else topic,
            "event": envelope if isinstance(envelope, dict) else None,
            "raw": None if isinstance(envelope, dict) else raw.decode("utf-8", "replace")[:65536],
            "dlq": {
                # The service's own reason says more than the broker's "retries exhausted".
                "reason": old.value["dlq"]["reason"] if old else reason,
                "first_seen": old.value["dlq"]["first_seen"] if old else now,
                "last_seen": now,
                "attempts": old.value["dlq"]["attempts"] + 1 if old else 1,
            },
        }
        ids = index.value["ids"] if index else []
        dropped = index.value["dropped"] if index else 0
        ops: list[Put | Delete] = [Put(f"dlq:{letter}", record)]
        if letter not in ids:
            ids = [*ids, letter]
            if len(ids) > SHELF_SIZE:
                ops.append(Delete(f"dlq:{ids[0]}"))
                ids, dropped = ids[1:], dropped + 1
            ops.append(Put(INDEX, {"ids": ids, "dropped": dropped}, index.etag if index else CREATE))
        return ops


def _letter_id(envelope: Any, raw: bytes) -> str:
    """The event's id, else the hash of what came."""
    name = envelope.get("id") if isinstance(envelope, dict) else None
    return sha256(name.encode())[:32] if isinstance(name, str) and name else sha256(raw)[:32]
