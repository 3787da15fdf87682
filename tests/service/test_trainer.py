"""The local training backend: the same job gives the same bytes, and what cannot be trained ends in words."""

import io
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from services.contracts.inputs import TabularColumn
from services.contracts.manifest import ModelManifest
from services.contracts.preprocessing import decode
from services.contracts.rules import Score
from services.infer.batching import Piece, predictions
from services.infer.model import ModelMismatch, OnnxModel
from services.retrain_trigger.extractors import image_extractor, tabular_extractor
from services.retrain_trigger.trainer import EXIT_BAD_JOB, EXIT_DONE, EXIT_NOT_TRAINABLE, main
from services.select_uncertain.rules import TRUE, Facts, Tree

LABELS = ["across", "down", "never-seen"]


@pytest.fixture
def samples(tmp_path: Path) -> list[dict[str, Any]]:
    """60 noisy striped pictures, half of them lying, half standing."""
    rng, refs = np.random.default_rng(11), []
    for index in range(60):
        stripes = np.tile(np.repeat([0, 200], 4), 2)[None].repeat(16, axis=0)
        picture = (stripes if index % 2 else stripes.T) + rng.integers(0, 50, (16, 16))
        path = tmp_path / f"{index}.png"
        Image.fromarray(picture.astype(np.uint8)).save(path)
        refs.append({"sample_id": f"smp_{index}", "path": str(path), "media_type": "image/png"})
    return refs


def labelled(refs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**ref, "label": LABELS[int(ref["sample_id"][4:]) % 2]} for ref in refs]


