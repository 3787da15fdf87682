"""Numbers of the edge that need no network: what a small disk keeps, and the service's rate beside onnxruntime's."""

import asyncio
import random
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import Running, started
from edge.noting import noted
from inferring import ask, inferring, model, serve
from worlds import png, project

from bench.inference import conv_rates, rates
from services.contracts.events import Content, SampleExpired, SampleIngested, SampleScored
from services.ingest.app import create
from services.runtime.ports import Ports

SIZE, SAMPLES = 96, 240
AT_ONCE = 32


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_tenth_of_the_room_keeps_what_is_worth_more(
    tmp_path: Path, ports: Ports, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """In memory: ingest itself, restarted on the way; every sample is kept or told as gone, once."""
    monkeypatch.setenv("HALFSURE_INGEST_BUFFER_BYTES", str(SIZE * SAMPLES // 10))
    print("seed", seed)
    rng, values = random.Random(seed), dict[str, float]()
    events: list[tuple[str, str]] = []
    for start in range(1, SAMPLES, SAMPLES // 4):
        async with started(create, tmp_path, ports) as running:
            await running.deliver(await project(running.blobs))
            for shade in range(start, start + SAMPLES // 4):
                raw = png(shade % 250, shade // 250).ljust(SIZE, b"\0")
                answer = await running.call("POST", "/v1/samples", content=raw, headers={"content-type": "image/png"})
                values[answer.json()["sample_id"]] = rng.random()
                await running.deliver(scored(answer.json(), values[answer.json()["sample_id"]]))
            events += [(envelope["type"], envelope["subject"]) for _, envelope in await running.published()]
    came = [subject for kind, subject in events if kind == SampleIngested.type]
    gone = [subject for kind, subject in events if kind == SampleExpired.type]
    kept = {name for name in values if name not in gone}
    doubled = len(came) - len(set(came)) + len(gone) - len(set(gone))
    there = {uri.rpartition("/")[2] for uri in ports.blobs.contents if "samples/" in uri}  # type: ignore[attr-defined]
    lost = len(kept) - len(there)
    kept_mean = sum(values[name] for name in kept) / len(kept)
    dropped_mean = sum(values[name] for name in gone) / len(gone)
    noted(kept_mean_score=round(kept_mean, 4), dropped_mean_score=round(dropped_mean, 4), lost=lost, doubled=doubled)
    assert kept_mean >= dropped_mean
    assert (lost, doubled) == (0, 0)


def scored(record: dict[str, Any], margin: float) -> SampleScored:
    return SampleScored(
        project="default",
        sample_id=record["sample_id"],
        model_version="mdl_1",
        task="image-classification",
        content=Content.model_validate(record["content"]),
        scores={"margin": margin},
    )


@pytest.fixture(scope="module")
def measured() -> tuple[dict[str, float], dict[str, float]]:
    return rates(), conv_rates()


def test_the_rate_beside_onnxruntime(measured: tuple[dict[str, float], dict[str, float]]) -> None:
    """Per CPU-second, at the same batch; with scores, which onnxruntime does not make, and decoded PNGs, beside it."""
    tiny, conv = measured
    raw, model = "onnxruntime, tensors in batches", "model, tensors in batches"
    scores, service = "scores, tensors in batches", "service, pictures in batches"
    noted(
        ratio_to_raw_onnxruntime={name: round(each[model] / each[raw], 3) for name, each in found(tiny, conv)},
        ratio_with_scores={name: round(each[scores] / each[raw], 3) for name, each in found(tiny, conv)},
        ratio_with_decoding={name: round(each[service] / each[raw], 3) for name, each in found(tiny, conv)},
        ratio_to_one_by_one=round(tiny[model] / tiny["model, tensors one by one"], 2),
    )
    assert conv[model] >= 0.9 * conv[raw]
    assert tiny[model] >= 0.6 * tiny[raw]
    assert tiny[model] >= 15 * tiny["model, tensors one by one"]


async def test_the_answers_under_load_come_within_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 1.1: 32 at a time, for whom one alone sets the pace; who is refused is told at once, and not many are."""
    async with inferring(tmp_path) as running:
        await serve(running, await model(running))
        alone = [await _asked(running, n) for n in range(20)]
    budget = 40 * sorted(seconds for seconds, _ in alone)[10]
    monkeypatch.setenv("HALFSURE_INFER_BUDGET_SECONDS", str(budget))
    async with inferring(tmp_path / "again") as running:
        await serve(running, await model(running))
        said = [row for _ in range(10) for row in await asyncio.gather(*(_asked(running, n) for n in range(AT_ONCE)))]
    answered = sorted(seconds for seconds, status in said if status == 200)
    p95 = answered[int(0.95 * len(answered))]
    noted(predict={"at_once": AT_ONCE, "budget_seconds": round(budget, 4), "p95_seconds": round(p95, 4)})
    assert {status for _, status in said} <= {200, 503}
    assert len(answered) >= 0.9 * len(said)
    assert p95 < budget


async def _asked(running: Running, shade: int) -> tuple[float, int]:
    began = time.perf_counter()
    answer = await ask(running, png(shade))
    return time.perf_counter() - began, answer.status_code


def found(tiny: dict[str, float], conv: dict[str, float]) -> list[tuple[str, dict[str, float]]]:
    return [("tiny", tiny), ("conv", conv)]
