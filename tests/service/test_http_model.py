"""Models that somebody else's server runs: a real HTTP server, asked by infer, slow, wrong and away."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import kinds
import numpy as np
import pytest
from conftest import Running, started, wait_until
from inferring import activated, ask, inferring, of, samples, serve
from servers import Model, Row, described, served, shade_of
from worlds import LABELS, NOON, SPECS, packaged, png, stored

from services.contracts.events import Content, ModelLoadFailed, SampleIngested, SampleScored, SampleScoringFailed
from services.contracts.ids import sha256
from services.infer.app import create

QUICK = {"timeout_seconds": 0.5, "within_seconds": 2.0, "tries": 2, "batch": 4}


@contextlib.asynccontextmanager
async def asking(
    folder: Path, monkeypatch: pytest.MonkeyPatch, model: Model, *, server: Row | None = None, **endpoint: Any
) -> AsyncIterator[Running]:
    """infer with a model of the server in service, and nothing said yet."""
    known = {"eye": {"url": f"http://127.0.0.1:{model.port}/score", **QUICK, **(server or {})}}
    monkeypatch.setenv("HALFSURE_INFER_SERVERS", json.dumps(known))
    async with inferring(folder) as running:
        await serve(running, await source(running, **endpoint))
        await running.published()
        yield running


async def source(running: Running, **endpoint: Any) -> dict[str, Content]:
    return await packaged(running.blobs, "default", *described(SPECS["image"], **endpoint))


async def failures(running: Running, *shades: int) -> list[Row]:
    """What is said of pictures that cannot be scored; the handler itself never fails."""
    assert set(await running.deliver_batch(await samples(running, [png(shade) for shade in shades]))) == {"SUCCESS"}
    story = await running.published()
    assert not of(SampleScored, story)
    return of(SampleScoringFailed, story)


async def test_a_server_scores_samples_and_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "token"
    secret.write_text("open sesame\n")
    with served(lambda one: {**shade_of(one), "embedding": [1.0, 2.0, 3.0]}) as model:
        server = {"token_file": str(secret)}
        async with asking(
            tmp_path, monkeypatch, model, server=server, embedding=3, parameters={"model": "cats"}
        ) as running:
            await running.deliver_batch(await samples(running, [png(shade) for shade in (0, 51, 102, 153, 204, 255)]))
            scored = await running.data(SampleScored)
            assert [row["probabilities"][1] for row in scored] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1], abs=0.02)
            assert [row["top"]["label"] for row in scored] == ["dark"] * 3 + ["bright"] * 3
            assert {row["provider"] for row in scored} == {"http:eye"}
            assert set(scored[0]["scores"]) == {"least_confidence", "margin", "entropy"}
            ref = scored[5]["embedding_ref"]
            block = np.frombuffer(await running.blobs.get(ref["uri"]), "<f4").reshape(-1, ref["dim"])
            assert block[ref["row"]].tolist() == [1.0, 2.0, 3.0]
            assert [len(asked["inputs"]) for asked in model.asked] == [4, 2]
            told = {"version": None, "task": "image-classification", "labels": LABELS, "parameters": {"model": "cats"}}
            assert model.asked[0]["model"] == told
            assert set(model.tokens) == {"Bearer open sesame"}
            answer = (await ask(running, png(204), png(51))).json()
            assert [row["label"] for row in answer["predictions"]] == ["bright", "dark"]
            assert answer["provider"] == "http:eye"
            items = (await running.call("GET", "/v1/loaded-models")).json()["items"]
            assert [row["provider"] for row in items if row["active"]] == ["http:eye"]


@pytest.mark.parametrize("task", ["tabular-multi-label", "text-classification", "series-classification"])
async def test_every_kind_of_sample_is_posted_as_predict_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    given: dict[str, tuple[bytes, str, Row]] = {
        "tabular": (b'{"a":1,"b":2}', "application/json", {"row": {"a": 1, "b": 2}}),
        "text": ("wie süß".encode(), "text/plain", {"text": "wie süß"}),
        "series": (b'[{"a":1,"b":2},{"a":1,"b":3},{"a":1,"b":4}]', "application/json", {}),
    }
    content, media_type, posted = given[task.partition("-")[0]]
    posted = posted or {"points": json.loads(content)}
    with served(lambda one: {"probabilities": {"dark": 0.25, "bright": 0.75}}) as model:
        monkeypatch.setenv("HALFSURE_INFER_SERVERS", json.dumps({"eye": {"url": f"http://127.0.0.1:{model.port}/"}}))
        async with started(create, tmp_path) as running:
            await running.deliver(await kinds.project(running.blobs, task))
            spec = kinds.SPECS[task.partition("-")[0]]
            await serve(running, await packaged(running.blobs, "default", *described(spec, task)))
            await running.deliver(await one_sample(running, content, media_type))
            (row,) = await running.data(SampleScored)
            assert row["probabilities"] == [0.25, 0.75]
            assert model.asked[0]["inputs"] == [posted]


async def test_a_detectors_boxes_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = {"x": 0.1, "y": 0.2, "width": 0.3, "height": 0.4}
    rows = {1: [{"label": "bright", "confidence": 0.9, **box}, {"label": "dark", "confidence": 0.3, **box}], 2: []}
    with served(lambda one: {"boxes": rows[1 if shade_of(one)["probabilities"]["bright"] > 0.5 else 2]}) as model:
        monkeypatch.setenv("HALFSURE_INFER_SERVERS", json.dumps({"eye": {"url": f"http://127.0.0.1:{model.port}/"}}))
        async with started(create, tmp_path) as running:
            await running.deliver(await kinds.project(running.blobs, "image-detection"))
            source = await packaged(running.blobs, "default", *described(kinds.SPECS["image"], "image-detection"))
            await serve(running, source)
            await running.published()
            await running.deliver_batch(await samples(running, [png(200), png(10)]))
            bright, dark = await running.data(SampleScored)
            assert [(found["label"], found["x"]) for found in bright["detections"]] == [("bright", 0.1)]
            assert (dark["detections"], dark["top"]["value"]) == ([], {"boxes": []})
            assert bright["scores"]["box_max"] > 0  # the box that was nearly found is in doubt


async def test_what_passes_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served() as model:
        async with asking(tmp_path, monkeypatch, model) as running:
            model.statuses = [503]
            await running.deliver_batch(await samples(running, [png(1)]))
            assert len(await running.data(SampleScored)) == 1
            assert len(model.asked) == 2


async def test_a_silent_server_loses_no_sample_and_is_asked_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is waited for no longer than it is said, a person gets the samples, and a rescoring scores them after all."""
    with served() as model:
        async with asking(tmp_path, monkeypatch, model) as running:
            model.waits.clear()
            failed = await failures(running, 1, 2, 3, 4, 5, 6)
            assert {(row["error"], row["retryable"]) for row in failed} == {("server-silent", True)}
            assert len(failed) == 6
            assert "http:eye: no answer within 0.5 s" in failed[0]["detail"]
            assert len(model.asked) == QUICK["tries"]  # for the first four; nobody waited for the others
            refused = await ask(running, png(1))
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
            assert "no answer within" in refused.json()["detail"]
            model.waits.set()

            async def answers() -> bool:
                return (await ask(running, png(1))).status_code == 200

            await wait_until(answers)
            body = {"model_version": "mdl_1", "sample_ids": [row["sample_id"] for row in failed]}
            job = (await running.call("POST", "/v1/rescore", json=body)).json()["id"]

            async def done() -> bool:
                return (await running.call("GET", f"/v1/rescore/{job}")).json()["state"] == "DONE"

            await wait_until(done)
            assert len(await running.data(SampleScored)) == 6


