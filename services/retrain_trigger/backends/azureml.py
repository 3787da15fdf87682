"""Training as a command job of Azure Machine Learning, in an environment that is registered beforehand.

The job's name is the run's id, so that asking twice makes one job. The environment is the image of retrain-trigger, so
no code goes up with the job, and asking for it is one PUT. What the job is told and what it leaves is in
backends/exchange.py; polling is the truth, an event of Event Grid only has it look sooner. Everything that the service
would find wrong minutes later is looked for before: the SDK's own validation, and two things that it lets pass.
"""

import asyncio
import contextlib
import re
from collections.abc import Callable
from typing import Any

import structlog

from services.retrain_trigger.backends import Job, JobRefused, Outcome, Work, files
from services.retrain_trigger.backends.exchange import Exchange, record_uri
from services.retrain_trigger.backends.news import News
from services.retrain_trigger.settings import AzureMlSettings, RetrainTriggerSettings
from services.runtime.errors import Unavailable
from services.runtime.ports import Blobs
from services.runtime.settings import RuntimeSettings

try:
    from azure.ai.ml import MLClient, command
    from azure.ai.ml.entities import ManagedIdentityConfiguration
    from azure.core.exceptions import AzureError, HttpResponseError, ResourceNotFoundError
    from azure.identity import DefaultAzureCredential
except ImportError as error:
    raise SystemExit(
        f"the backend `azureml` needs packages of its own ({error}): pip install 'halfsure[retrain-trigger,azureml]'"
    ) from error

log = structlog.get_logger()

COMMAND = "python -m services.retrain_trigger.backends.remote ${{inputs.work}} ${{inputs.record}}"
REGISTERED = re.compile(r"(azureml:)?[\w.-]+:[\w.-]+|/subscriptions/.+/environments/.+/versions/.+")
REFERENCE = re.compile(r"\$\{\{\s*(inputs|outputs)\.(\w+)\s*\}\}")
RUNNING = ("NotStarted", "Starting", "Provisioning", "Preparing", "Queued", "Running", "Finalizing", "Paused",
           "NotResponding", "CancelRequested", "Scheduled", "Unknown")  # fmt: skip
REFUSALS = (400, 401, 403, 404, 405, 409, 413, 422)


class AzureMlUnset(SystemExit):
    """A setting of Azure ML is empty; the process ends with this sentence."""