def job(folder: Path, refs: list[dict[str, Any]], **changes: Any) -> Path:
    """A job file: 10 labelled, 20 for evaluation, 30 unlabelled."""
    content, manifest = image_extractor(16, 16, 1)
    (folder / "extractor.onnx").write_bytes(content)
    fields = {
        "run_id": "run_1",
        "task": "image-classification",
        "labels": LABELS,
        "extractor": {
            "path": str(folder / "extractor.onnx"),
            "manifest": manifest.model_dump(mode="json"),
        },
        "champion": None,
        "samples": labelled(refs[:10]),
        "evaluation": labelled(refs[10:30]),
        "unlabelled": refs[30:],
        "params": {"seed": 3},
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


@pytest.mark.parametrize("head", ["auto", "spread", "logistic"])
def test_the_same_job_gives_the_same_bytes(tmp_path: Path, samples: list[dict[str, Any]], head: str) -> None:
    params = {"seed": 3, "head": head}
    assert main([str(job(tmp_path, samples, params=params))]) == EXIT_DONE
    assert main([str(job(tmp_path, samples, params=params, out_dir=str(tmp_path / "again")))]) == EXIT_DONE
    first, content, manifest = outcome(tmp_path)
    again, same_content, _ = outcome(tmp_path, "again")
    assert content == same_content
    assert first["artefact_sha256"] == again["artefact_sha256"] == manifest.sha256
    assert first["metrics"]["candidate"]["accuracy"] == 1.0
    assert not list((tmp_path / "out").glob(".*"))


def test_what_was_trained_is_what_serves(tmp_path: Path, samples: list[dict[str, Any]]) -> None:
    main([str(job(tmp_path, samples))])
    _, content, manifest = outcome(tmp_path)
    model = OnnxModel.load(content, manifest)
    batch = np.stack([decode(Path(r["path"]).read_bytes(), "image/png", manifest.input) for r in samples])
    scored = model.predict(batch)
    assert scored.probabilities is not None
    assert scored.margin is not None
    assert [LABELS[i] for i in scored.probabilities.argmax(axis=1)] == [r["label"] for r in labelled(samples)]
    assert (scored.probabilities[:, 2] == 0).all()  # a label nobody gave
    top = np.sort(scored.probabilities, axis=1)
    assert scored.margin == pytest.approx(top[:, -1] - top[:, -2], abs=1e-6)


def test_what_was_trained_tells_what_is_foreign_and_a_policy_may_ask_for_it(
    tmp_path: Path, samples: list[dict[str, Any]]
) -> None:
    """By the exported graph, as infer says it: stripes it knows, and pictures that are none."""
    main([str(job(tmp_path, samples))])
    _, content, manifest = outcome(tmp_path)
    assert manifest.outputs.ood == "ood"
    rng = np.random.default_rng(5)
    foreign = [_picture(rng.integers(0, 256, (16, 16))) for _ in range(20)]
    own = [Path(ref["path"]).read_bytes() for ref in samples]
    pieces = [Piece(picture, "image/png") for picture in (*own, *foreign)]
    said = predictions(OnnxModel.load(content, manifest), manifest, pieces, 64)
    assert said.ood is not None
    assert (said.scores["ood"] == said.ood).all()
    assert said.ood[60:].min() > max(0.5, said.ood[:60].max())
    asked = Tree(Score(rule="score", score="ood", low=0.5, name="foreign"))
    facts = [Facts("smp_1", datetime.now(UTC), scores={"ood": float(value)}) for value in said.ood[60:]]
    assert all(asked.judge(one).results["foreign"].value == TRUE for one in facts)


def _picture(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def test_champion_and_candidate_are_judged_on_the_same_set(tmp_path: Path, samples: list[dict[str, Any]]) -> None:
    main([str(job(tmp_path, samples))])
    champion = {
        "path": str(tmp_path / "out" / "model.onnx"),
        "manifest": json.loads((tmp_path / "out" / "manifest.json").read_bytes()),
        "version": "v1",
    }
    swapped = [{**ref, "label": LABELS[(index + 1) % 2]} for index, ref in enumerate(samples[:10])]
    path = job(
        tmp_path,
        samples,
        champion=champion,
        samples=swapped,
        unlabelled=[],
        out_dir=str(tmp_path / "worse"),
    )
    assert main([str(path)]) == EXIT_DONE
    result, _, _ = outcome(tmp_path, "worse")
    paired = result["metrics"]["paired"]
    assert result["metrics"]["champion"]["accuracy"] == 1.0
    assert paired["n"] == 20
    assert paired["candidate_only_correct"] == 0
    assert paired["champion_only_correct"] == 20
    assert sum(row["n"] for row in paired["per_class"].values()) == 20
    assert result["evaluation_sha256"] == outcome(tmp_path)[0]["evaluation_sha256"]


def test_an_empty_evaluation_set_gives_no_metrics(tmp_path: Path, samples: list[dict[str, Any]]) -> None:
    assert main([str(job(tmp_path, samples, evaluation=[]))]) == EXIT_DONE
    assert outcome(tmp_path)[0]["metrics"] is None


def test_one_label_is_not_trainable(tmp_path: Path, samples: list[dict[str, Any]]) -> None:
    for few in (labelled(samples[:1]), labelled(samples[0:10:2]), []):
        assert main([str(job(tmp_path, samples, samples=few))]) == EXIT_NOT_TRAINABLE
        error = json.loads((tmp_path / "out" / "result.json").read_bytes())["error"]
        assert error["code"] == "not-trainable"
        assert "two labels" in error["message"]


def test_a_sample_that_cannot_be_read_is_named(tmp_path: Path, samples: list[dict[str, Any]]) -> None:
    Path(samples[4]["path"]).write_bytes(b"broken")
    assert main([str(job(tmp_path, samples))]) == EXIT_NOT_TRAINABLE
    error = json.loads((tmp_path / "out" / "result.json").read_bytes())["error"]
    assert error["code"] == "unreadable-sample"
    assert "smp_4" in error["message"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"labels": ["across"]}, "at least 2"),
        ({"labels": ["other", "down"]}, "not in the schema"),
        ({"params": {"head": "forest"}}, "logistic"),
        ({"params": {"c": -1}}, "greater than 0"),
        ({"task": "tabular-classification"}, "the extractor is for"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_bad_job_is_refused_before_it_runs(
    tmp_path: Path,
    samples: list[dict[str, Any]],
    changes: dict[str, Any],
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([str(job(tmp_path, samples, **changes))]) == EXIT_BAD_JOB
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("leak", ["samples", "unlabelled"])
def test_an_evaluation_sample_is_never_trained_on(
    tmp_path: Path, samples: list[dict[str, Any]], leak: str, capsys: pytest.CaptureFixture[str]
) -> None:
    refs = samples[:15] if leak == "unlabelled" else labelled(samples[:15])
    changes = {leak: refs} if leak == "samples" else {leak: refs, "samples": labelled(samples[40:50])}
    assert main([str(job(tmp_path, samples, **changes))]) == EXIT_BAD_JOB
    assert "evaluation" in capsys.readouterr().err


def test_rows_are_trained_on_too(tmp_path: Path) -> None:
    content, manifest = tabular_extractor([TabularColumn(name="x", mean=5, scale=3)])
    (tmp_path / "row.onnx").write_bytes(content)
    refs = []
    for index in range(30):
        path = tmp_path / f"{index}.json"
        path.write_text(json.dumps({"x": index / 3}))
        refs.append({"sample_id": f"smp_{index}", "path": str(path), "media_type": "application/json",
                     "label": "low" if index < 15 else "high"})  # fmt: skip
    extractor = {"path": str(tmp_path / "row.onnx"), "manifest": manifest.model_dump(mode="json")}
    changes = {"task": "tabular-classification", "labels": ["low", "high"], "extractor": extractor}
    path = job(tmp_path, [], samples=refs[::2], evaluation=refs[1::2], **changes)
    assert main([str(path)]) == EXIT_DONE
    assert outcome(tmp_path)[0]["metrics"]["candidate"]["accuracy"] > 0.9


def test_the_curve_is_made_by_the_same_training(tmp_path: Path, samples: list[dict[str, Any]]) -> None:
    fields = json.loads(job(tmp_path, samples).read_bytes())
    curve = {
        "labels": LABELS,
        "extractor": fields["extractor"],
        "samples": labelled(samples[:30]),
        "test": labelled(samples[30:]),
        "subsets": [{"labels": n, "ids": [r["sample_id"] for r in samples[:n]]} for n in (1, 4, 30)],
    }
    path = tmp_path / "curve.json"
    path.write_text(json.dumps(curve))
    command = [sys.executable, "-m", "services.retrain_trigger.trainer", "--curve", str(path)]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert json.loads(printed) == {
        "baseline": [
            {"labels": 1, "accuracy": None},
            {"labels": 4, "accuracy": 1.0},
            {"labels": 30, "accuracy": 1.0},
        ],
        "full_supervised_accuracy": 1.0,
    }


def test_a_model_that_is_not_what_its_manifest_says_is_refused(
    tmp_path: Path, samples: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    import hashlib

    import onnx

    main([str(job(tmp_path, samples))])
    _, content, manifest = outcome(tmp_path)

    def refused(says: str, content: bytes = content, **changes: Any) -> None:
        fields = {**manifest.model_dump(), "sha256": hashlib.sha256(content).hexdigest(), **changes}
        with pytest.raises(ModelMismatch, match=says):
            OnnxModel.load(content, ModelManifest.model_validate(fields))

    other = image_extractor(20, 16, 1)[1].input
    refused("sha256 is", sha256="0" * 64)
    refused("shape", input=other)
    refused("inputs are", input=manifest.input.model_copy(update={"name": "pixels"}))
    refused("probabilities.*shape", labels=("a", "b"))
    refused("'feature'", outputs={"probabilities": "probabilities", "embedding": "feature"})
    refused("sum to 1", outputs={"probabilities": "embedding", "embedding": None}, labels=[str(i) for i in range(192)])
    refused("ONNX", content=b"no model at all")
    refused("cut off", content=content[:-100])
    outside = onnx.load_from_string(content)
    onnx.external_data_helper.set_external_data(outside.graph.initializer[0], location="weights.bin")
    refused("external data", content=outside.SerializeToString())
    model = OnnxModel.load(content, manifest, ["NoSuchExecutionProvider"])
    assert model.provider == "CPUExecutionProvider"
    assert sum("NoSuchExecutionProvider" in record.message for record in caplog.records) == 1
    with pytest.raises(ValueError, match="not finite"):
        model.predict(np.full((1, 1, 16, 16), np.nan, np.float32))
    with pytest.raises(ValueError, match="the input is"):
        model.predict(np.zeros((1, 1, 8, 8), np.float32))
    assert model.predict(np.zeros((150, 1, 16, 16), np.float32)).embeddings.shape == (150, 192)
