"""What comes from the broker: a bulk of envelopes in, a verdict an entry out; never a 4xx."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Literal

import orjson
import structlog

from services.contracts.envelope import InvalidEnvelope, Message, read
from services.contracts.events import EVENT_TYPES, Event
from services.runtime import telemetry, tracing
from services.runtime.deadletters import DeadLetters
from services.runtime.errors import Conflict, Drop, Retry
from services.runtime.unit import Unit

log = structlog.get_logger()

Verdict = Literal["SUCCESS", "RETRY", "DROP"]
Handler = Callable[[Sequence[Message[Any]], Unit], Awaitable[None]]

CONFLICT_TRIES = 8


@dataclass(frozen=True)
class Subscription:
    """Which handler takes an event type, and what may follow from it."""

    event: type[Event]
    handler: Handler
    emits: tuple[type[Event], ...]
    serial: str | None = None
    lane: str = ""


class Inbox:
    """Runs handlers over batches, so that one bad message costs itself alone."""

    def __init__(
        self,
        new_unit: Callable[[str], Awaitable[Unit]],
        deadletters: Callable[[], DeadLetters],
        turn: Callable[[str | None], AbstractAsyncContextManager[Any]],
    ) -> None:
        self._new_unit = new_unit
        self._turn = turn
        self._deadletters = deadletters
        self.subscriptions: dict[type[Event], Subscription] = {}

    async def receive(self, topic: str, envelopes: Sequence[Any]) -> list[Verdict]:
        """One verdict for each of `envelopes` (parsed JSON, or bytes that were not JSON)."""
        verdicts: list[Verdict | None] = [None] * len(envelopes)
        groups: dict[type[Event], dict[str, list[int]]] = {}
        messages: dict[str, Message[Event]] = {}
        for position, envelope in enumerate(envelopes):
            if self._of_no_use(envelope):
                verdicts[position] = "SUCCESS"
                continue
            try:
                message = _parse(topic, envelope)
            except InvalidEnvelope as error:
                verdicts[position] = await self._shelve(topic, envelope, str(error))
                continue
            messages[message.id] = message
            groups.setdefault(type(message.event), {}).setdefault(message.id, []).append(position)
        for kind, positions in groups.items():
            telemetry.RECEIVED.labels(kind.type).inc(sum(map(len, positions.values())))
            decided = await self._run(kind, [messages[name] for name in positions])
            for name, verdict in decided.items():
                for position in positions[name]:
                    raw = envelopes[position]
                    verdicts[position] = (
                        await self._shelve(topic, raw, str(verdict)) if isinstance(verdict, Drop) else verdict
                    )
        return [verdict or "RETRY" for verdict in verdicts]

    def _of_no_use(self, envelope: Any) -> bool:
        """Whether it is a fact of a family that this service listens to, of a type that it has no handler for."""
        name = envelope.get("type") if isinstance(envelope, dict) else None
        kind = EVENT_TYPES.get(name) if isinstance(name, str) else None
        return kind is not None and kind not in self.subscriptions

    async def _run(
        self, kind: type[Event], batch: Sequence[Message[Event]]
    ) -> Mapping[str, Literal["SUCCESS", "RETRY"] | Drop]:
        try:
            await self._handle(kind, batch)
            return {message.id: "SUCCESS" for message in batch}
        except Exception as error:
            if len(batch) == 1:
                return {batch[0].id: _verdict(kind, error)}
        decided: dict[str, Literal["SUCCESS", "RETRY"] | Drop] = {}
        for message in batch:
            decided |= await self._run(kind, [message])
        return decided

    async def _handle(self, kind: type[Event], batch: Sequence[Message[Event]]) -> None:
        """Raises what the handler raises; a conflict is tried again on fresh reads."""
        with tracing.processing(batch) as traced:
            await self._commit(self.subscriptions[kind], traced)

    async def _commit(self, subscription: Subscription, batch: Sequence[Message[Event]]) -> None:
        for attempt in range(CONFLICT_TRIES):
            unit = await self._new_unit(subscription.lane)
            unit.trusting = attempt == 0
            try:
                async with self._turn(subscription.serial):
                    await subscription.handler(batch, unit)
                    await unit.commit_all()
                return
            except Conflict:
                if attempt == CONFLICT_TRIES - 1:
                    raise
                await asyncio.sleep(0.005 * 2**attempt)

    async def _shelve(self, topic: str, envelope: Any, reason: str) -> Verdict:
        raw = envelope if isinstance(envelope, bytes) else orjson.dumps(envelope)
        try:
            await self._deadletters().add(topic, envelope, raw, reason)
        except Retry:
            return "RETRY"
        telemetry.DEAD.labels(topic).inc()
        log.warning("dead letter", topic=topic, reason=reason)
        return "DROP"

    async def replay(self, envelope: Any) -> None:
        """Handle one message as if it had just come. Raises InvalidEnvelope, Drop or Retry."""
        message = _parse("replay", envelope)
        if type(message.event) in self.subscriptions:
            await self._handle(type(message.event), [message])


def _parse(topic: str, envelope: Any) -> Message[Event]:
    if not isinstance(envelope, dict):
        raise InvalidEnvelope(f"what came on {topic!r} is not a JSON object, or is nested too deeply")
    return read(envelope)


def _verdict(kind: type[Event], error: Exception) -> Literal["SUCCESS", "RETRY"] | Drop:
    if isinstance(error, Drop):
        return error
    if isinstance(error, Retry):
        log.warning("asked to be delivered again", type=kind.type, reason=str(error))
    else:
        log.error("handler failed", type=kind.type, exc_info=error)
    telemetry.RETRIED.labels(kind.type).inc()
    return "RETRY"