async def test_a_server_that_is_away_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served() as model:
        port = model.port
    model.port = port  # nobody listens there any more
    async with asking(tmp_path, monkeypatch, model) as running:
        (failed,) = await failures(running, 1)
        assert (failed["error"], failed["retryable"]) == ("server-silent", True)


async def test_one_that_it_cannot_take_fails_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served() as model:
        async with asking(tmp_path, monkeypatch, model) as running:
            model.refuses = lambda inputs: any(shade_of(one)["probabilities"]["bright"] > 0.9 for one in inputs)
            await running.deliver_batch(await samples(running, [png(1), png(250), png(3)]))
            story = await running.published()
            assert len(of(SampleScored, story)) == 2
            (failed,) = of(SampleScoringFailed, story)
            assert (failed["error"], failed["retryable"]) == ("server-refused", False)
            assert "422: not this one" in failed["detail"]
            assert (await ask(running, png(250))).status_code == 422


WRONG: dict[str, tuple[Callable[[Row], Row], str, str]] = {
    "labels": (lambda one: {"probabilities": {"cat": 1.0}}, "server-answer", "the manifest's labels are"),
    "none": (lambda one: {}, "server-answer", "it has no probabilities"),
    "range": (lambda one: {"probabilities": {"dark": 2.0, "bright": 0.0}}, "server-answer", "probabilities/dark"),
    "type": (lambda one: {"probabilities": [0.5, 0.5]}, "server-answer", "probabilities"),
    "sum": (lambda one: {"probabilities": {"dark": 0.9, "bright": 0.9}}, "model-output", "no probabilities"),
    "said": (lambda one: {"error": "too dark"}, "server-refused", "too dark"),
    "width": (lambda one: {**shade_of(one), "embedding": [1.0]}, "server-answer", "1 values, not 3"),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_a_prediction_that_does_not_fit_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    says, error, detail = WRONG[wrong]
    with served(says) as model:
        more = {"embedding": 3} if wrong == "width" else {}
        async with asking(tmp_path, monkeypatch, model, **more) as running:
            failed = await failures(running, 1, 2)
            assert [row["error"] for row in failed] == [error] * 2
            assert detail in failed[0]["detail"]


@pytest.mark.parametrize(
    ("raw", "detail"),
    [
        (b"<html>", "its answer does not fit"),
        (b'{"predictions": []}', "0 prediction(s) for 2 input(s)"),
        (b'{"predictions": [{"probabilities": {"dark": NaN, "bright": 1}}, {}]}', "does not fit"),
        (b'{"predictions": {}}', "predictions"),
    ],
)
async def test_an_answer_that_does_not_fit_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raw: bytes, detail: str
) -> None:
    with served() as model:
        model.raw = raw
        async with asking(tmp_path, monkeypatch, model) as running:
            failed = await failures(running, 1, 2)
            assert len(failed) == 2
            assert all(row["retryable"] for row in failed)  # nothing is wrong with the samples
            assert detail in failed[0]["detail"]


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        ({"server": "nose"}, "no server 'nose' here; it has eye"),
        ({"color": 1}, "color"),
        ({"embedding": 0}, "embedding"),
    ],
)
async def test_what_is_no_endpoint_here_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endpoint: Row, reason: str
) -> None:
    with served() as model:
        async with asking(tmp_path, monkeypatch, model) as running:
            await running.deliver(activated(await source(running, **endpoint), "mdl_2", 2))

            async def refused() -> list[Row]:
                return await running.data(ModelLoadFailed)

            (failed,) = await wait_until(refused)
            assert reason in failed["error"]
            assert (await ask(running, png(1))).json()["model_version"] == "mdl_1"


