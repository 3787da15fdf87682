"""infer on every kind of task: what it says of samples, what it answers, and which artefacts it refuses."""

import contextlib
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from conftest import Running, started, wait_until
from inferring import activated, ask, serve
from kinds import model, project
from PIL import Image
from worlds import LABELS, NOON, SIDE, packaged, png, stored

from services.contracts.events import (
    ModelActivated,
    ModelLoadFailed,
    ModelRegistered,
    SampleIngested,
    SampleScored,
)
from services.contracts.ids import sha256
from services.contracts.structured_uncertainty import AGGREGATES, DEFAULTS
from services.contracts.tasks import answer_of, kind_of
from services.contracts.values import checked
from services.infer.app import create


def quarters(*shades: int) -> bytes:
    """A picture whose quarters have these shades: upper left, upper right, lower left, lower right."""
    pixels = np.kron(np.array(shades, np.uint8).reshape(2, 2), np.ones((SIDE // 2, SIDE // 2), np.uint8))
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


CONTENTS = {
    "image": [(quarters(0, 128, 128, 255), "image/png"), (png(128, 128), "image/png")],
    "tabular": [(b'{"a":0.1,"b":0.9}', "application/json"), (b'{"a":0.5,"b":0.5}', "application/json")],
    "text": [(b"the cat sat", "text/plain"), (b"a dog ran and ran", "text/plain; charset=utf-8")],
    "series": [
        (orjson.dumps([{"a": 0, "b": 1}, {"a": 0, "b": 1}, {"a": 0, "b": 2}]), "application/json"),
        (orjson.dumps([{"a": 0.5, "b": 0.5}] * 3), "application/json"),
    ],
}
TASKS = [
    *(f"{kind}-{answer}" for kind in CONTENTS for answer in ("classification", "multi-label")),
    "image-detection",
]


@contextlib.asynccontextmanager
async def inferring(tmp_path: Path, task: str) -> AsyncIterator[Running]:
    async with started(create, tmp_path) as running:
        await running.deliver(await project(running.blobs, task))
        yield running


async def samples(running: Running, kind: str) -> list[SampleIngested]:
    events = []
    for content, media_type in CONTENTS[kind]:
        digest = sha256(content)
        claim = await stored(running.blobs, f"samples/default/{digest[:2]}/{digest}", content, media_type)
        event = {"project": "default", "sample_id": f"smp_{digest[:26]}", "content": claim, "captured_at": NOON}
        events.append(SampleIngested.model_validate(event))
    return events


@pytest.mark.parametrize("task", TASKS)
async def test_every_kind_is_scored_without_a_model_and_with_one(tmp_path: Path, task: str) -> None:
    async with inferring(tmp_path, task) as running:
        events = await samples(running, kind_of(task))
        assert set(await running.deliver_batch(events)) == {"SUCCESS"}
        cold = await running.data(SampleScored)
        assert [(row["model_version"], "top" in row, "embedding_ref" in row) for row in cold] == [
            ("none", False, True)
        ] * 2
        await running.published()
        await serve(running, await packaged(running.blobs, "default", *model(task)))
        await running.published()
        assert set(await running.deliver_batch(events)) == {"SUCCESS"}
        rows = await running.data(SampleScored)
        assert [(row["task"], row["model_version"]) for row in rows] == [(task, "mdl_1")] * 2
        for row in rows:
            said = SampleScored.model_validate(row)
            assert said.top is not None
            assert 0 <= said.top.confidence <= 1
            assert checked(said.top.answer, task, LABELS) == said.top.answer
            wanted = AGGREGATES.get(answer_of(task), {"": "least_confidence", " ": "entropy"})
            assert set(said.scores) == {"margin", *wanted.values()}
            assert all(0 <= score <= 1 for score in said.scores.values())
            assert len(said.probabilities) == (0 if task == "image-detection" else 2)
            block = await running.blobs.get(row["embedding_ref"]["uri"])
            assert np.isfinite(np.frombuffer(block, "<f4")).all()


async def test_several_labels_are_said_each_for_itself(tmp_path: Path) -> None:
    async with inferring(tmp_path, "image-multi-label") as running:
        await serve(running, await packaged(running.blobs, "default", *model("image-multi-label")))
        both, none, unsure = png(255, 0), png(128, 128), png(128, 90)
        rows = (await ask(running, both, none, unsure)).json()["predictions"]
        assert [row["value"] for row in rows] == [["dark", "bright"], [], []]
        assert [sum(row["probabilities"]) == pytest.approx(2, abs=0.02) for row in rows] == [True, False, False]
        # The least sure label tells how sure the whole answer is.
        for row in rows:
            assert row["confidence"] == pytest.approx(min(max(p, 1 - p) for p in row["probabilities"]))
            unsure_of = [1 - abs(2 * p - 1) for p in row["probabilities"]]
            assert row["scores"]["label_max"] == pytest.approx(max(unsure_of), abs=1e-6)
            assert row["scores"]["label_mean"] == pytest.approx(sum(unsure_of) / 2, abs=1e-6)
            assert row["scores"]["margin"] == row["scores"][DEFAULTS["multi-label"]]
        assert rows[2]["scores"]["margin"] > rows[1]["scores"]["margin"] > rows[0]["scores"]["margin"]


async def test_a_detector_says_which_boxes_it_is_how_sure_of(tmp_path: Path) -> None:
    async with inferring(tmp_path, "image-detection") as running:
        await serve(running, await packaged(running.blobs, "default", *model("image-detection")))
        answer = await ask(running, quarters(0, 128, 128, 255), quarters(128, 128, 128, 128), quarters(0, 128, 70, 128))
        two, none, doubtful = answer.json()["predictions"]
        assert two["value"] == {
            "boxes": [
                {"label": "dark", "x": 0.0, "y": 0.0, "width": 0.5, "height": 0.5},
                {"label": "bright", "x": 0.5, "y": 0.5, "width": 0.5, "height": 0.5},
            ]
        }
        assert [box["label"] for box in two["detections"]] == [
            two["label"],
            "bright" if two["label"] == "dark" else "dark",
        ]
        assert two["confidence"] == min(box["confidence"] for box in two["detections"])
        assert (none["label"], none["value"], none["detections"]) == ("", {"boxes": []}, [])
        assert 0.95 < none["confidence"] < 1.0
        assert "probabilities" not in two
        assert [box["label"] for box in doubtful["detections"]] == ["dark", "dark"]
        assert doubtful["confidence"] < 0.7
        scores = doubtful["scores"]
        assert scores["margin"] == scores[DEFAULTS["detection"]] == scores["box_max"] > scores["box_mean"]


async def test_a_box_that_was_nearly_found_is_in_doubt(tmp_path: Path) -> None:
    async with inferring(tmp_path, "image-detection") as running:
        await serve(running, await packaged(running.blobs, "default", *model("image-detection")))
        (row,) = (await ask(running, quarters(80, 128, 128, 128))).json()["predictions"]  # dark at 0.43
        assert row["value"] == {"boxes": []}
        assert row["confidence"] == pytest.approx(1 - 0.4336, abs=0.01)
        assert row["scores"]["box_max"] > 0.8


async def test_texts_and_windows_can_be_asked_about_as_they_are(tmp_path: Path) -> None:
    for task, given in (
        ("text-classification", {"text": "the cat sat"}),
        ("series-classification", {"points": [{"a": 0, "b": 1}] * 3}),
        ("tabular-multi-label", {"row": {"a": 0, "b": 1}}),
    ):
        (tmp_path / task).mkdir()
        async with inferring(tmp_path / task, task) as running:
            await serve(running, await packaged(running.blobs, "default", *model(task)))
            answer = await running.call("POST", "/v1/predict", role="viewer", json={"inputs": [given]})
            assert answer.status_code == 200, answer.text
            assert checked(answer.json()["predictions"][0]["value"], task, LABELS) is not None
            wrong = await running.call(
                "POST", "/v1/predict", role="viewer", json={"inputs": [{**given, "row": {}}, {}]}
            )
            assert wrong.status_code == 422


FAULTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "raw labels": ("image-multi-label", {"raw": True}, "not within 0..1: are these raw scores?"),
    "raw places": ("image-detection", {"raw": True}, "not within 0..1: are these raw scores?"),
    "pixels": ("image-detection", {"pixels": True}, "are these pixels?"),
    "labels": ("image-detection", {"labels": ("dark", "bright", "grey")}, "the manifest says [None, None, 3]"),
    "places": (
        "image-detection",
        {"outputs": {"probabilities": "boxes", "boxes": "probabilities"}},
        "output 'boxes' has shape ['N', 4, 4], the manifest says [None, None, 2]",
    ),
    "no boxes": (
        "image-detection",
        {"outputs": {"probabilities": "probabilities", "boxes": "bboxes"}},
        "output 'bboxes' (boxes) is not in the model",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_broken_artefact_is_refused_with_the_mismatch_named(tmp_path: Path, fault: str) -> None:
    task, more, why = FAULTS[fault]
    async with inferring(tmp_path, task) as running:
        await serve(running, await packaged(running.blobs, "default", *model(task)))
        await running.published()
        broken = await packaged(running.blobs, "default", *model(task, **more))
        await running.deliver(activated(broken, "mdl_2", 2))
        failed: list[dict[str, Any]] = []

        async def told() -> bool:
            failed.extend(await running.data(ModelLoadFailed))
            return bool(failed)

        await wait_until(told)
        assert why in failed[0]["error"]
        assert (await ask(running, png(0))).json()["model_version"] == "mdl_1"


async def test_a_shadow_agrees_when_its_boxes_do(tmp_path: Path) -> None:
    task = "image-detection"
    async with inferring(tmp_path, task) as running:
        source = await packaged(running.blobs, "default", *model(task))
        other = await packaged(running.blobs, "default", *model(task, thresholds={"confidence": 0.9}))
        await serve(running, source)
        await running.deliver(ModelRegistered(project="default", version="mdl_2", **other))
        event = {"version": "mdl_1", "previous": "mdl_1", "activation_epoch": 2, "shadow": "mdl_2"}
        await running.deliver(ModelActivated(project="default", **event, **source))

        async def shadowed() -> bool:
            return (await running.call("GET", "/v1/shadow")).status_code == 200

        await wait_until(shadowed)
        for content in (quarters(0, 128, 128, 255), quarters(0, 128, 128, 195)):  # the second one's bright is at 0.8
            digest = sha256(content)
            claim = await stored(running.blobs, f"samples/default/{digest}", content, "image/png")
            event = {"project": "default", "sample_id": f"smp_{digest[:26]}", "content": claim, "captured_at": NOON}
            await running.deliver(SampleIngested.model_validate(event))
        found: dict[str, Any] = {}

        async def counted() -> bool:
            found.update((await running.call("GET", "/v1/shadow")).json())
            return found["samples"] == 2

        await wait_until(counted)
        assert found["agreed"] == 1
