"""Scoring samples as events: contents in, SampleScored or SampleScoringFailed out, one embedding block a batch."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import structlog

from services.contracts.envelope import Message
from services.contracts.events import (
    Content,
    Ref,
    SampleIngested,
    SampleScored,
    SampleScoringFailed,
)
from services.contracts.ids import sha256
from services.infer.answering import answer
from services.infer.artefacts import Loaded
from services.infer.batching import Failure, Piece, Predictions, predictions
from services.infer.http_model import HttpModel
from services.infer.serving import Serving
from services.infer.settings import InferSettings
from services.infer.shadows import Shadows, compared
from services.infer.summaries import Summaries
from services.runtime.service import Service
from services.runtime.unit import Unit

log = structlog.get_logger()

Verdict = SampleScored | SampleScoringFailed


@dataclass(frozen=True)
class Claimed:
    """A sample and where its content is."""

    sample_id: str
    content: Content
    told: Mapping[str, Any] = field(default_factory=dict)
    """What else was said of the sample, to go with its scores."""


class Scoring:
    """Reads contents, runs models off the event loop, and says what came of it."""

    def __init__(self, service: Service, serving: Serving, settings: InferSettings) -> None:
        self._service = service
        self._serving = serving
        self._size = settings.batch
        self.shadows = Shadows(service)
        self.summaries = Summaries(service)

    async def ingest(self, batch: Sequence[Message[SampleIngested]], unit: Unit) -> None:
        """Handler: one read, one model run for 64 samples, one blob, one transaction."""
        by_scorer: dict[Loaded, list[Message[SampleIngested]]] = {}
        for message in batch:
            event = message.event
            loaded = await self._serving.scorer(await self._service.projects.of_event(event), event.sample_id)
            by_scorer.setdefault(loaded, []).append(message)
        known = await unit.get_many(
            key
            for loaded, messages in by_scorer.items()
            for m in messages
            for key in sample_keys(m.event, loaded.version)
        )
        for loaded, messages in by_scorer.items():
            await self._score(loaded, messages, known, unit)

    async def _score(
        self, loaded: Loaded, messages: Sequence[Message[SampleIngested]], known: dict[str, Any], unit: Unit
    ) -> None:
        todo: list[Message[SampleIngested]] = []
        for message in messages:
            gone, done = sample_keys(message.event, loaded.version)
            if gone in known:
                continue
            # Unread, because it never changes and a read costs no less than a write.
            claim = claim_key(message.event.project, message.event.sample_id)
            unit.put(claim, {"content": message.event.content.model_dump()}, origin=message.origin)
            if done not in known:
                todo.append(message)
        claims = [Claimed(m.event.sample_id, m.event.content, _told(m.event)) for m in todo]
        pieces = await self.read([claim.content for claim in claims])
        verdicts = await self.verdicts(loaded, claims, pieces)
        for message, verdict in zip(todo, verdicts, strict=True):
            key = done_key(loaded.project, verdict.sample_id, loaded.version)
            unit.put(key, done_record(verdict), guard=True)
            unit.emit(verdict, message, guard=key)
        unit.then(lambda: self.summaries.note(loaded.project, loaded.version, verdicts))
        if claims and (shadow := self._serving.shelf(loaded.project).shadow) is not None:
            await self._beside(shadow, claims, pieces, verdicts, unit)

    async def _beside(
        self,
        shadow: Loaded,
        claims: Sequence[Claimed],
        pieces: Sequence[Piece],
        verdicts: Sequence[Verdict],
        unit: Unit,
    ) -> None:
        """Keep what the shadow says of the same samples; nobody is told, and its failure is nobody's."""
        try:
            said = await self.verdicts(shadow, claims, pieces)
        except Exception as error:
            log.error("the shadow cannot be asked", version=shadow.version, exc_info=error)
            return
        keys = [done_key(shadow.project, verdict.sample_id, shadow.version) for verdict in said]
        await unit.get_many(keys)
        for key, verdict in zip(keys, said, strict=True):
            unit.put(key, done_record(verdict), guard=True)
        tally = compared(verdicts, said)
        unit.then(lambda: self.shadows.note(shadow.project, shadow.version, tally))

    async def verdicts(
        self, loaded: Loaded, claims: Sequence[Claimed], pieces: Sequence[Piece] | None = None
    ) -> list[Verdict]:
        """One for each claim, in order; their embeddings are in one blob. The contents are read if not given."""
        if not claims:
            return []
        pieces = pieces if pieces is not None else await self.read([claim.content for claim in claims])
        began = time.perf_counter()
        result = await self.predict(loaded, pieces)
        latency = round(1000 * (time.perf_counter() - began) / len(claims), 3)
        uri = await self._block(loaded, result)
        rows = result.row_of
        return [
            _failed(loaded, claim, result.failures[at])
            if at in result.failures
            else _scored(loaded, claim, result, rows[at], uri, latency)
            for at, claim in enumerate(claims)
        ]

    async def predict(self, loaded: Loaded, pieces: Sequence[Piece]) -> Predictions:
        """Off the event loop, by this process or by the model's server."""
        if isinstance(loaded.model, HttpModel):
            return await loaded.model.predictions(pieces)
        return await asyncio.to_thread(predictions, loaded.model, loaded.manifest, pieces, self._size)

    async def read(self, claims: Sequence[Content]) -> list[Piece]:
        """The contents of claims; what is missing says so."""
        contents = await self._service.blobs.get_all([claim.uri for claim in claims])
        return [_piece(claim, content) for claim, content in zip(claims, contents, strict=True)]

    async def _block(self, loaded: Loaded, result: Predictions) -> str | None:
        if result.embeddings is None or not len(result.embeddings):
            return None
        raw = np.ascontiguousarray(result.embeddings, "<f4").tobytes()
        return await self._service.blobs.put(f"embeddings/{loaded.project}/{loaded.version}/{sha256(raw)}.f32", raw)


