"""Training as an AutoML job of Azure Machine Learning, on pictures or tables; the best of its trials is taken over.

As for the command job, asking is one PUT under the run's id. When the job has completed, this service finds the best
child run (by MLflow's API, which the workspace has), takes its ONNX file out of what the workspace keeps of runs, has
it judged on the pinned set like any other model, and leaves the record that a trainer would have left.
"""

import asyncio
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import structlog
from azure.ai.ml import Input, automl
from azure.ai.ml.automl import ClassificationPrimaryMetrics
from azure.ai.ml.constants import AssetTypes

from services.retrain_trigger.backends import BadOutcome, JobRefused, Work, files
from services.retrain_trigger.backends.automl import (
    BEST_CHILD,
    IMAGE_LABELS,
    IMAGE_MODEL,
    LABEL,
    TABLE_MODEL,
    adopted,
    is_image,
    table,
)
from services.retrain_trigger.backends.azureml import AzureMlBackend, AzureMlUnset
from services.retrain_trigger.backends.contents import ContentGone, Contents
from services.retrain_trigger.backends.exchange import record_uri
from services.retrain_trigger.mlflow import Mlflow
from services.retrain_trigger.settings import AzureMlSettings, RetrainTriggerSettings
from services.runtime.blobs import blob_store
from services.runtime.ports import Blobs

log = structlog.get_logger()

WORK = "halfsure_work"  # the tag that says where the work is
SCOPE = "https://management.azure.com/.default"
NEEDED = ("datastore", "artefacts")
TASKS = ("image-classification", "tabular-classification")


class AutoMlBackend(AzureMlBackend):
    """AutoML jobs in one workspace."""

    def __init__(
        self,
        blobs: Callable[[], Blobs],
        settings: RetrainTriggerSettings,
        own: AzureMlSettings | None = None,
        client: Any = None,
        tracking: Callable[[str], httpx2.AsyncClient] | None = None,
    ) -> None:
        super().__init__(blobs, settings, own, client)
        if missing := [name for name in NEEDED if not getattr(self._own, name)]:
            names = ", ".join(f"HALFSURE_RETRAIN_TRIGGER_AZUREML_{name.upper()}" for name in missing)
            raise AzureMlUnset(f"AutoML needs {names}")
        if self._own.metric.upper() not in ClassificationPrimaryMetrics.__members__:
            known = ", ".join(one.lower() for one in ClassificationPrimaryMetrics.__members__)
            raise AzureMlUnset(f"HALFSURE_RETRAIN_TRIGGER_AZUREML_METRIC: AutoML knows {known}")
        self._blobs = blobs
        self._artefacts: Any = blob_store(self._own.artefacts)
        self._tracking = tracking or self._signed_in
        self._http: httpx2.AsyncClient | None = None

    async def close(self) -> None:
        if self._http:
            await self._http.aclose()
        if close := getattr(self._artefacts, "close", None):
            await close()

    async def _described(self, work: Work, work_uri: str) -> tuple[Any, list[str]]:
        if work.task not in TASKS:
            raise JobRefused(f"AutoML is asked for {' and '.join(TASKS)} only, not for {work.task}")
        contents = {} if is_image(work) else await self._rows(work)
        told = table(work, self._own.datastore, contents)
        folder = f"runs/{work.run_id}/automl"
        for name, content in told.items():
            await self._blobs().put(f"{folder}/{name}", content)
        job = automl_job(work, f"azureml://datastores/{self._own.datastore}/paths/{folder}", self._own, self._settings)
        job.tags[WORK] = work_uri
        return job, automl_faults(job)

    async def _rows(self, work: Work) -> dict[str, bytes]:
        """The training samples' contents: an MLTable of rows has them in it."""
        found = await asyncio.gather(*(self._blobs().get(row.content.uri) for row in work.snapshot.train))
        return {row.sample_id: content for row, content in zip(work.snapshot.train, found, strict=True)}

    async def _hand_over(self, job: Any) -> None:
        """Leave the record of a completed job; why there is no model, if there is none. Raises Unavailable."""
        work, to = await self._exchange.take(job.tags[WORK]), record_uri(job.name)
        try:
            child, value = await self._best(job.name)
            with tempfile.TemporaryDirectory(prefix="halfsure-") as scratch:
                made, result, text = await self._judged(work, child, Path(scratch))
        except (BadOutcome, ContentGone) as error:
            await self._exchange.refuse(work, to, {"code": "automl", "message": str(error)}, str(error))
            return
        if error := result.get("error"):
            await self._exchange.refuse(work, to, error, text)
            return
        chosen = {"child_run": child, "chosen_by": {"name": self._own.metric, "value": value}}
        code = {"command": "Azure AutoML", "child_run": child}
        await self._exchange.hand_over(work, to, made, {**result, **chosen, "code": code}, text)
        log.info("taken over", run=job.name, child_run=child, metric=self._own.metric, value=value)

    async def _best(self, parent: str) -> tuple[str, float]:
        """The best child run and its metric, which is never taken for 0 where it is missing."""
        mlflow = await self._workspaces()
        run = await mlflow.look(parent)
        if not run or not (child := run["tags"].get(BEST_CHILD)):
            raise BadOutcome("AutoML names no best child run")
        metrics = (await mlflow.look(child) or {}).get("metrics", {})
        if self._own.metric not in metrics:
            raise BadOutcome(f"the best child run {child} has no metric {self._own.metric!r}, but {sorted(metrics)}")
        return child, float(metrics[self._own.metric])

    async def _judged(self, work: Work, child: str, folder: Path) -> tuple[tuple[bytes, bytes], dict[str, Any], str]:
        """The model and its manifest, what the judge says of it, and its words."""
        wanted = (IMAGE_MODEL, IMAGE_LABELS) if is_image(work) else (TABLE_MODEL,)
        left = [await self._left(child, name) for name in wanted]
        made = await asyncio.to_thread(adopted, work, left[0], left[1] if len(left) > 1 else None)
        job = await files.bring(work, Contents(self._blobs().get, folder / "contents"))
        path = await asyncio.to_thread(_written, job, folder / work.run_id, made)
        command = (sys.executable, "-m", "services.retrain_trigger.judge", str(path))
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
        said, _ = await process.communicate()
        result = files.result(path.parent)
        if result is None:
            raise BadOutcome(f"the model could not be judged: {files.last_lines(said.decode(errors='replace'))}")
        return files.model(path.parent), dict(result), said.decode(errors="replace")

    async def _left(self, child: str, name: str) -> bytes:
        """A file that a run has left with the workspace. Raises BadOutcome."""
        try:
            return await self._artefacts.get(f"blob:ExperimentRun/dcid.{child}/{name}")
        except KeyError as error:
            raise BadOutcome(f"the best child run {child} has left no {name}") from error

    async def _workspaces(self) -> Mlflow:
        """The workspace's MLflow."""
        if self._http is None:
            found = await self._call(self._client.workspaces.get, self._own.workspace)
            self._http = self._tracking(found.mlflow_tracking_uri.replace("azureml://", "https://", 1))
        return Mlflow(self._http)

    def _signed_in(self, url: str) -> httpx2.AsyncClient:
        async def sign(request: httpx2.Request) -> None:
            token = await asyncio.to_thread(self._credential.get_token, SCOPE)
            request.headers["authorization"] = f"Bearer {token.token}"

        return httpx2.AsyncClient(base_url=url, timeout=30, event_hooks={"request": [sign]})


