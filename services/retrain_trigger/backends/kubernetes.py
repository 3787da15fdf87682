"""Training as a Kubernetes Job: a pod of its own for each run, wherever in the cluster there is room.

The pod is the overlay's PodTemplate (image, volumes, identity, resources); backends/exchange.py is what it is told and
what it leaves. The Job has the run's name and is only ever created, so that however often a run is submitted, and by
however many replicas, there is one. How it ended is read from the blob store, not from the pod: once its record is
there a Job may be removed, by its time to live or by anybody; before that, a removed Job is created again.
"""

import copy
from collections.abc import Callable
from typing import Any

import structlog

from services.retrain_trigger.backends import Job, JobRefused, Outcome, Work, files
from services.retrain_trigger.backends.cluster import Cluster, Object
from services.retrain_trigger.backends.exchange import Exchange, record_uri
from services.retrain_trigger.settings import RetrainTriggerSettings
from services.runtime.ports import Blobs

log = structlog.get_logger()


class KubernetesBackend:
    """Jobs in the namespace of this pod."""

    name = "kubernetes"
    limit = None

    def __init__(
        self, blobs: Callable[[], Blobs], settings: RetrainTriggerSettings, cluster: Cluster | None = None
    ) -> None:
        self._exchange = Exchange(blobs)
        self._settings = settings
        self._cluster = cluster or Cluster()

    async def submit(self, work: Work) -> str:
        """Raises Unavailable, and JobRefused when the cluster will not have such a Job."""
        template = await self._cluster.template(self._settings.job_template)
        if template is None:
            raise JobRefused(f"there is no PodTemplate {self._settings.job_template} in this namespace")
        uri = await self._exchange.give(work)
        created = await self._cluster.create(job_of(work, uri, template["template"], self._settings))
        log.info("training job", job=job_name(work.run_id), created=created)
        return work.run_id

    async def poll(self, job_id: str, patience: float) -> Job:
        name = job_name(job_id)
        job = await self._cluster.wait(name, _is_over, patience)
        if job is not None and not _is_over(job):
            return Job("running")
        record = await self._exchange.record(record_uri(job_id))
        if record is not None:
            return files.ended(record.model_dump())
        if job is None:
            return Job("lost")
        said = files.last_lines(await self._cluster.said(name, files.LOG_LINES))
        return Job("failed", f"the Job {name} ended without a record ({_why(job)}): {said}")

    async def outcome(self, job_id: str) -> Outcome:
        return await self._exchange.outcome(record_uri(job_id))

    async def cancel(self, job_id: str) -> None:
        await self._cluster.delete(job_name(job_id))

    async def forget(self, project: str, sample_ids: set[str]) -> None:
        """Nothing to erase: contents lie in the scratch of a pod, which removes them itself when it ends."""

    async def close(self) -> None:
        await self._cluster.close()


def job_name(run_id: str) -> str:
    """A run's id as Kubernetes writes names."""
    return run_id.replace("_", "-")


def job_of(work: Work, uri: str, pod: Object, settings: RetrainTriggerSettings) -> Object:
    """The Job of a run, from the template of its pod."""
    pod = copy.deepcopy(pod)
    name = job_name(work.run_id)
    metadata = pod.setdefault("metadata", {})
    metadata.pop("creationTimestamp", None)
    labels = metadata["labels"] = {**metadata.get("labels", {}), "halfsure.io/run": name}
    pod["spec"]["restartPolicy"] = "Never"
    pod["spec"]["containers"][0]["args"] = [uri, record_uri(work.run_id)]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels, "annotations": {"halfsure.io/project": work.project}},
        "spec": {
            # A pod that is deleted or whose node is lost counts as one that failed.
            "backoffLimit": settings.attempts,
            "activeDeadlineSeconds": int(settings.training_timeout),
            "ttlSecondsAfterFinished": settings.job_kept_seconds,
            # A new pod at once, while a lost node's still seems to end: two at work do no harm.
            "podReplacementPolicy": "TerminatingOrFailed",
            "template": pod,
        },
    }


def _conditions(job: Object) -> dict[str, Any]:
    """Those that hold, by type."""
    found = job.get("status", {}).get("conditions") or ()
    return {one["type"]: one for one in found if one["status"] == "True"}


def _is_over(job: Object) -> bool:
    return bool({"Complete", "Failed"} & _conditions(job).keys())


def _why(job: Object) -> str:
    condition = _conditions(job).get("Failed", {})
    return f"{condition.get('reason', 'Complete')}: {condition.get('message', '')}".rstrip(": ")
