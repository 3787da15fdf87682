"""Training by a command of the user's own: a script, or a container. A folder goes in, and a model comes out of it.

The folder holds job.json, and beside it all that it names, by paths relative to it. The command leaves model.onnx and
manifest.json there and ends with 0; judge.py then judges the model like any other. docs/training.md has the contract.
"""

import asyncio
import os
import shlex
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from services.contracts.ids import digest, sha256
from services.retrain_trigger.backends import Outcome, Work, files
from services.retrain_trigger.backends.local import LocalBackend
from services.retrain_trigger.settings import RetrainTriggerSettings

INPUTS = "inputs"


class NoCommand(SystemExit):
    """The setting that says which command trains is empty; the process ends with this sentence."""


class CommandBackend(LocalBackend):
    """Like the local backend, with another program in the place of the trainer."""

    name = "command"

    def __init__(
        self, fetch: Callable[[str], Awaitable[bytes]], folder: Path, settings: RetrainTriggerSettings
    ) -> None:
        super().__init__(fetch, folder, settings)
        self._command = shlex.split(settings.command)
        if not self._command:
            raise NoCommand("the backend `command` needs HALFSURE_RETRAIN_TRIGGER_COMMAND, such as `python train.py`")

    async def outcome(self, job_id: str) -> Outcome:
        made = await super().outcome(job_id)
        code = await asyncio.to_thread(_code, self._command)
        return Outcome(made.model, made.manifest, {**made.result, "code": code})

    async def _train(self, job: Path) -> int | str:
        code = await self._follow(await self._started(*self._command), job)
        if code != 0:
            return code
        return await self._follow(await self._child(), job, "judge")

    async def _prepare(self, work: Work, folder: Path) -> Path:
        """The job file, with everything that it names beside it. Raises ContentGone and Retry."""
        job = await files.bring(work, self._contents)
        return await asyncio.to_thread(_write, job, folder)


def _write(job: dict[str, Any], folder: Path) -> Path:
    inputs = folder / INPUTS
    inputs.mkdir(parents=True, exist_ok=True)
    return files.write_job({**_relative(job, inputs), "out_dir": "."}, folder)


def _relative(value: Any, inputs: Path) -> Any:
    """The same document, each `path` in it being one below the folder, where the file then is."""
    if isinstance(value, dict):
        return {
            name: _placed(Path(part), inputs) if name == "path" else _relative(part, inputs)
            for name, part in value.items()
        }
    if isinstance(value, list):
        return [_relative(part, inputs) for part in value]
    return value


def _placed(path: Path, inputs: Path) -> str:
    """A second name of the file where the file system has such, else a copy."""
    place = inputs / path.name
    if not place.exists():
        try:
            os.link(path, place)
        except OSError:
            shutil.copyfile(path, place)
    return f"{INPUTS}/{path.name}"


def _code(command: list[str]) -> dict[str, str]:
    """What made the model: the command, and a hash over those of its words that are files."""
    found = [sha256(Path(part).read_bytes()) for part in command if Path(part).is_file()]
    return {"command": shlex.join(command), "sha256": digest(*found)}