async def test_who_would_be_answered_too_late_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 1.1: a budget for `POST /v1/predict`; whoever comes to an idle model is answered, however slow it was."""
    monkeypatch.setenv("HALFSURE_INFER_BUDGET_SECONDS", "0.001")  # no run is so quick
    slow = {"timeout_seconds": 10, "within_seconds": 12}
    with served() as model:
        async with asking(tmp_path, monkeypatch, model, server=slow) as running:
            assert (await ask(running, png(1))).status_code == 200
            model.waits.clear()
            first = asyncio.create_task(ask(running, png(2)))
            await wait_until(lambda: len(model.asked) == 2)
            second = await ask(running, png(3))
            assert (second.status_code, second.json()["title"]) == (503, "busy")
            assert int(second.headers["retry-after"]) >= 1
            model.waits.set()
            assert (await first).status_code == 200
            assert (await ask(running, png(4))).status_code == 200
            assert len(model.asked) == 3  # nobody was asked about the one that was refused


async def one_sample(running: Running, content: bytes, media_type: str) -> SampleIngested:
    digest = sha256(content)
    claim = await stored(running.blobs, f"samples/default/{digest[:2]}/{digest}", content, media_type)
    event = {"project": "default", "sample_id": f"smp_{digest[:26]}", "content": claim, "captured_at": NOON}
    return SampleIngested.model_validate(event)
