"""AutoML of Azure ML: the real SDK above a stand-in for the network, and what it leaves played in its place."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import onnx
import onnxruntime
import orjson
import pytest
import yaml
from azureml import TRACKING, Workspace
from conftest import Running, wait_until
from mlflow_server import StandIn
from onnx import TensorProto, helper, numpy_helper
from training import N, ask, ended, evaluation, label, make, running, runs, settled
from worlds import LABELS, png

from services.contracts.events import Content
from services.contracts.ids import sha256
from services.contracts.inputs import InputSpec, TabularColumn
from services.contracts.manifest import ModelManifest, OutputSpec
from services.retrain_trigger.backends import BadOutcome, JobRefused, ModelSource, Work
from services.retrain_trigger.backends.automl import adopted, table
from services.retrain_trigger.backends.azure_automl import AutoMlBackend, automl_faults, automl_job
from services.retrain_trigger.backends.azureml import AzureMlUnset
from services.retrain_trigger.settings import AzureMlSettings, RetrainTriggerSettings
from services.retrain_trigger.snapshots import Manifest, Row
from services.runtime.ports import Ports

pytestmark = [pytest.mark.usefixtures("brisk"), pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")]

SETTINGS = RetrainTriggerSettings(follow_seconds=0.5, training_timeout=1800)
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def own(folder: Path, **more: Any) -> AzureMlSettings:
    told: dict[str, Any] = {
        "subscription": "sub",
        "resource_group": "rg",
        "workspace": "ws",
        "compute": "gpu",
        "automl": True,
        "datastore": "halfsure",
        "artefacts": (folder / "artefacts").as_uri(),
        "poll_seconds": 0.05,
    }
    return AzureMlSettings(**{**told, **more})


def pictures(sharpness: float = 20.0) -> bytes:
    """What AutoML for images leaves: normalised pictures in, scores out, the classes as labels.json has them."""
    size = 3 * 8 * 8
    middle = float(((0.5 - MEAN) / STD).mean())
    weights = np.stack([np.full(size, sharpness / size), np.full(size, -sharpness / size)], axis=1).astype(np.float32)
    bias = np.array([-sharpness * middle, sharpness * middle], np.float32)
    nodes = [
        helper.make_node("Flatten", ["input1"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights", "bias"], ["output1"]),
    ]
    given = helper.make_tensor_value_info("input1", TensorProto.FLOAT, ["batch", 3, 8, 8])
    scores = helper.make_tensor_value_info("output1", TensorProto.FLOAT, ["batch", 2])
    constants = [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")]
    graph = helper.make_graph(nodes, "torch-jit-export", [given], [scores], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return model.SerializeToString()


class Studio:
    """The workspace, its MLflow, and what its runs leave; and somebody who plays AutoML."""

    def __init__(self, folder: Path, ports: Ports, **more: Any) -> None:
        self.workspace, self.mlflow = Workspace(), StandIn()
        self._folder = folder / "artefacts"
        self.urls: list[str] = []
        settings = own(folder, **more)
        client = self.workspace.client()
        self.backend = AutoMlBackend(lambda: ports.blobs, SETTINGS, settings, client, self._tracking)

    def _tracking(self, url: str) -> httpx2.AsyncClient:
        self.urls.append(url)
        assert url.startswith("https://")
        return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=self.mlflow.app()), base_url="http://mlflow")

    def leave(self, child: str, **files: bytes) -> None:
        for name, content in files.items():
            path = self._folder / "ExperimentRun" / f"dcid.{child}" / "train_artifacts" / name.replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def complete(self, name: str, child: str | None = "child_3", **metrics: float) -> None:
        tag = [{"key": "automl_best_child_run_id", "value": child}] if child else []
        rows = [{"key": key, "value": value} for key, value in metrics.items()]
        self.mlflow.runs[name] = {"info": {}, "data": {"tags": tag, "metrics": [], "params": []}}
        if child:
            self.mlflow.runs[child] = {"info": {}, "data": {"tags": [], "metrics": rows, "params": []}}
        self.workspace.set(name, "Completed")


async def labelled(one: Running) -> None:
    """Pictures whose brightness tells their label, in the store."""
    await make(one, training={"head": "logistic"})
    for events in (evaluation(), [label(number) for number in range(N)]):
        for event in events:
            number = next(n for n in range(100) if label(n).content.sha256 == event.content.sha256)
            shade = 10 + number % 80 if number % 2 == 0 else 170 + number % 80
            await one.blobs.put(event.content.uri.removeprefix("blob:"), png(shade, corner=number // 256))
        await one.deliver_batch(events)


async def submitted(one: Running, studio: Studio) -> tuple[str, dict[str, Any]]:
    await labelled(one)
    name = (await wait_until(lambda: list(studio.workspace.jobs)))[0]
    return name, studio.workspace.jobs[name]["properties"]


async def test_a_run_is_one_automl_job_and_its_best_child_is_taken_over(tmp_path: Path, ports: Ports) -> None:
    studio = Studio(tmp_path, ports)
    async with running(tmp_path, studio.backend, ports) as one:
        name, job = await submitted(one, studio)
        (run,) = await runs(one)
        assert (name, job["jobType"]) == (run["run_id"], "AutoML")
        details = job["taskDetails"]
        assert (details["taskType"], details["primaryMetric"]) == ("ImageClassification", "Accuracy")
        assert details["limitSettings"] == {"maxConcurrentTrials": 1, "maxTrials": 4, "timeout": "PT30M"}
        assert job["computeId"].endswith("/computes/gpu")
        folder = details["trainingData"]["uri"]
        assert folder == f"azureml://datastores/halfsure/paths/runs/{name}/automl"
        rows = [json.loads(line) for line in one.blobs.contents[f"blob:runs/{name}/automl/train.jsonl"].splitlines()]
        assert len(rows) == N, "none of the pinned set"
        assert {row["label"] for row in rows} == set(LABELS)
        assert all(row["image_url"].startswith("azureml://datastores/halfsure/paths/samples/") for row in rows)
        described = yaml.safe_load(one.blobs.contents[f"blob:runs/{name}/automl/MLTable"])
        assert described["paths"] == [{"file": "./train.jsonl"}]
        studio.workspace.set(name, "Running")
        await settled(one)
        studio.leave("child_3", model_onnx=pictures(), labels_json=b'["bright", "dark"]')
        studio.complete(name, accuracy=0.875, AUC_macro=0.9)
        (run,) = await ended(one)
        assert (run["state"], run["promoted"], run["backend"]) == ("SUCCEEDED", True, "azureml"), run
        assert run["metric"] == {
            "name": "accuracy",
            "value": 1.0,
            "child_run": "child_3",
            "chosen_by": {"name": "accuracy", "value": 0.875},
        }
        record = await ask(one, f"/v1/models/{run['model_version']}")
        assert record["lineage"]["code"]["child_run"] == "child_3"
        manifest = json.loads(await one.blobs.get(record["manifest"]["uri"]))
        assert manifest["labels"] == ["bright", "dark"]
        assert studio.urls == [f"https://{TRACKING}"]
        assert studio.workspace.count("PUT") == 1


async def test_asking_again_submits_nothing(tmp_path: Path, ports: Ports) -> None:
    studio = Studio(tmp_path, ports)
    async with running(tmp_path, studio.backend, ports) as one:
        name, job = await submitted(one, studio)
        work = await studio.backend._exchange.take(job["tags"]["halfsure_work"])
        for _ in range(3):
            assert await studio.backend.submit(work) == name
        assert studio.workspace.count("PUT") == 1


async def test_a_task_that_automl_is_not_asked_for_is_refused(tmp_path: Path, ports: Ports) -> None:
    studio = Studio(tmp_path, ports)
    with pytest.raises(JobRefused, match="not for image-detection"):
        await studio.backend.submit(replace(tabular(), task="image-detection"))
    assert studio.workspace.count("PUT") == 0


@pytest.mark.parametrize(
    ("play", "says"),
    [
        (lambda studio, name: studio.complete(name, AUC_macro=0.9), "has no metric 'accuracy', but ['AUC_macro']"),
        (lambda studio, name: studio.complete(name, None), "names no best child run"),
        (lambda studio, name: studio.complete(name, accuracy=0.9), "has left no train_artifacts/model.onnx"),
    ],
)
async def test_what_is_missing_fails_the_run_and_is_never_taken_for_0(
    tmp_path: Path, ports: Ports, play: Callable[[Studio, str], None], says: str
) -> None:
    studio = Studio(tmp_path, ports)
    async with running(tmp_path, studio.backend, ports) as one:
        name, _ = await submitted(one, studio)
        play(studio, name)
        (run,) = await ended(one)
        assert (run["state"], run["metric"], run["model_version"]) == ("FAILED", None, None)
        assert says in run["error"]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"model_onnx": b"nonsense", "labels_json": b'["bright", "dark"]'}, "no ONNX file"),
        ({"model_onnx": pictures(), "labels_json": b'["bright", "grey"]'}, "AutoML's classes are bright, grey"),
    ],
)
async def test_what_is_no_model_of_the_project_fails_the_run(
    tmp_path: Path, ports: Ports, files: dict[str, bytes], says: str
) -> None:
    studio = Studio(tmp_path, ports)
    async with running(tmp_path, studio.backend, ports) as one:
        name, _ = await submitted(one, studio)
        studio.leave("child_3", **files)
        studio.complete(name, accuracy=0.9)
        (run,) = await ended(one)
        assert run["state"] == "FAILED"
        assert says in run["error"]


COLUMNS = (
    TabularColumn(name="size", mean=5.0, scale=2.0),
    TabularColumn(name="colour", kind="category", categories=("red", "blue")),
)


def tabular() -> Work:
    spec = InputSpec.tabular(COLUMNS)
    about = ModelManifest(
        task="tabular-classification", input=spec, outputs=OutputSpec(embedding="embedding"), opset=17, sha256="0" * 64
    )
    content = Content(uri="blob:samples/default/1", sha256="0" * 64, bytes=1, media_type="application/json")
    row = Row(sample_id="smp_1", revision=1, label="dark", weight=1.0, content=content)
    snapshot = Manifest(
        project="default", labels=("dark", "bright"), train=(row,), evaluation=(), evaluation_sha256="0"
    )
    return Work("run_1", "default", "tabular-classification", snapshot, ModelSource("blob:x", about), None)


def columns() -> bytes:
    """What AutoML for tables leaves: an input a column, the label and the probabilities of the sorted classes."""
    given = [
        helper.make_tensor_value_info("size", TensorProto.DOUBLE, ["N", 1]),
        helper.make_tensor_value_info("colour", TensorProto.STRING, ["N", 1]),
    ]
    lookup = {"keys_strings": ["red", "blue"], "values_floats": [4.0, -4.0], "domain": "ai.onnx.ml"}
    nodes = [
        helper.make_node("Cast", ["size"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("LabelEncoder", ["colour"], ["word"], **lookup),
        helper.make_node("Add", ["number", "word"], ["sum"]),
        helper.make_node("Sub", ["sum", "middle"], ["high"]),
        helper.make_node("Neg", ["high"], ["low"]),
        helper.make_node("Concat", ["low", "high"], ["scores"], axis=1),
        helper.make_node("Softmax", ["scores"], ["output_probability"], axis=1),
        helper.make_node("ArgMax", ["output_probability"], ["output_label"], axis=1, keepdims=0),
    ]
    gives = [
        helper.make_tensor_value_info("output_label", TensorProto.INT64, ["N"]),
        helper.make_tensor_value_info("output_probability", TensorProto.FLOAT, ["N", 2]),
    ]
    constants = [numpy_helper.from_array(np.array([5.0], np.float32), "middle")]
    graph = helper.make_graph(nodes, "automl", given, gives, constants)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 2)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def test_a_table_goes_out_as_rows_and_its_model_comes_back_with_one_input() -> None:
    work = tabular()
    told = table(work, "halfsure", {"smp_1": b'{"size": 7.5, "colour": "red"}'})
    assert orjson.loads(told["train.jsonl"]) == {"size": 7.5, "colour": "red", "label": "dark"}
    assert b"stream_info" not in told["MLTable"]
    made, described = adopted(work, columns(), None)
    manifest = ModelManifest.model_validate_json(described)
    assert (manifest.labels, manifest.sha256) == (("bright", "dark"), sha256(made))
    onnx.checker.check_model(onnx.load_model_from_string(made))
    session = onnxruntime.InferenceSession(made)
    # As halfsure makes rows: the number standardised, the category one-hot.
    rows = np.array([[(9 - 5) / 2, 1, 0], [(9 - 5) / 2, 0, 1], [(1 - 5) / 2, 0, 1]], np.float32)
    (answers,) = session.run(["probabilities"], {"input": rows})
    high = np.array([9 + 4 - 5, 9 - 4 - 5, 1 - 4 - 5], np.float64)
    assert np.asarray(answers)[:, 1] == pytest.approx(1 / (1 + np.exp(-2 * high)), abs=1e-6)


def test_a_column_that_the_project_does_not_have_is_named() -> None:
    other = replace(tabular(), extractor=_with(COLUMNS[:1]))
    with pytest.raises(BadOutcome, match="'colour'"):
        adopted(other, columns(), None)


def _with(chosen: tuple[TabularColumn, ...]) -> ModelSource:
    about = tabular().extractor.manifest.model_copy(update={"input": InputSpec.tabular(chosen)})
    return ModelSource("blob:x", about)


def test_what_azure_ml_would_find_wrong_is_found_before(tmp_path: Path) -> None:
    data = "azureml://datastores/halfsure/paths/runs/run_1/automl"
    work = tabular()
    good = automl_job(work, data, own(tmp_path), SETTINGS)
    assert automl_faults(good) == []
    document = good._to_rest_object().as_dict()["properties"]
    assert document["taskDetails"]["taskType"] == "Classification"
    assert document["taskDetails"]["trainingSettings"]["enableOnnxCompatibleModels"] is True
    assert "compute: none is set" in automl_faults(automl_job(work, data, own(tmp_path, compute=""), SETTINGS))[0]
    assert "datastore" in automl_faults(automl_job(work, "./here", own(tmp_path), SETTINGS))[0]
    with pytest.raises(AzureMlUnset, match=r"_METRIC: AutoML knows .*accuracy"):
        AutoMlBackend(dict, SETTINGS, own(tmp_path, metric="beauty"))  # type: ignore[arg-type]
    with pytest.raises(AzureMlUnset, match="AZUREML_ARTEFACTS"):
        AutoMlBackend(dict, SETTINGS, own(tmp_path, artefacts=""))  # type: ignore[arg-type]
