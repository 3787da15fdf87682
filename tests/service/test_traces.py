"""One trace a sample: from the request that brought it to the model that its label tipped, through all services."""

import base64
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import Running, nobody, started, wait_until
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from worlds import LABELS, SPECS, png

from services.infer import app as infer
from services.ingest import app as ingest
from services.label_queue import app as label_queue
from services.retrain_trigger import app as retrain_trigger
from services.runtime import tracing
from services.runtime.memory import MemoryBlobs, MemoryBus, MemoryPeers, MemoryState, SteppedClock
from services.runtime.memory_workflows import MemoryWorkflows
from services.runtime.ports import Ports
from services.select_uncertain import app as select_uncertain

N = 20
PROJECT: dict[str, Any] = {
    "name": "default",
    "task": "image-classification",
    "labels": LABELS,
    "input": SPECS["image"].model_dump(mode="json"),
    "policy": {"batch": N, "min_pool": N, "settle_seconds": 0, "control": 0, "audit": 0},
    "trigger": {"n": N, "min_per_class": 2},
    "gate": {"floor": 0.1},
}
HOPS = ("sample.ingested", "sample.scored", "sample.selected", "label.accepted")
RUN = ("training.requested", "training.started", "training.succeeded", "model.registered", "model.activated")


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """What the real SDK records."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    monkeypatch.setattr(tracing, "_TRACER", provider.get_tracer("halfsure"))
    yield exporter
    provider.shutdown()


@dataclass
class Loop:
    """All five services on memory ports, and the broker between them."""

    services: dict[str, Running]
    said: list[dict[str, Any]]

    async def pump(self) -> None:
        """Hand what was published to whoever subscribes to it, in bulks of one topic as the sidecar does."""
        for one in self.services.values():
            by_topic: dict[str, list[dict[str, Any]]] = {}
            for topic, envelope in await one.published():
                by_topic.setdefault(topic, []).append(envelope)
                self.said.append(envelope)
            for topic, envelopes in by_topic.items():
                for other in self.services.values():
                    if any(kind.topic == topic for kind in other.service.inbox.subscriptions):
                        verdicts = await other.deliver_raw(topic, envelopes)
                        assert set(verdicts) <= {"SUCCESS"}, (topic, verdicts)

    async def until(self, kind: str, number: int = 1) -> list[dict[str, Any]]:
        """The envelopes of a kind, once there are so many."""

        async def enough() -> list[dict[str, Any]]:
            await self.pump()
            found = self.of(kind)
            return found if len(found) >= number else []

        return await wait_until(enough, 60)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [envelope for envelope in self.said if envelope["type"] == f"io.halfsure.{kind}.v1"]


@contextlib.asynccontextmanager
async def loop(folder: Path) -> AsyncIterator[Loop]:
    clock, blobs = SteppedClock(datetime(2026, 1, 1, tzinfo=UTC)), MemoryBlobs()
    modules = (ingest, infer, select_uncertain, label_queue, retrain_trigger)
    async with contextlib.AsyncExitStack() as stack:
        services: dict[str, Running] = {}
        for module in modules:
            name = module.__name__.split(".")[1]
            own = folder / name
            own.mkdir()
            empty = {"items": [], "cursor": None}
            peers = MemoryPeers({"ingest": lambda path, params, empty=empty: empty, "retrain-trigger": nobody})
            ports = Ports(MemoryState(clock), MemoryBus(), blobs, clock, peers, MemoryWorkflows())
            services[name] = await stack.enter_async_context(started(module.create, own, ports))
        yield Loop(services, [])


async def closed(one: Loop) -> dict[str, str]:
    """Play the loop once, to the model in service; sample id -> the trace that its own request came with."""
    sent = await labelled(one)
    await one.until("model.activated")
    while not any(envelope["data"]["activation_epoch"] for envelope in one.of("model.loaded")):
        await one.until("model.loaded", 1 + len(one.of("model.loaded")))
    await one.pump()
    return sent


async def labelled(one: Loop) -> dict[str, str]:
    """The same, to the labels."""
    made = await one.services["retrain_trigger"].call("POST", "/v1/projects", json=PROJECT)
    assert made.status_code == 201, made.text
    await one.until("project.updated")
    sent: dict[str, str] = {}
    for number in range(N):
        given = secrets.token_hex(16)
        device = {"x-halfsure-device": f"camera-{number}"}
        headers = {"content-type": "image/png", "traceparent": f"00-{given}-{secrets.token_hex(8)}-01", **device}
        shade = 20 + number if number % 2 else 200 + number
        answer = await one.services["ingest"].call("POST", "/v1/samples", content=png(shade), headers=headers)
        assert answer.status_code == 201, answer.text
        assert answer.json()["device_id"] == f"camera-{number}"
        sent[answer.json()["sample_id"]] = given
    await one.until("sample.selected", N)
    await one.pump()
    queue = one.services["label_queue"]
    tasks = (await queue.call("POST", "/v1/tasks:claim", "annotator", json={"n": N})).json()["tasks"]
    assert len(tasks) == N
    for task in tasks:
        shade = await one.services["ingest"].call("GET", f"/v1/samples/{task['sample_id']}/content")
        value = LABELS[0] if shade.content in {png(20 + n) for n in range(N)} else LABELS[1]
        body = {"epoch": task["lease"]["epoch"], "value": value, "schema_version": 1}
        answer = await queue.call("POST", f"/v1/tasks/{task['id']}/annotations", "annotator", json=body)
        assert answer.status_code == 201, answer.text
    await one.until("training.requested")
    return sent


def trace_of(envelope: dict[str, Any]) -> str:
    return envelope["traceparent"].split("-")[1]


def in_trace(spans: Sequence[ReadableSpan], name: str) -> list[ReadableSpan]:
    return [span for span in spans if f"{span.context.trace_id:032x}" == name]


def check_envelopes(one: Loop, sent: dict[str, str]) -> str:
    """Every event of a sample is in the sample's trace, every event of the run in the trace of one; returns that."""
    for kind in HOPS:
        of = {envelope["subject"]: trace_of(envelope) for envelope in one.of(kind)}
        assert {sample: of.get(sample) for sample in sent} == sent, kind
        devices = {envelope["subject"]: envelope["deviceid"] for envelope in one.of(kind)}
        assert devices == {sample: f"camera-{number}" for number, sample in enumerate(sent)}, "row 2.19: on every event"
    assert all(envelope["traceid"] == envelope["traceparent"] for envelope in one.said if "traceparent" in envelope)
    tipped = {trace_of(envelope) for kind in RUN for envelope in one.of(kind)}
    assert len(tipped) == 1, "whatever a run says is in its trace"
    (tip,) = tipped
    assert tip in sent.values()
    last = max(one.of("label.accepted"), key=lambda envelope: (envelope["time"], envelope["subject"]))
    assert trace_of(last) == tip, "the run is in the trace of the newest label"
    return tip


