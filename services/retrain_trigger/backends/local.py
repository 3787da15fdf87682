"""Training on this machine: one subprocess at a time, its files in a folder of its own."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from services.retrain_trigger.backends import BadOutcome, Job, Outcome, Work, files
from services.retrain_trigger.backends.contents import ContentGone, Contents
from services.retrain_trigger.settings import RetrainTriggerSettings
from services.runtime.errors import Retry, Unavailable

log = structlog.get_logger()

EXIT_BAD_JOB = 2


@dataclass
class _Running:
    task: asyncio.Task[Job]
    cancelled: bool = False


class LocalBackend:
    """The trainer as a process that dies with this one; a result on disk outlives both."""

    name = "local"
    limit = None

    def __init__(
        self, fetch: Callable[[str], Awaitable[bytes]], folder: Path, settings: RetrainTriggerSettings
    ) -> None:
        self._folder = folder.resolve() / "runs"
        self._contents = Contents(fetch, folder.resolve() / "contents")
        self._settings = settings
        self._jobs: dict[str, _Running] = {}
        self._turn = asyncio.Semaphore(1)
        self._spare: asyncio.subprocess.Process | None = None

    async def submit(self, work: Work) -> str:
        job_id = work.run_id
        known = self._jobs.get(job_id)
        if known is None and self._result(job_id) is None:
            # `_Running` is there before its task runs, so that the task finds it.
            running = self._jobs[job_id] = _Running(asyncio.create_task(self._run(work)))
            running.task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return job_id

    async def poll(self, job_id: str, patience: float) -> Job:
        if running := self._jobs.get(job_id):
            done, _ = await asyncio.wait([running.task], timeout=patience)
            if not done:
                return Job("running")
            if running.cancelled:
                return Job("cancelled")
            try:
                return running.task.result()
            except Retry:
                del self._jobs[job_id]
                raise
        result = self._result(job_id)
        return files.ended(result) if result is not None else Job("lost")

    async def outcome(self, job_id: str) -> Outcome:
        folder = self._folder / job_id
        try:
            model, described = await asyncio.to_thread(files.model, folder)
        except OSError as error:
            raise BadOutcome(f"the run's files cannot be read: {error}") from error
        return files.verified(model, described, self._result(job_id) or {})

    async def cancel(self, job_id: str) -> None:
        if running := self._jobs.get(job_id):
            if running.task.done():
                return
            running.cancelled = True
            running.task.cancel()
            await asyncio.gather(running.task, return_exceptions=True)

    async def forget(self, project: str, sample_ids: set[str]) -> None:
        await self._contents.forget(project, sample_ids)

    async def close(self) -> None:
        jobs, self._jobs = self._jobs, {}
        for running in jobs.values():
            running.task.cancel()
        await asyncio.gather(*(running.task for running in jobs.values()), return_exceptions=True)
        if self._spare:
            await _end(self._spare)

    async def _run(self, work: Work) -> Job:
        """All of a job, attempt after attempt. Raises Retry when the blob store is away, or the disk is full."""
        async with self._turn:
            folder = self._folder / work.run_id
            try:
                job = await self._prepare(work, folder)
            except ContentGone as error:
                return Job("failed", str(error))
            except OSError as error:
                raise Unavailable(f"the training's files: {error}") from error
            code: int | str = "none"
            for attempt in range(1, self._settings.attempts + 1):
                code = await self._train(job)
                if (result := self._result(work.run_id)) is not None:
                    self._spare = await self._child() if self._settings.keep_warm else None
                    await asyncio.to_thread(self._prune)
                    return files.ended(result)
                log.warning("training ended without a result", run=work.run_id, exit_code=code, attempt=attempt)
                if code == EXIT_BAD_JOB or attempt == self._settings.attempts:
                    break
                await asyncio.sleep(self._settings.attempt_pause * attempt)
            return Job("failed", f"the trainer ended with exit code {code}: {files.last_lines(files.said(folder))}")

    async def _train(self, job: Path) -> int | str:
        """Exit code of one attempt, or `timeout`."""
        return await self._follow(await self._child(), job)

    async def _follow(self, process: asyncio.subprocess.Process, job: Path, task: str = "train") -> int | str:
        """Exit code of a child that is told its job, or `timeout`; it is gone afterwards, whatever happens."""
        try:
            await _tell(process, f"{task} {job}")
            async with asyncio.timeout(self._settings.training_timeout):
                return await process.wait()
        except TimeoutError:
            return "timeout"
        finally:
            await _end(process)

    async def _child(self) -> asyncio.subprocess.Process:
        """A child that waits for its job: the one that was warmed up, or a new one."""
        spare, self._spare = self._spare, None
        if spare is not None and spare.returncode is None:
            return spare
        return await self._started()

    async def _started(self, *command: str) -> asyncio.subprocess.Process:
        """A child for one job: the trainer, or another command."""
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.retrain_trigger.backends.child"),
            *(str(os.getpid()), str(self._settings.niceness), *command),
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,
        )

    async def _prepare(self, work: Work, folder: Path) -> Path:
        """The job file, with everything that it names on this machine. Raises ContentGone and Retry."""
        started = time.perf_counter()
        path = await asyncio.to_thread(files.write_job, await files.bring(work, self._contents), folder)
        seconds = time.perf_counter() - started
        log.info(
            "job written", run=work.run_id, samples=len(work.snapshot.rows), pool=len(work.unlabelled), seconds=seconds
        )
        return path

    def _result(self, job_id: str) -> Mapping[str, Any] | None:
        """What the trainer wrote last; while it is not there, the job is not over."""
        return files.result(self._folder / job_id)

    def _prune(self) -> None:
        """Keep the folders of the latest runs only; models and metrics live in the registry."""
        folders = sorted(self._folder.iterdir(), key=lambda folder: folder.stat().st_mtime)
        for folder in folders[: -self._settings.runs_kept]:
            if folder.name not in self._jobs or self._jobs[folder.name].task.done():
                self._jobs.pop(folder.name, None)
                shutil.rmtree(folder, ignore_errors=True)


async def _tell(process: asyncio.subprocess.Process, what: str) -> None:
    """Hand the child its task; one that has died shows it by its exit code."""
    if process.stdin is not None:
        with contextlib.suppress(ConnectionError):
            process.stdin.write(f"{what}\n".encode())
            await process.stdin.drain()
            process.stdin.close()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Make sure that a child and whatever it started are gone."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await asyncio.shield(process.wait())
