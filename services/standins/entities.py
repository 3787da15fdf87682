"""Topics and subscriptions as Azure Service Bus has them: peek-lock, delivery counts, dead letters, duplicates.

Pure: the time comes in, messages are whatever is put in.
"""

from collections import OrderedDict, deque
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from services.contracts.events import EVENT_TYPES

# The subscriptions and topics are made so in Azure too (deploy/azure). The lock is short: components/azure/pubsub.yaml.
LOCK_SECONDS = 15.0
MAX_DELIVERY = 10
DUPLICATE_WINDOW = 600.0  # seconds that a message id is remembered
DEAD_LETTERS = "$deadletterqueue"


@dataclass(frozen=True)
class Stored:
    """A message in a subscription, and how often it was handed out before."""

    sequence: int
    message: Any
    enqueued_at: float
    count: int = 0


@dataclass
class Lock:
    """Who works on a message, and until when nobody else may."""

    stored: Stored
    holder: Hashable
    until: float


class Subscription:
    """A queue of a topic's messages, of which each is handed out under a lock until somebody settles it."""

    def __init__(self, *, lock_seconds: float, max_delivery: int, dead: "Subscription | None" = None) -> None:
        self.dead = dead
        self._lock_seconds = lock_seconds
        self._max_delivery = max_delivery
        self._ready: deque[Stored] = deque()
        self._locks: dict[Hashable, Lock] = {}

    def __len__(self) -> int:
        return len(self._ready)

    @property
    def locked(self) -> int:
        return len(self._locks)

    def put(self, stored: Stored) -> None:
        self._ready.append(stored)

    def take(self, token: Hashable, holder: Hashable, now: float) -> Stored | None:
        """The next message, locked under `token`; None when there is none."""
        if not self._ready:
            return None
        stored = self._ready.popleft()
        self._locks[token] = Lock(stored, holder, now + self._lock_seconds)
        return stored

    def complete(self, token: Hashable) -> bool:
        """It is done with. False when the lock is lost, and the message will come again."""
        return self._locks.pop(token, None) is not None

    def abandon(self, token: Hashable) -> None:
        """It comes again at once, or is dead after too many deliveries."""
        if lock := self._locks.pop(token, None):
            self._again(lock.stored)

    def give_back(self, token: Hashable) -> None:
        """It was never looked at, and comes again as it was."""
        if lock := self._locks.pop(token, None):
            self._ready.appendleft(lock.stored)

    def reject(self, token: Hashable) -> None:
        """It is dead."""
        if lock := self._locks.pop(token, None):
            self._bury(lock.stored)

    def renew(self, holder: Hashable, now: float) -> float:
        """Extend all locks of a holder; until when."""
        until = now + self._lock_seconds
        for lock in self._locks.values():
            if lock.holder == holder:
                lock.until = until
        return until

    def expire(self, now: float) -> int:
        """Take back what was held too long; how many."""
        return self._take_back([token for token, lock in self._locks.items() if lock.until <= now])

    def lose(self, holder: Hashable) -> int:
        """Take back what a holder had who is gone; how many."""
        return self._take_back([token for token, lock in self._locks.items() if lock.holder == holder])

    def _take_back(self, tokens: Iterable[Hashable]) -> int:
        lost = [self._locks.pop(token) for token in tokens]
        for lock in reversed(lost):
            self._again(lock.stored)
        return len(lost)

    def _again(self, stored: Stored) -> None:
        stored = replace(stored, count=stored.count + 1)
        if self.dead is not None and stored.count >= self._max_delivery:
            self._bury(stored)
        else:
            self._ready.appendleft(stored)

    def _bury(self, stored: Stored) -> None:
        if self.dead is not None:
            self.dead.put(stored)


class Topic:
    """Copies what is sent to each of its subscriptions, once for each message id."""

    def __init__(self, subscriptions: Iterable[Subscription]) -> None:
        self.subscriptions = list(subscriptions)
        self._sequence = 0
        self._seen: OrderedDict[str, float] = OrderedDict()

    def send(self, message: Any, message_id: str | None, now: float) -> bool:
        """False for a duplicate, which is taken and forgotten."""
        while self._seen and next(iter(self._seen.values())) <= now - DUPLICATE_WINDOW:
            self._seen.popitem(last=False)
        if message_id:
            if message_id in self._seen:
                return False
            self._seen[message_id] = now
        self._sequence += 1
        for subscription in self.subscriptions:
            subscription.put(Stored(self._sequence, message, now))
        return True


class Namespace:
    """All entities by their paths, which are not case-sensitive: `topic`, `topic/subscriptions/name`."""

    def __init__(self, lock_seconds: float = LOCK_SECONDS, max_delivery: int = MAX_DELIVERY) -> None:
        self.topics: dict[str, Topic] = {}
        self.subscriptions: dict[str, Subscription] = {}
        self.lock_seconds = lock_seconds
        self._max_delivery = max_delivery

    def subscribe(self, topic: str, name: str) -> None:
        """Make a subscription, and its topic if it is new."""
        path = f"{topic}/subscriptions/{name}".lower()
        if path in self.subscriptions:
            return
        dead = Subscription(lock_seconds=self.lock_seconds, max_delivery=self._max_delivery)
        mine = Subscription(lock_seconds=self.lock_seconds, max_delivery=self._max_delivery, dead=dead)
        self.subscriptions |= {path: mine, f"{path}/{DEAD_LETTERS}": dead}
        self.topics.setdefault(topic.lower(), Topic([])).subscriptions.append(mine)


def wanted(file: Path, sites: Sequence[str]) -> dict[str, list[str]]:
    """Every topic with its subscriptions, named as Dapr does, after the app, or a device's after its site.

    `file` holds Dapr's Subscriptions; those of a device's own bus are not this one's. A topic that nobody listens to is
    there too: somebody publishes on it.
    """
    found: dict[str, set[str]] = {kind.topic: set() for kind in EVENT_TYPES.values()}
    for document in yaml.safe_load_all(file.read_text()):
        if document and document.get("kind") == "Subscription":
            spec = document["spec"]
            # A device's uplink hears its own bus, and this one as its site.
            names = sites if spec["pubsubname"] == "cloud" else set(document["scopes"]) - {"uplink"}
            found.setdefault(spec["topic"], set()).update(names)
    return {topic: sorted(names) for topic, names in sorted(found.items())}