class AzureMlBackend:
    """Jobs in one workspace."""

    name = "azureml"
    limit = None  # the job has a time limit of its own

    def __init__(
        self,
        blobs: Callable[[], Blobs],
        settings: RetrainTriggerSettings,
        own: AzureMlSettings | None = None,
        client: Any = None,
    ) -> None:
        self._exchange = Exchange(blobs)
        self._settings = settings
        self._own = own = own or AzureMlSettings()
        missing = [name for name in ("subscription", "resource_group", "workspace") if not getattr(own, name)]
        if missing:
            names = ", ".join(f"HALFSURE_RETRAIN_TRIGGER_AZUREML_{name.upper()}" for name in missing)
            raise AzureMlUnset(f"the backend `azureml` needs {names}")
        place = (own.subscription, own.resource_group, own.workspace)
        self._credential = DefaultAzureCredential()
        self._client = client or MLClient(self._credential, *place, enable_telemetry=False)
        self._news = News()

    async def submit(self, work: Work) -> str:
        """One PUT for a run, however often it is asked for. Raises Unavailable and JobRefused."""
        if await self._job(work.run_id) is None:
            job, faults = await self._described(work, await self._exchange.give(work))
            if faults:
                raise JobRefused(f"the job would fail: {'; '.join(faults)}")
            await self._call(self._client.jobs.create_or_update, job)
            log.info("training job", job=work.run_id, workspace=self._own.workspace)
        return work.run_id

    async def poll(self, job_id: str, patience: float) -> Job:
        return await self._news.follow(job_id, lambda: self._stands(job_id), patience, self._own.poll_seconds)

    def told(self, run: str) -> None:
        """Event Grid has spoken of a job."""
        self._news.tell(run)

    async def outcome(self, job_id: str) -> Outcome:
        self._news.drop(job_id)
        return await self._exchange.outcome(record_uri(job_id))

    async def cancel(self, job_id: str) -> None:
        self._news.drop(job_id)
        job = await self._job(job_id)
        if job is not None and _status(job) in RUNNING:
            # Nobody waits for the end of the ending: the poller is told by the next look.
            with contextlib.suppress(JobRefused):  # it has ended meanwhile
                await self._call(self._client.jobs.begin_cancel, job_id)

    async def forget(self, project: str, sample_ids: set[str]) -> None:
        """Nothing to erase: contents lie in the scratch of a job's node, which is gone when it ends."""

    async def close(self) -> None: ...

    async def _described(self, work: Work, work_uri: str) -> tuple[Any, list[str]]:
        """The job of a run, and why Azure ML would not run it."""
        job = job_of(work, work_uri, self._own, self._settings)
        return job, offline_faults(job)

    async def _hand_over(self, job: Any) -> None:
        """A completed job has left its record itself."""

    async def _stands(self, job_id: str) -> Job:
        record = await self._exchange.record(record_uri(job_id))
        if record is not None:
            return files.ended(record.model_dump())
        job = await self._job(job_id)
        if job is None:
            return Job("lost")
        if _status(job) in RUNNING:
            return Job("running")
        if _status(job) == "Canceled":
            return Job("cancelled")
        if _status(job) == "Completed":
            await self._hand_over(job)
        # The record may have come between the two looks.
        record = await self._exchange.record(record_uri(job_id))
        if record is not None:
            return files.ended(record.model_dump())
        return Job("failed", f"the job {job_id} of Azure ML is {_status(job)}, and left no record: {job.studio_url}")

    async def _job(self, name: str) -> Any:
        try:
            return await asyncio.to_thread(self._client.jobs.get, name)
        except ResourceNotFoundError:
            return None
        except AzureError as error:
            raise Unavailable(f"Azure ML: {_said(error)}") from error

    async def _call(self, method: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return await asyncio.to_thread(method, *arguments)
        except HttpResponseError as error:
            kind = JobRefused if error.status_code in REFUSALS else Unavailable
            raise kind(f"Azure ML: {_said(error)}") from error
        except AzureError as error:
            raise Unavailable(f"Azure ML: {_said(error)}") from error


def job_of(work: Work, work_uri: str, own: AzureMlSettings, settings: RetrainTriggerSettings) -> Any:
    """The command job of a run, as azure-ai-ml has it."""
    job = command(
        name=work.run_id,
        display_name=work.run_id,
        experiment_name=own.experiment,
        description=f"halfsure: a model of project {work.project}",
        command=COMMAND,
        inputs={"work": work_uri, "record": record_uri(work.run_id)},
        environment=own.environment,
        environment_variables={"HALFSURE_BLOBS": own.blobs or RuntimeSettings().blobs},
        compute=own.compute or None,
        instance_count=own.instances,
        identity=ManagedIdentityConfiguration(client_id=own.client_id or None),
        tags={
            "project": work.project,
            "evaluation_sha256": work.snapshot.evaluation_sha256,
            "base_model": (work.champion.version if work.champion else None) or "none",
        },
    )
    job.set_limits(timeout=int(settings.training_timeout))
    return job


def offline_faults(job: Any) -> list[str]:
    """Why Azure ML would not run this job; what can be known without asking it.

    The SDK's validation passes a job without a compute, and a command that names an input or output that is not there.
    """
    result = job._validate()
    faults = [f"{where}: {what}" for where, what in result.error_messages.items()]
    for kind, name in REFERENCE.findall(job.command or ""):
        if name not in getattr(job, kind):
            faults.append(f"command: there is no {kind[:-1]} {name!r}")
    if not job.compute:
        faults.append("compute: none is set; HALFSURE_RETRAIN_TRIGGER_AZUREML_COMPUTE names the cluster")
    if not REGISTERED.fullmatch(str(job.environment or "")):
        faults.append("environment: azureml:NAME:VERSION of a registered one is needed, so that one request is enough")
    if job.code is not None:
        faults.append("code: it is in the environment's image, and not to be uploaded with every job")
    return faults


def _status(job: Any) -> str:
    return str(getattr(job.status, "value", job.status))


def _said(error: Exception) -> str:
    return str(error).replace("\n", " ")[:500]
