"""What a training somewhere else is told, and what it leaves: documents in the blob store, and nothing besides.

The contract of every place that is not this process: a Kubernetes Job, a job of Azure ML, a container of your own.
It is started with two arguments, and HALFSURE_BLOBS names the blob store:

    WORK_URI    a JSON document, `Work`: the run's id, its snapshot (samples, labels, weights, each content by uri and
                sha256), the extractor, the champion, the unlabelled pool, the parameters
    RECORD_URI  where the outcome goes: a JSON document, `Record`

It puts the model, its manifest, the trainer's result and the log into the store, under names with their sha256 in
them, and then, last, the record that names them. Where the record is, the run is over; whoever finds it there does
nothing. Doing the work twice, or two at once, is therefore harmless: the same work makes the same model. A run that
can never make a model leaves a record with `error`. Exit code 0 says that the record is there, any other that the work
may be tried again.
"""

from collections.abc import Callable, Mapping
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from services.contracts.events import Content
from services.contracts.ids import sha256
from services.retrain_trigger.backends import BadOutcome, Outcome, Work
from services.retrain_trigger.backends.files import verified
from services.runtime.ports import Blobs

WORK: TypeAdapter[Work] = TypeAdapter(Work)


class Refused(BaseModel):
    """Why a run can never make a model."""

    model_config = ConfigDict(frozen=True)

    code: str
    message: str


class Record(BaseModel):
    """How a run ended: with `error`, or with all of `model`, `manifest` and `result`. `log` is what was said."""

    model_config = ConfigDict(frozen=True)

    format_version: int = 1
    run_id: str
    error: Refused | None = None
    model: Content | None = None
    manifest: Content | None = None
    result: Content | None = None
    log: Content | None = None


def record_uri(run_id: str) -> str:
    return f"blob:runs/{run_id}/record.json"


class Exchange:
    """Both sides of the contract, over one blob store."""

    def __init__(self, blobs: Callable[[], Blobs]) -> None:
        self._blobs = blobs

    # Whoever gives the work.

    async def give(self, work: Work) -> str:
        """Put the work into the store; its uri. Raises Unavailable."""
        content = WORK.dump_json(work)
        return await self._blobs().put(f"runs/{work.run_id}/work-{sha256(content)}.json", content)

    async def record(self, uri: str) -> Record | None:
        """How the run ended; None: it has not. Raises Unavailable."""
        try:
            return Record.model_validate_json(await self._blobs().get(uri))
        except KeyError:
            return None

    async def outcome(self, uri: str) -> Outcome:
        """What a record's run has made, when it is what was reported. Raises BadOutcome and Unavailable."""
        try:
            record = await self.record(uri)
            if record is None or not (record.model and record.manifest and record.result):
                raise BadOutcome("the run has left no model")
            parts = (record.model, record.manifest, record.result)
            model, described, result = [await self._read(part) for part in parts]
            return verified(model, described, orjson.loads(result))
        except (ValidationError, orjson.JSONDecodeError) as error:
            raise BadOutcome(f"what the run has left cannot be read: {error}") from error

    # Whoever does it.

    async def take(self, work_uri: str) -> Work:
        """The work to be done. Raises KeyError, ValidationError and Unavailable."""
        return WORK.validate_json(await self._blobs().get(work_uri))

    async def refuse(self, work: Work, to: str, error: Mapping[str, str], log: str) -> None:
        record = Record(run_id=work.run_id, error=Refused(**error), log=await self._log(work, log))
        await self._close(record, to)

    async def hand_over(
        self, work: Work, to: str, made: tuple[bytes, bytes], result: Mapping[str, Any], log: str
    ) -> None:
        """`made`: the model, under the registry's name for it, so that it is stored once; and its manifest."""
        models, files = f"models/{work.project}", f"runs/{work.run_id}"
        record = Record(
            run_id=work.run_id,
            model=await self._put(models, made[0], "onnx", "application/octet-stream"),
            manifest=await self._put(files, made[1], "json", "application/json"),
            result=await self._put(files, orjson.dumps(result), "json", "application/json"),
            log=await self._log(work, log),
        )
        await self._close(record, to)

    async def _close(self, record: Record, to: str) -> None:
        await self._blobs().put(to.removeprefix("blob:"), record.model_dump_json(exclude_none=True).encode())

    async def _log(self, work: Work, text: str) -> Content:
        return await self._put(f"runs/{work.run_id}", text.encode(), "log", "text/plain")

    async def _put(self, folder: str, content: bytes, ending: str, media_type: str) -> Content:
        sha = sha256(content)
        uri = await self._blobs().put(f"{folder}/{sha}.{ending}", content)
        return Content(uri=uri, sha256=sha, bytes=len(content), media_type=media_type)

    async def _read(self, part: Content) -> bytes:
        try:
            content = await self._blobs().get(part.uri)
        except KeyError as error:
            raise BadOutcome(f"{part.uri} is gone from the blob store") from error
        if sha256(content) != part.sha256:
            raise BadOutcome(f"{part.uri} is not what its hash says")
        return content