async def test_one_trace_from_the_ingested_sample_to_the_activated_model(
    tmp_path: Path, spans: InMemorySpanExporter
) -> None:
    """Rows 3.5, 4.8 and D17."""
    async with loop(tmp_path) as one:
        sent = await closed(one)
        tip = check_envelopes(one, sent)
        found = spans.get_finished_spans()
        for sample, given in sent.items():
            own = in_trace(found, given)
            names = [span.name for span in own]
            assert {f"process {kind}" for kind in HOPS} | {"POST /v1/samples", "label used"} <= set(names), sample
            known = {span.context.span_id for span in own}
            roots = [span.name for span in own if span.parent is None or span.parent.span_id not in known]
            assert roots == ["POST /v1/samples"], "no span hangs in the air"
            subjects = {str((span.attributes or {}).get("cloudevents.event_subject")) for span in own}
            assert not subjects & (sent.keys() - {sample}), "no trace is of two samples"
            assert len(own) < 45, "no giant trace"
        story = [span.name for span in in_trace(found, tip)]
        steps = {"training run", "run submit", "run follow", "run register", "run judge", "run end"}
        assert steps | {"process model.registered", "process model.activated", "process model.loaded"} <= set(story)

        # From the model to the samples, and back.
        (run,) = (span for span in found if span.name == "training run")
        assert {f"{link.context.trace_id:032x}" for link in run.links} == set(sent.values())
        used = [span for span in found if span.name == "label used"]
        assert {link.context.span_id for span in used for link in span.links} <= {run.context.span_id}
        assert {f"{span.context.trace_id:032x}" for span in used if span.links} | {tip} == set(sent.values())

        # The same by REST, without a tracing backend.
        sample = next(name for name, given in sent.items() if given == tip)
        runs = (await one.services["retrain_trigger"].call("GET", "/v1/runs")).json()["items"]
        assert [row["trace_id"] for row in runs] == [tip]
        story = (await one.services["ingest"].call("GET", f"/v1/samples/{sample}/history")).json()["events"]
        assert len({row["device_id"] for row in story if row["type"] != "model.activated"}) == 1
        assert {row["trace_id"] for row in story if row["type"] != "model.activated"} == {tip}


