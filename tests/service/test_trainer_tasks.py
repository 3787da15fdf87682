"""The trainer for every kind of task that it knows: answers in, a checked and judged ONNX model out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from services.contracts.inputs import InputSpec, TabularColumn
from services.contracts.manifest import ModelManifest
from services.contracts.preprocessing import decode
from services.contracts.tasks import Task, kind_of
from services.infer.model import OnnxModel
from services.retrain_trigger.extractors import extractor
from services.retrain_trigger.gate import GateSettings, judge
from services.retrain_trigger.trainer import EXIT_BAD_JOB, EXIT_DONE, EXIT_NOT_TRAINABLE, main

AB = ("a", "b")
"""Two things that a sample may have, in every kind: what a text speaks of, what bends a curve, what lights a corner."""
LABELS = [*AB, "never-seen"]
WORDS = {
    name: words.split()
    for name, words in {"a": "fuse breaker volt", "b": "valve leak pressure", "": "the unit stands in hall two"}.items()
}
SEED = 5


def text(has: set[str], rng: np.random.Generator) -> bytes:
    words = [str(rng.choice(WORDS[name])) for name in has for _ in range(3)]
    words += [str(rng.choice(WORDS[""])) for _ in range(8)]
    rng.shuffle(words)
    return " ".join(words).encode()


def series(has: set[str], rng: np.random.Generator) -> bytes:
    at = np.arange(32)
    x = rng.normal(0, 0.3, 32) + ("a" in has) * np.sin(at + rng.random() * 6)
    y = rng.normal(0, 0.3, 32) + ("b" in has) * at / 16
    return json.dumps([{"x": float(one), "y": float(two)} for one, two in zip(x, y, strict=True)]).encode()


def tabular(has: set[str], rng: np.random.Generator) -> bytes:
    return json.dumps({"x": float(rng.normal("a" in has, 0.2)), "y": float(rng.normal("b" in has, 0.2))}).encode()


def image(has: set[str], rng: np.random.Generator) -> bytes:
    import io

    pixels = rng.integers(0, 60, (16, 16))
    pixels[:6, :6] += 150 * ("a" in has)
    pixels[10:, 10:] += 150 * ("b" in has)
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


XY = [TabularColumn(name="x"), TabularColumn(name="y")]
KINDS: dict[str, tuple[Callable[[set[str], np.random.Generator], bytes], InputSpec, str]] = {
    "text": (text, InputSpec.text(1024), "text/plain"),
    "series": (series, InputSpec.series(32, XY), "application/json"),
    "tabular": (tabular, InputSpec.tabular(XY), "application/json"),
    "image": (image, InputSpec.image(16, 16, 1), "image/png"),
}


def refs(folder: Path, task: Task, count: int, choose: Callable[[int], set[str]]) -> list[dict[str, Any]]:
    """`count` samples with their answers."""
    make, _, media_type = KINDS[kind_of(task)]
    rng, found = np.random.default_rng(SEED), []
    for at in range(count):
        has = choose(at)
        path = folder / f"{at}.sample"
        path.write_bytes(make(has, rng))
        label: Any = [name for name in AB if name in has] if task.endswith("multi-label") else next(iter(has))
        found.append({"sample_id": f"smp_{at}", "path": str(path), "media_type": media_type, "label": label})
    return found


def one_of(at: int) -> set[str]:
    return {AB[at % 2]}


def any_of(at: int) -> set[str]:
    return {name for place, name in enumerate(AB) if at >> place & 1}


def job(folder: Path, task: Task, samples: list[dict[str, Any]], /, **changes: Any) -> Path:
    """A job of 40 samples to train on, and the others to be judged by."""
    content, manifest = extractor(task, KINDS[kind_of(task)][1])
    (folder / "extractor.onnx").write_bytes(content)
    fields = {
        "run_id": "run_1",
        "task": task,
        "labels": LABELS,
        "extractor": {"path": str(folder / "extractor.onnx"), "manifest": manifest.model_dump(mode="json")},
        "samples": samples[:40],
        "evaluation": samples[40:],
        "out_dir": str(folder / "out"),
        **changes,
    }
    path = folder / "job.json"
    path.write_text(json.dumps(fields))
    return path


def outcome(folder: Path, name: str = "out") -> tuple[dict[str, Any], bytes, ModelManifest]:
    out = folder / name
    manifest = ModelManifest.model_validate_json((out / "manifest.json").read_bytes())
    return json.loads((out / "result.json").read_bytes()), (out / "model.onnx").read_bytes(), manifest


TASKS: list[Task] = [
    "text-classification",
    "series-classification",
    "image-multi-label",
    "tabular-multi-label",
    "text-multi-label",
    "series-multi-label",
]


@pytest.mark.parametrize("task", TASKS)
def test_answers_become_a_model_that_serves_them(tmp_path: Path, task: Task) -> None:
    several = task.endswith("multi-label")
    samples = refs(tmp_path, task, 100, any_of if several else one_of)
    assert main([str(job(tmp_path, task, samples))]) == EXIT_DONE
    assert main([str(job(tmp_path, task, samples, out_dir=str(tmp_path / "again")))]) == EXIT_DONE
    result, content, manifest = outcome(tmp_path)
    assert content == outcome(tmp_path, "again")[1]
    assert manifest.task == task
    scored = result["metrics"]["candidate"]
    assert scored["metric"] == ("jaccard" if several else "accuracy")
    assert scored[scored["metric"]] >= 0.95, scored
    assert scored["calibration"]["error"] < 0.1
    assert judge(result["metrics"], GateSettings(floor=0.5)).promote

    model = OnnxModel.load(content, manifest)
    make, spec, media_type = KINDS[kind_of(task)]
    rng = np.random.default_rng(99)
    fresh = [make({name}, rng) for name in AB for _ in range(10)]
    said = model.predict(np.stack([decode(one, media_type, spec) for one in fresh])).probabilities
    assert said is not None
    np.testing.assert_array_equal(said[:, :2] >= 0.5, np.repeat(np.eye(2, dtype=bool), 10, axis=0))
    assert (said[:, 2] < 0.05).all()  # a label nobody gave
    assert (said[:, 2] == said[0, 2]).all()


def test_several_labels_are_judged_beside_the_champion(tmp_path: Path) -> None:
    task: Task = "text-multi-label"
    samples = refs(tmp_path, task, 140, any_of)
    assert main([str(job(tmp_path, task, samples))]) == EXIT_DONE
    champion = {
        "path": str(tmp_path / "out" / "model.onnx"),
        "manifest": json.loads((tmp_path / "out" / "manifest.json").read_bytes()),
        "version": "v1",
    }
    blind = [{**one, "label": [name for name in one["label"] if name != "b"]} for one in samples[:40]]
    path = job(tmp_path, task, samples, samples=blind, champion=champion, out_dir=str(tmp_path / "worse"))
    assert main([str(path)]) == EXIT_DONE
    metrics = outcome(tmp_path, "worse")[0]["metrics"]
    assert metrics["paired"]["n"] == 100
    assert metrics["paired"]["difference"] < -0.2
    verdict = judge(metrics, GateSettings())
    assert not verdict.promote
    assert verdict.numbers["metric"] == "jaccard"
    assert set(verdict.numbers["fallen"]) == {"b"}
    assert any(reason.startswith("not-better: jaccard 0.") and "margin" in reason for reason in verdict.reasons)


@pytest.mark.parametrize(
    ("choose", "says"),
    [(lambda _: {"a"}, "all have the same labels"), (lambda _: set(), "all have the same labels")],
)
def test_answers_that_are_all_the_same_teach_nothing(
    tmp_path: Path, choose: Callable[[int], set[str]], says: str
) -> None:
    samples = refs(tmp_path, "tabular-multi-label", 50, choose)
    assert main([str(job(tmp_path, "tabular-multi-label", samples))]) == EXIT_NOT_TRAINABLE
    error = json.loads((tmp_path / "out" / "result.json").read_bytes())["error"]
    assert error["code"] == "not-trainable"
    assert says in error["message"]


def test_the_bundled_trainer_says_who_makes_detectors(tmp_path: Path) -> None:
    samples = refs(tmp_path, "image-multi-label", 50, any_of)
    boxes = [{**one, "label": {"boxes": []}} for one in samples]
    content, manifest = extractor("image-detection", KINDS["image"][1])
    (tmp_path / "extractor.onnx").write_bytes(content)
    described = {"path": str(tmp_path / "extractor.onnx"), "manifest": manifest.model_dump(mode="json")}
    path = job(tmp_path, "image-multi-label", boxes, task="image-detection", extractor=described)
    assert main([str(path)]) == EXIT_NOT_TRAINABLE
    assert "examples/detector" in (tmp_path / "out" / "result.json").read_text()


@pytest.mark.parametrize(
    ("task", "label", "says"),
    [
        ("text-multi-label", "a", "a list of labels"),
        ("text-multi-label", ["a", "fox"], "label/1 that is not in the schema"),
        ("text-multi-label", ["a", "a"], "twice"),
        ("text-classification", ["a"], "not in the schema"),
    ],
)
def test_an_answer_to_another_question_is_refused(
    tmp_path: Path, task: Task, label: Any, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = refs(tmp_path, task, 50, one_of)
    samples[3]["label"] = label
    assert main([str(job(tmp_path, task, samples))]) == EXIT_BAD_JOB
    said = capsys.readouterr().err
    assert "smp_3" in said
    assert says in said


@pytest.mark.parametrize("task", ["text-classification", "text-multi-label"])
def test_the_curve_is_of_the_tasks_own_metric(tmp_path: Path, task: Task, capsys: pytest.CaptureFixture[str]) -> None:
    samples = refs(tmp_path, task, 120, any_of if task.endswith("multi-label") else one_of)
    fields = json.loads(job(tmp_path, task, samples).read_bytes())
    ids = [one["sample_id"] for one in samples[:60]]
    curve = {
        "task": task,
        "labels": LABELS,
        "extractor": fields["extractor"],
        "samples": samples[:60],
        "test": samples[60:],
        "subsets": [{"labels": count, "ids": ids[:count]} for count in (1, 8, 60)],
    }
    (tmp_path / "curve.json").write_text(json.dumps(curve))
    assert main(["--curve", str(tmp_path / "curve.json")]) == EXIT_DONE
    answer = json.loads(capsys.readouterr().out)
    few, some, all_ = (row["accuracy"] for row in answer["baseline"])
    assert few is None
    assert some <= all_ == answer["full_supervised_accuracy"]
    assert all_ > 0.9
