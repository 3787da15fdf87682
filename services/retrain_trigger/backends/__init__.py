"""Where training happens: the contract that every backend keeps."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from services.contracts.manifest import ModelManifest
from services.retrain_trigger.snapshots import Manifest

JobState = Literal["running", "succeeded", "failed", "cancelled", "lost"]


class BadOutcome(Exception):
    """What the backend has left is not what the run asked for."""


class JobRefused(Exception):
    """Whoever is to train will never take this job."""


@dataclass(frozen=True)
class ModelSource:
    """An ONNX model in the blob store; a champion has a version."""

    uri: str
    manifest: ModelManifest
    version: str | None = None


@dataclass(frozen=True)
class PoolSample:
    """A sample without a label."""

    sample_id: str
    uri: str
    sha256: str
    media_type: str


@dataclass(frozen=True)
class Work:
    """All that a run may know."""

    run_id: str
    project: str
    task: str
    snapshot: Manifest
    extractor: ModelSource
    champion: ModelSource | None
    unlabelled: tuple[PoolSample, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """How a job stands; `error` says why it failed. Lost: the backend has never heard of it, or forgot it."""

    state: JobState
    error: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What a job that succeeded has made: the model, its manifest, and the result as the trainer wrote it."""

    model: bytes
    manifest: ModelManifest
    result: Mapping[str, Any]


class Backend(Protocol):
    """Runs training jobs; the run id names the job, so that submitting twice is submitting once."""

    name: str

    @property
    def limit(self) -> float | None:
        """Seconds after which a job that has not ended is given up; None: the backend sees to it itself."""
        ...

    async def submit(self, work: Work) -> str:
        """Take the job, and return this backend's name for it.

        Raises Unavailable when it must be asked again, and JobRefused when that is of no use.
        """
        ...

    async def poll(self, job_id: str, patience: float) -> Job:
        """How the job stands; a backend that can waits up to `patience` seconds for its end. Raises Unavailable."""
        ...

    async def outcome(self, job_id: str) -> Outcome:
        """What a succeeded job has made. Raises BadOutcome."""
        ...

    async def cancel(self, job_id: str) -> None:
        """Stop a job; one that has ended, or is not known, is left alone."""
        ...

    async def forget(self, project: str, sample_ids: set[str]) -> None:
        """Erase copies of these samples' contents."""
        ...

    async def close(self) -> None:
        """Let go of what this process holds; jobs may be found again by the next one."""
        ...