def automl_job(work: Work, data: str, own: AzureMlSettings, settings: RetrainTriggerSettings) -> Any:
    """The AutoML job of a run, as azure-ai-ml has it; it keeps a part of the training samples to choose by."""
    minutes = max(1, int(settings.training_timeout // 60))
    told: dict[str, Any] = {
        "training_data": Input(type=AssetTypes.MLTABLE, path=data),
        "target_column_name": LABEL,
        "primary_metric": own.metric,
        "validation_data_size": 0.2,
        "compute": own.compute or None,
        "experiment_name": own.experiment,
        "name": work.run_id,
        "display_name": work.run_id,
        "tags": {"project": work.project, "evaluation_sha256": work.snapshot.evaluation_sha256},
    }
    if is_image(work):
        job = automl.image_classification(**told)
        job.set_limits(timeout_minutes=minutes, max_trials=own.trials, max_concurrent_trials=1)
        return job
    job = automl.classification(**told)
    job.set_limits(timeout_minutes=minutes, max_trials=own.trials, max_concurrent_trials=1)
    job.set_training(enable_onnx_compatible_models=True, enable_model_explainability=False)
    return job


def automl_faults(job: Any) -> list[str]:
    """Why Azure ML would not run this AutoML job. The SDK has no validation of such jobs, and passes one without a
    compute, and one without data."""
    faults = []
    if not job.compute:
        faults.append("compute: none is set; HALFSURE_RETRAIN_TRIGGER_AZUREML_COMPUTE names the cluster")
    if not str(job.training_data.path or "").startswith("azureml://datastores/"):
        faults.append("training_data: it has to lie in a datastore of the workspace")
    return faults


def _written(job: dict[str, Any], folder: Path, made: tuple[bytes, bytes]) -> Path:
    """The judge's job file, and beside it what it is to judge."""
    path = files.write_job(job, folder)
    (folder / "model.onnx").write_bytes(made[0])
    (folder / "manifest.json").write_bytes(made[1])
    return path