def _piece(claim: Content, content: bytes | None) -> Piece:
    if content is None:
        return Piece(missing=Failure("content-missing", f"there is nothing at {claim.uri}"))
    return Piece(content, claim.media_type, claim)


def claim_key(project: str, sample: str) -> str:
    return f"smp:{project}:{sample}"


def gone_key(project: str, sample: str) -> str:
    return f"gone:{project}:{sample}"


def done_key(project: str, sample: str, version: str) -> str:
    return f"prd:{project}:{sample}:{version}"


def sample_keys(event: SampleIngested, version: str) -> tuple[str, str]:
    """Keys of a sample's tombstone, and of what the version said of it."""
    project, sample = event.project, event.sample_id
    return gone_key(project, sample), done_key(project, sample, version)


def done_record(verdict: Verdict) -> dict[str, Any]:
    """What shows that a version has looked at a sample; enough to say it again."""
    state = "SCORED" if isinstance(verdict, SampleScored) else "UNSCORABLE"
    return {"state": state, "event": verdict.model_dump(mode="json", exclude_none=True)}


def open_still(record: dict[str, Any] | None) -> bool:
    """Whether a version may look at a sample: it has not yet, or its server gave no answer then."""
    return record is None or bool(record["event"].get("retryable"))


def said(record: dict[str, Any], rescore_id: str | None = None) -> Verdict:
    """The event of a done record, as the answer to another request."""
    kind = SampleScored if record["state"] == "SCORED" else SampleScoringFailed
    return kind.model_validate({**record["event"], "rescore_id": rescore_id})


def _failed(loaded: Loaded, claim: Claimed, failure: Failure) -> SampleScoringFailed:
    return SampleScoringFailed(
        project=loaded.project,
        sample_id=claim.sample_id,
        model_version=loaded.version,
        content=claim.content,
        error=failure.error,
        detail=failure.detail,
        retryable=failure.retryable,
    )


def _scored(
    loaded: Loaded, claim: Claimed, result: Predictions, row: int, uri: str | None, latency: float
) -> SampleScored:
    fields: dict[str, Any] = {}
    if result.confidence is not None:
        fields = answer(loaded.manifest, result, row)
    if result.ood is not None:
        fields["ood_score"] = fields["scores"]["ood"]
    if uri is not None and result.embeddings is not None:
        fields["embedding_ref"] = Ref(uri=uri, row=row, dim=result.embeddings.shape[1])
    return SampleScored(
        project=loaded.project,
        sample_id=claim.sample_id,
        model_version=loaded.version,
        task=loaded.manifest.task,
        content=claim.content,
        latency_ms=latency,
        provider=loaded.provider,
        **claim.told,
        **fields,
    )


def _told(event: SampleIngested) -> dict[str, Any]:
    return {name: getattr(event, name) for name in ("captured_at", "stream_id", "attributes", "tags")}
