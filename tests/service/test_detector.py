"""Detection, through the backend `command`: the example trains on more and more scenes, and the judge judges it."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Running
from training import ask, ended, make, running

from services.cli.scenes import SHAPES, SIDE, scene
from services.contracts.boxes import matched
from services.contracts.detection import decoded
from services.contracts.events import Content, LabelAccepted
from services.contracts.ids import sample_id, sha256
from services.contracts.inputs import InputSpec
from services.contracts.manifest import ModelManifest
from services.contracts.preprocessing import decode
from services.infer.model import OnnxModel

EXAMPLE = Path(__file__).parents[2] / "examples" / "detector" / "train.py"
ROUNDS = (10, 40, 160)
JUDGES = 100
SEED = 20261125

pytestmark = pytest.mark.usefixtures("brisk")


@pytest.fixture
def detecting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HALFSURE_RETRAIN_TRIGGER_BACKEND", "command")
    monkeypatch.setenv("HALFSURE_RETRAIN_TRIGGER_COMMAND", shlex.join([sys.executable, str(EXAMPLE)]))
    monkeypatch.setenv("HALFSURE_RETRAIN_TRIGGER_ATTEMPTS", "1")


async def labelled(
    one: Running, scenes: Sequence[tuple[bytes, dict[str, Any]]], split: str = "train"
) -> list[LabelAccepted]:
    """Labels of scenes that are in the store."""
    events = []
    for content, value in scenes:
        uri = await one.service.blobs.put(f"samples/default/{sha256(content)}", content)
        fields = {
            "project": "default",
            "sample_id": sample_id("default", sha256(content)),
            "label_revision": 1,
            "value": value,
            "split": split,
            "origin": "queue" if split == "train" else "import",
            "content": Content(uri=uri, sha256=sha256(content), bytes=len(content), media_type="image/png"),
        }
        events.append(LabelAccepted.model_validate(fields))
    return events


async def rounds(one: Running, counts: Sequence[int]) -> list[dict[str, Any]]:
    """A run for each number of labelled scenes, as the loop would have it; the runs, oldest first."""
    print("seed", SEED)
    rng = np.random.default_rng(SEED)
    await one.deliver_batch(await labelled(one, [scene(rng) for _ in range(JUDGES)], "evaluation"))
    done: list[dict[str, Any]] = []
    for number, (before, count) in enumerate(zip((0, *counts), counts, strict=False), 1):
        await one.deliver_batch(await labelled(one, [scene(rng) for _ in range(count - before)]))
        answer = await one.call("POST", "/v1/runs", json={})
        assert answer.status_code in (200, 201, 202), answer.text
        done = await ended(one, number, seconds=100)
    return done[::-1]


@pytest.mark.usefixtures("detecting")
async def test_the_example_finds_more_the_more_scenes_it_has_seen(tmp_path: Path) -> None:
    async with running(tmp_path) as one:
        spec = InputSpec.image(SIDE, SIDE, 1).model_dump(mode="json")
        more = {"task": "image-detection", "labels": list(SHAPES), "input": spec, "gate": {"delta": 0.05}}
        await make(one, **more, trigger={"n": 1000, "min_per_class": 0})
        runs = await rounds(one, ROUNDS)
        print(*((run["state"], run["error"], run["gate"]) for run in runs), sep="\n")
        assert [(run["state"], run["promoted"]) for run in runs] == [("SUCCEEDED", True)] * 3
        assert [run["snapshot"]["counts"]["train"] for run in runs] == list(ROUNDS)
        assert {run["metric"]["name"] for run in runs} == {"map50"}
        first, second, third = (run["metric"]["value"] for run in runs)
        print("map50", first, second, third)
        assert first + 0.1 < second < third - 0.03
        assert third > 0.6
        assert [run["gate"]["champion"] for run in runs] == [None, first, second]
        assert runs[2]["gate"]["lower_bound"] > -0.05

        record = await ask(one, f"/v1/models/{runs[2]['model_version']}")
        assert record["metrics"]["map"] > 0.3
        compared = await ask(one, f"/v1/models/compare?a={runs[2]['model_version']}&b={runs[0]['model_version']}")
        assert compared["metric"] == "map50"
        assert compared["difference"] == pytest.approx(third - first)
        await serves(one, record)


async def serves(one: Running, record: dict[str, Any]) -> None:
    """What is in the registry loads in infer, and finds what is in a fresh scene."""
    manifest = ModelManifest.model_validate_json(await one.blobs.get(record["manifest"]["uri"]))
    model = OnnxModel.load(await one.blobs.get(record["artefact"]["uri"]), manifest)
    rng = np.random.default_rng(7)
    fresh = [scene(rng) for _ in range(40)]
    scored = model.predict(np.stack([decode(png, "image/png", manifest.input) for png, _ in fresh]))
    assert scored.boxes is not None
    assert scored.probabilities is not None
    found = decoded(scored.boxes, scored.probabilities, manifest.labels, manifest.thresholds)
    pairs = [
        len(matched(value["boxes"], [box.model_dump() for box in boxes]))
        for (_, value), boxes in zip(fresh, found, strict=True)
    ]
    assert sum(pairs) > 0.4 * sum(len(value["boxes"]) for _, value in fresh)


@pytest.mark.usefixtures("detecting")
async def test_scenes_without_boxes_are_no_training_set(tmp_path: Path) -> None:
    async with running(tmp_path) as one:
        spec = InputSpec.image(SIDE, SIDE, 1).model_dump(mode="json")
        await make(one, task="image-detection", labels=["disc"], input=spec, trigger={"n": 3, "min_per_class": 0})
        rng = np.random.default_rng(SEED)
        await one.deliver_batch(await labelled(one, [(scene(rng)[0], {"boxes": []}) for _ in range(8)]))
        answer = await one.call("POST", "/v1/runs", json={})
        assert answer.status_code == 409, answer.text
        assert "'disc' lacks 1" in answer.text or "disc lacks 1" in answer.text
