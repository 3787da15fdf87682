"""The chain's empty twin: apps that take a bulk and say the next thing, and do nothing else.

`python -m bench.empty APP-ID`, beside a sidecar with the project's own components and subscriptions. How empty they
are depends on the mode, which is the name of the project that the events are of: `bare` puts another id into a
template for each envelope that comes and publishes it (no types, no state), `typed` are handlers of a Service that
read and make envelopes as the contract has them and publish them, `unit` also write a mark a sample and go through
the outbox, as every real handler has to.
"""

import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, get_args

import orjson
import uvicorn

from services.contracts.envelope import Message, wrap
from services.contracts.events import (
    Content,
    Event,
    PolicyRef,
    Ref,
    SampleIngested,
    SampleScored,
    SampleSelected,
    TaskQueued,
)
from services.contracts.ids import digest, sample_id, sha256, task_id
from services.runtime import garbage, telemetry
from services.runtime.access import needs
from services.runtime.dapr_ports import connect_dapr
from services.runtime.inbox import Verdict
from services.runtime.ports import Outgoing, Ports
from services.runtime.service import Service, transact
from services.runtime.settings import RuntimeSettings
from services.runtime.unit import Unit

Mode = Literal["bare", "typed", "unit"]
MODES: tuple[Mode, ...] = get_args(Mode)


def ingested(mode: Mode, name: str) -> SampleIngested:
    hashed = sha256(name.encode())
    uri = f"blob:samples/{mode}/{hashed[:2]}/{hashed}"
    content = Content(uri=uri, sha256=hashed, bytes=132, media_type="image/png")
    captured_at = datetime(2026, 1, 1, tzinfo=UTC)
    return SampleIngested(project=mode, sample_id=name, content=content, captured_at=captured_at)


def scored(event: SampleIngested) -> SampleScored:
    return SampleScored(
        project=event.project,
        sample_id=event.sample_id,
        model_version="none",
        task="image-classification",
        content=event.content,
        embedding_ref=Ref(uri=f"blob:embeddings/{event.project}/none/{'0' * 64}.f32", row=0, dim=192),
        latency_ms=0.061,
        provider="CPUExecutionProvider",
    )


def selected(event: SampleScored) -> SampleSelected:
    return SampleSelected(
        project=event.project,
        sample_id=event.sample_id,
        round_id=f"rnd_{digest(event.project)}",
        content=event.content,
        priority=0.5,
        reasons=["random"],
        policy=PolicyRef(id="default", version=1),
        strategy="random",
        seed=1 << 40,
    )


def queued(event: SampleSelected) -> TaskQueued:
    return TaskQueued(
        project=event.project, sample_id=event.sample_id, task_id=task_id(event.project, event.sample_id), lease_epoch=0
    )


STEPS: dict[str, tuple[type[Event], Callable[[Any], Event]]] = {
    "infer": (SampleIngested, scored),
    "select-uncertain": (SampleScored, selected),
    "label-queue": (SampleSelected, queued),
}
"""What each app waits for, and what it makes of it."""


