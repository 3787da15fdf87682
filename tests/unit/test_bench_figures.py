"""The rows of `make bench`, and what it takes for a regression."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from bench.figures import chain, inference, kept, memory, queue, remembered, replicas, row, selection, worse

KEYS = {"what", "value", "ceiling", "ratio", "goal", "met"}
CHAIN = {
    "chain": {"rate_median": 60.0, "chain_ratio_median": 1.0},
    "empty handlers": {"rate_median": 110.0, "chain_ratio_median": 0.55},
    "empty, without envelopes": {"rate_median": 120.0, "chain_ratio_median": 0.5},
}
TINY = {
    "onnxruntime, tensors in batches": 1000.0,
    "model, tensors in batches": 700.0,
    "service, pictures in batches": 300.0,
    "service, pictures one by one": 10.0,
    "model, tensors one by one": 40.0,
}
MEMORY = {"chain": {"infer": 180.0, "redis": 60.0}, "empty": {"infer": 90.0, "redis": 30.0}}
REPLICAS = {"infer": [(120.0, 100.0), (90.0, 100.0), (110.0, 100.0)]}
CONVOLUTIONAL = {"onnxruntime, tensors in batches": 100.0, "model, tensors in batches": 80.0}


def test_every_row_has_its_ceiling_its_ratio_and_its_goal() -> None:
    rows = [*chain(CHAIN), *inference(TINY, CONVOLUTIONAL), *queue({"claim_p95_ms": {"1000": 10.0, "1000000": 20.0}})]
    rows += [*replicas(REPLICAS), *memory(MEMORY)]
    rows += selection({"goals": [{"goal": "area", "reached": "+1", "met": True, "tried": ""}]})
    assert all(set(one) == KEYS for one in rows)
    met = {one["what"]: one["met"] for one in rows}
    assert met["chain beside empty handlers, samples/s"] is False, "0.55 of the passes of the same turn"
    assert met["chain beside empty, without envelopes, samples/s"] is None
    assert met["infer, tiny model, tensors beside onnxruntime, samples/s"] is True
    assert met["infer, tiny model, tensors in batches beside one by one, samples/s"] is True
    assert met["infer, tiny model, pictures in batches beside one by one, samples/s"] is None
    assert met["infer, convolutional model, tensors beside onnxruntime, samples/s"] is False
    assert met["claim with 1,000,000 waiting, p95 ms"] is True
    assert met["claim with 1,000,000 waiting beside 1,000, p95 ms"] is False
    assert met["selection: area"] is True


def test_replicas_and_memory_stand_beside_what_is_measured_in_the_same_run() -> None:
    (two,) = replicas(REPLICAS)
    assert (two["value"], two["ceiling"], two["ratio"], two["met"]) == (110.0, 100.0, 1.1, None)
    assert [(one["value"], one["ceiling"], one["ratio"]) for one in memory(MEMORY)] == [(180, 90, 2), (60, 30, 2)]


def test_a_goal_is_at_least_or_at_most() -> None:
    assert kept(0.6, ">= 0.6")
    assert not kept(0.59, ">= 0.6")
    assert kept(50, "<= 50")
    assert not kept(51, "<= 50")
    with pytest.raises(ValueError, match="begins"):
        kept(1, "about 1")


@pytest.mark.parametrize(
    ("goal", "before", "now", "found"),
    [
        (">= 0.6", [0.7, 0.7, 0.7], 0.5, True),
        (">= 0.6", [0.7, 0.7, 0.7], 0.6, False),
        (">= 0.6", [0.7, 0.7], 0.1, False),
        (">= 0.6", [0.1, 0.7, 0.7, 0.7, 0.7, 0.7], 0.5, True),
        ("<= 1.5", [1.0, 1.0, 1.0], 1.3, True),
        ("<= 1.5", [1.0, 1.0, 1.0], 0.2, False),
    ],
)
def test_a_ratio_that_is_off_the_last_runs_is_told(goal: str, before: list[float], now: float, found: bool) -> None:
    history = [{"ratios": {"x": one}} for one in before]
    assert bool(worse([row("x", now, 1.0, goal)], history)) == found


def test_the_history_keeps_ratios_alone() -> None:
    kept_ = remembered([row("a", 1.0, 3.0, None), row("b", 5.0, None, "<= 50")], "2026-11-25", "abc", "x86_64")
    assert kept_ == {"at": "2026-11-25", "commit": "abc", "machine": "x86_64", "ratios": {"a": 0.3333}}


def test_a_run_is_written_recorded_and_held_against_the_last_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main: Any = importlib.import_module("bench.__main__")
    from rich.console import Console

    monkeypatch.setattr(main, "OUT", tmp_path / "out")
    monkeypatch.setattr(main, "HISTORY", tmp_path / "history.json")
    report = {"chain": CHAIN, "inference": TINY, "convolutional": CONVOLUTIONAL, "machine": "x86_64"}
    report |= {"memory": MEMORY, "replicas": REPLICAS}
    for _ in range(3):
        assert main.conclude(Console(quiet=True), report, record=True) == 0
    assert len(json.loads((tmp_path / "history.json").read_text())) == 3
    assert {one["what"] for one in json.loads((tmp_path / "out" / "report.json").read_text())} >= {
        "chain beside empty handlers, samples/s"
    }
    slower = {**CHAIN, "empty handlers": {"rate_median": 110.0, "chain_ratio_median": 0.3}}
    assert main.conclude(Console(quiet=True), {**report, "chain": slower}, record=False) == 1
