"""The real stack, its sidecars and a real collector: what an engineer sees in a tracing backend."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.traces.conftest import Collector, Span

pytestmark = [pytest.mark.traces, pytest.mark.timeout(400)]

HOPS = {
    "infer": "process sample.ingested",
    "select-uncertain": "process sample.scored",
    "label-queue": "process sample.selected",
    "retrain-trigger": "process label.accepted",
    "ingest": "process label.accepted",
}
STEPS = ("training run", "run submit", "run follow", "run register", "run judge", "run end")


def test_one_trace_from_the_ingested_sample_to_the_activated_model(
    halfsure: Callable[..., Any], collector: Collector
) -> None:
    """Rows 3.5, 4.8 and D17."""
    done = halfsure("smoke", endpoint=collector.url)
    assert done.returncode == 0, done.stdout + done.stderr
    traces = collector.traces()
    runs = [span for spans in traces.values() for span in spans if span.name == "training run"]
    assert runs
    for run in runs:
        _follows(traces, run)
    sidecars = {span.service for spans in traces.values() for span in spans if span.sidecar}
    assert sidecars == {*HOPS, "portal"}, "the sidecars export to the same collector"


def _follows(traces: dict[str, list[Span]], run: Span) -> None:
    own = traces[run.trace]
    seen = {(span.service, span.name) for span in own}
    assert set(HOPS.items()) | {("retrain-trigger", step) for step in STEPS} <= seen
    assert {("infer", "process model.activated"), ("infer", "load model")} <= seen
    known = {span.id for span in own}
    hanging = [span for span in own if span.parent not in known]
    assert [span.name for span in hanging] == ["sample"], "one root, and nothing hangs in the air"
    # Back to every other sample that the run has learnt from, and from each of these to the run.
    for other in set(run.links) - {run.trace}:
        used = [span for span in traces[other] if span.name == "label used"]
        assert [span.links for span in used] == [(run.trace,)], used
        (begun,) = (span.service for span in traces[other] if span.name == "sample")
        # What was imported with its label has begun at the queue, and infer has not seen it.
        passed = ("infer", "process sample.ingested") in {(span.service, span.name) for span in traces[other]}
        assert begun == ("ingest" if passed else "label-queue")


def test_a_collector_that_is_away_is_not_missed(halfsure: Callable[..., Any]) -> None:
    done = halfsure("smoke", endpoint="http://127.0.0.1:9")
    assert done.returncode == 0, done.stdout + done.stderr