async def test_context_goes_through_although_nobody_records_it(tmp_path: Path) -> None:
    async with loop(tmp_path) as one:
        check_envelopes(one, await labelled(one))


async def test_a_batch_has_one_span_with_links_and_each_sample_its_own_trace(
    tmp_path: Path, spans: InMemorySpanExporter
) -> None:
    async with loop(tmp_path) as one:
        await one.services["retrain_trigger"].call("POST", "/v1/projects", json=PROJECT)
        await one.until("project.updated")
        lines = [
            json.dumps({"data": base64.b64encode(png(n)).decode(), "media_type": "image/png"}) for n in range(1, 101)
        ]
        headers = {"content-type": "application/x-ndjson"}
        answer = await one.services["ingest"].call(
            "POST", "/v1/samples:batch", content="\n".join(lines), headers=headers
        )
        assert {row["status"] for row in answer.json()["results"]} == {201}
        await one.until("sample.scored", 100)
        assert len({trace_of(envelope) for envelope in one.of("sample.ingested")}) == 100
        found = spans.get_finished_spans()
        (request,) = (span for span in found if span.name == "POST /v1/samples:batch")
        roots = [span for span in found if span.name == "sample"]
        assert {link.context.span_id for root in roots for link in root.links} == {request.context.span_id}
        (whole,) = (s for s in found if s.name == "process sample.ingested" and len(s.links) == 101)
        singles = [s for s in found if s.name == "process sample.ingested" and s is not whole]
        assert {span.context.trace_id for span in singles} == {root.context.trace_id for root in roots}
        assert {link.context.span_id for span in singles for link in span.links} == {whole.context.span_id}


async def test_what_was_left_in_the_outbox_goes_out_in_its_trace(
    tmp_path: Path, ports: Ports, spans: InMemorySpanExporter
) -> None:
    """The broker is away, the service dies: who starts again publishes with the context that was stored."""
    bus: MemoryBus = ports.publisher  # type: ignore[assignment]
    given = secrets.token_hex(16)
    async with loop(tmp_path) as one:
        await one.services["retrain_trigger"].call("POST", "/v1/projects", json=PROJECT)
        (updated,) = await one.until("project.updated")
    bus.down = True
    async with started(ingest.create, tmp_path, ports) as first:
        await first.deliver_raw("project", [updated])
        headers = {"content-type": "image/png", "traceparent": f"00-{given}-{secrets.token_hex(8)}-01"}
        answer = await first.call("POST", "/v1/samples", content=png(7), headers=headers)
        assert answer.status_code == 201, answer.text
    bus.down = False
    async with started(ingest.create, tmp_path, ports) as second:
        ((_, envelope),) = await second.published()
        assert trace_of(envelope) == given


@pytest.mark.parametrize(
    "odd", [7, "", "00-0-0-00", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", ["x"], {"a": 1}, "é" * 55]
)
async def test_an_odd_trace_harms_nobody(tmp_path: Path, spans: InMemorySpanExporter, odd: Any) -> None:
    async with loop(tmp_path) as one:
        await one.services["retrain_trigger"].call("POST", "/v1/projects", json=PROJECT)
        (updated,) = await one.until("project.updated")
        assert await one.services["ingest"].deliver_raw(
            "project", [{**updated, "traceparent": odd, "traceid": odd}]
        ) == ["SUCCESS"]


async def test_a_problem_names_the_trace_of_its_request(tmp_path: Path) -> None:
    given = secrets.token_hex(16)
    async with started(ingest.create, tmp_path) as running:
        headers = {"traceparent": f"00-{given}-{secrets.token_hex(8)}-01"}
        answer = await running.call("GET", "/v1/samples/none?project=none", headers=headers)
        assert answer.json()["trace_id"] == given
        assert len((await running.call("GET", "/v1/nothing", headers={"traceparent": "x"})).json()["trace_id"]) == 32
