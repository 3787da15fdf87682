"""Numbers of the edge that need no network: the service's rate beside onnxruntime's, and its answers under load."""

import asyncio
import time
from pathlib import Path

import pytest
from conftest import Running
from edge.noting import noted
from inferring import ask, inferring, model, serve
from worlds import png

from bench.inference import conv_rates, rates

AT_ONCE = 32


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
    (tmp_path / "again").mkdir()
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