class Empty:
    """One app of the twin."""

    def __init__(self, app_id: str, settings: RuntimeSettings) -> None:
        self._ports: Ports | None = None
        self._app_id = app_id
        self.service = Service(app_id, settings, self._connect)
        self._receive = self.service.inbox.receive
        setattr(self.service.inbox, "receive", self._bare())  # noqa: B010
        if app_id == "ingest":
            self._source()
        if app_id in STEPS:
            self._relay()

    async def _connect(self, settings: RuntimeSettings) -> tuple[Ports, Callable[[], Awaitable[None]]]:
        self._ports, close = await connect_dapr(settings)
        return self._ports, close

    async def _publish(self, topic: str, envelopes: Sequence[bytes]) -> None:
        """Straight to the broker, past the outbox."""
        assert self._ports is not None
        if failed := await self._ports.publisher.publish([Outgoing(topic, envelope) for envelope in envelopes]):
            raise RuntimeError(f"the broker refused {len(failed)} events")

    def _source(self) -> None:
        """`POST /v1/bench/emit?mode=M&run=X&start=N&count=N`: SampleIngested for that many samples, in one bulk."""
        copy = _copier("ingest")

        @self.service.api.post("/v1/bench/emit", dependencies=[needs("operator")])
        async def emit(mode: Mode, run: str, start: int, count: int) -> dict[str, int]:
            names = [sample_id(run, str(number)) for number in range(start, start + count)]
            if mode == "bare":
                await self._publish(SampleIngested.topic, [copy(name) for name in names])
            elif mode == "typed":
                await self._publish(SampleIngested.topic, [self._wrapped(ingested(mode, name)) for name in names])
            else:
                facts = [(ingested(mode, name), None) for name in names]
                await transact(self.service, lambda unit: _marked(unit, facts))
            return {"emitted": count}

    def _bare(self) -> Callable[[str, Sequence[Any]], Awaitable[list[Verdict]]]:
        """Stands before the inbox, and lets the other modes through. A bulk is of one mode."""
        wanted, after, copy = "", "", None
        if self._app_id in STEPS:
            kind, _ = STEPS[self._app_id]
            wanted, after, copy = kind.topic, _example(self._app_id).topic, _copier(self._app_id)

        async def receive(topic: str, envelopes: Sequence[Any]) -> list[Verdict]:
            if envelopes[0]["data"]["project"] != "bare":
                return await self._receive(topic, envelopes)
            if topic == wanted and copy:
                await self._publish(after, [copy(envelope["data"]["sample_id"]) for envelope in envelopes])
            return ["SUCCESS"] * len(envelopes)

        return receive

    def _relay(self) -> None:
        kind, make = STEPS[self._app_id]
        topic = _example(self._app_id).topic

        @self.service.on(kind)
        async def relay(batch: Sequence[Message[Any]], unit: Unit) -> None:
            if batch[0].event.project == "typed":
                await self._publish(topic, [self._wrapped(make(message.event), message) for message in batch])
            else:
                await _marked(unit, [(make(message.event), message) for message in batch])

    def _wrapped(self, event: Event, cause: Message[Any] | None = None) -> bytes:
        return wrap(event, siteid="local", service=self._app_id, now=self.service.clock.now(), cause=cause)


async def _marked(unit: Unit, facts: Sequence[tuple[Any, Message[Any] | None]]) -> None:
    """Say the facts that have no mark yet, each with its mark."""
    keys = [f"seen:{event.sample_id}" for event, _ in facts]
    known = await unit.get_many(keys)
    for key, (event, cause) in zip(keys, facts, strict=True):
        if key not in known:
            unit.put(key, {"seen": True}, guard=True)
            unit.emit(event, cause, guard=key)


def _example(app_id: str) -> Event:
    """An event of the kind that this app says."""
    event: Event = ingested("bare", sample_id("bare", "0"))
    for name, (_, make) in STEPS.items() if app_id != "ingest" else ():
        event = make(event)
        if name == app_id:
            break
    return event


def _copier(app_id: str) -> Callable[[str], bytes]:
    """Makes this app's envelope for another sample: as large as the real one, and no type is looked at."""
    event, now = _example(app_id), datetime.now(UTC)
    cause = Message(event, sha256(b"")[:36], "/halfsure/local/x", now, event.correlation)
    template = orjson.loads(wrap(event, siteid="local", service=app_id, now=now, cause=cause))

    def copy(name: str) -> bytes:
        row = {**template, "id": f"{app_id}-{name}", "subject": name, "data": {**template["data"], "sample_id": name}}
        return orjson.dumps(row)

    return copy


def main(app_id: str) -> None:
    settings = RuntimeSettings()
    telemetry.configure(app_id, settings.log_level)
    empty = Empty(app_id, settings)
    garbage.look_less()
    uvicorn.run(empty.service.api, host=settings.app_host, port=settings.app_port, log_level="warning")


if __name__ == "__main__":
    main(sys.argv[1])
