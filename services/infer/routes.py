"""REST of infer."""

import asyncio
import base64
from collections.abc import Sequence
from typing import Annotated, Any, Self, TypeGuard

import orjson
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, model_validator

from services.contracts.events import Content
from services.contracts.ids import sample_id, sha256
from services.contracts.problem import Fault, Problem, invalid, not_found
from services.infer.artefacts import Loaded, Unloadable
from services.infer.batching import Failure, Piece
from services.infer.memory import rss
from services.infer.predicting import Busy, Predictor
from services.infer.rescoring import asked
from services.infer.scoring import Scoring, claim_key, gone_key
from services.infer.serving import NONE, Serving, Shelf
from services.runtime import http
from services.runtime.access import Project, needs
from services.runtime.service import Service

MAX_INPUTS = 256
SampleId = Annotated[str, Field(min_length=1, max_length=64)]


class Body(BaseModel):
    """What a request may hold, and nothing besides."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=())


class Input(Body):
    """One thing to predict: base64 data, a row, a window's points, a text, or a stored sample; exactly one."""

    data: str | None = None
    media_type: str | None = None
    row: dict[str, Any] | None = None
    points: list[dict[str, Any]] | None = None
    text: str | None = None
    sample_id: SampleId | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(part is not None for part in (self.data, self.row, self.points, self.text, self.sample_id)) != 1:
            raise ValueError("give exactly one of data, row, points, text and sample_id")
        if (self.media_type is None) != (self.data is None):
            raise ValueError("data goes with its media_type")
        return self


class PredictRequest(Body):
    """Inputs, or stored samples by id."""

    inputs: list[Input] | None = Field(default=None, min_length=1, max_length=MAX_INPUTS)
    sample_id: SampleId | None = None
    sample_ids: list[SampleId] | None = Field(default=None, min_length=1, max_length=MAX_INPUTS)
    model_version: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(part is not None for part in (self.inputs, self.sample_id, self.sample_ids)) != 1:
            raise ValueError("give exactly one of inputs, sample_id and sample_ids")
        return self

    def all(self) -> list[Input]:
        """The inputs, whichever way they were given."""
        if self.inputs is not None:
            return self.inputs
        ids = self.sample_ids if self.sample_ids is not None else [self.sample_id or ""]
        return [Input(sample_id=sample) for sample in ids]


class Answering:
    """Turns requests into pieces and asks the right model."""

    def __init__(
        self, service: Service, serving: Serving, scoring: Scoring, predictor: Predictor, deadline: float
    ) -> None:
        self.service = service
        self.serving = serving
        self.shadows = scoring.shadows
        self._scoring = scoring
        self._predictor = predictor
        self._deadline = deadline

    async def predict(self, project: str, request: PredictRequest) -> dict[str, Any]:
        """Raises Problem 404, 409, 422, 503 or 504."""
        await self.service.projects.need(project)
        inputs = request.all()
        pieces = await self._pieces(project, inputs)
        models = await self._models(project, request.model_version, _ids(project, inputs, pieces))
        try:
            answers = await asyncio.wait_for(self._answers(models, pieces), self._deadline)
        except Busy as error:
            wait = {"retry-after": str(max(1, round(error.seconds)))}
            raise Problem(503, "busy", f"Too many are asking: {error}.", headers=wait) from error
        except TimeoutError as error:
            raise Problem(504, "deadline", f"No answer within {self._deadline:g} s.") from error
        silent = [row for row in answers if isinstance(row, Failure) and row.retryable]
        if silent:
            raise Problem(503, "not-answered", f"{silent[0].detail}.", headers={"retry-after": "2"})
        faults = [
            Fault(pointer=f"/inputs/{at}", code=row.error, message=row.detail)
            for at, row in enumerate(answers)
            if isinstance(row, Failure)
        ]
        if faults:
            what = "; ".join(f"{fault.pointer}: {fault.message}" for fault in faults[:5])
            raise Problem(422, "invalid", what, errors=faults)
        first = models[0]
        return {
            "model_version": first.version,
            "provider": first.provider,
            "labels": list(first.manifest.labels),
            "predictions": [
                _in_order(row, loaded, first) for loaded, row in zip(models, answers, strict=True) if _said(row)
            ],
        }

    async def _answers(self, models: Sequence[Loaded], pieces: Sequence[Piece]) -> list[dict[str, Any] | Failure]:
        """In order; each model is asked once about all that is its."""
        mine = {loaded: [at for at, one in enumerate(models) if one is loaded] for loaded in dict.fromkeys(models)}
        said = await asyncio.gather(
            *(self._predictor.predict(loaded, [pieces[at] for at in places]) for loaded, places in mine.items())
        )
        by_place: dict[int, dict[str, Any] | Failure] = {}
        for places, rows in zip(mine.values(), said, strict=True):
            by_place.update(zip(places, rows, strict=True))
        return [by_place[at] for at in range(len(pieces))]

    async def _models(self, project: str, version: str | None, samples: Sequence[str]) -> list[Loaded]:
        """The model for each sample: the one that is asked for, else that which answers for its id."""
        if version is not None:
            return [await self._model(project, version)] * len(samples)
        shelf = self.serving.shelf(project)
        found = [loaded for sample in samples if (loaded := shelf.answering(sample)) is not None]
        if not found:
            reason = "The project has no model yet: it needs labels first."
            if shelf.served_before:
                reason = "The project's model is being loaded."
            raise Problem(503, "not-ready", reason, headers={"retry-after": "1"})
        return found

    async def _model(self, project: str, version: str) -> Loaded:
        if loaded := self.serving.loaded(project, version):
            return loaded
        if version == NONE:
            raise Problem(503, "not-ready", "Without a model there are no predictions.", headers={"retry-after": "1"})
        if await self.serving.wanted.known(project, version) is None:
            raise not_found("model version", version)
        raise Problem(409, "not-loaded", f"{version} is not loaded: POST /v1/models/{version}:load.")

    async def _pieces(self, project: str, inputs: Sequence[Input]) -> list[Piece]:
        claims = await self._claims(project, [one.sample_id for one in inputs if one.sample_id is not None])
        stored = dict(zip(claims, await self._scoring.read(list(claims.values())), strict=True))
        return [
            stored[one.sample_id] if one.sample_id is not None else _piece(at, one) for at, one in enumerate(inputs)
        ]

    async def _claims(self, project: str, samples: Sequence[str]) -> dict[str, Content]:
        keys = [key(project, sample) for sample in samples for key in (claim_key, gone_key)]
        entries = await self.service.state.get(keys) if keys else {}
        claims: dict[str, Content] = {}
        for sample in samples:
            entry = entries.get(claim_key(project, sample))
            if gone_key(project, sample) in entries:
                raise not_found("sample", sample)
            content = Content.model_validate(entry.value["content"]) if entry else None
            content = content or await asked(self.service, project, sample)
            if content is None:
                raise not_found("sample", sample)
            claims[sample] = content
        return claims


def _ids(project: str, inputs: Sequence[Input], pieces: Sequence[Piece]) -> list[str]:
    """What decides which version answers: the sample's id, or that which the content would have as a sample."""
    return [
        one.sample_id or sample_id(project, sha256(piece.content)) for one, piece in zip(inputs, pieces, strict=True)
    ]


def _said(row: dict[str, Any] | Failure) -> TypeGuard[dict[str, Any]]:
    return not isinstance(row, Failure)


def _in_order(row: dict[str, Any], loaded: Loaded, first: Loaded) -> dict[str, Any]:
    """The answer with its version, and with its probabilities, if any, in the order of the labels that are listed."""
    mine, listed = loaded.manifest.labels, first.manifest.labels
    if mine != listed and "probabilities" in row:
        row = {**row, "probabilities": [row["probabilities"][mine.index(label)] for label in listed]}
    return {**row, "model_version": loaded.version}


def _piece(at: int, one: Input) -> Piece:
    if (rows := one.row if one.points is None else one.points) is not None:
        return Piece(orjson.dumps(rows), "application/json")
    if one.text is not None:
        return Piece(one.text.encode(), "text/plain")
    try:
        return Piece(base64.b64decode(one.data or "", validate=True), one.media_type or "")
    except ValueError as error:
        raise invalid(f"/inputs/{at}/data", "base64", f"data is not base64: {error}.") from error


def routes(answering: Answering) -> APIRouter:
    """Predictions and models."""
    router = APIRouter(route_class=http.StrictRoute)
    _models(router, answering)

    @router.post("/v1/predict", dependencies=[needs("viewer")])
    async def predict(project: Project, body: PredictRequest) -> dict[str, Any]:
        return await answering.predict(project, body)

    return router


def _models(router: APIRouter, answering: Answering) -> None:
    serving = answering.serving

    @router.get("/v1/loaded-models", dependencies=[needs("viewer")])
    async def loaded_models(project: Project) -> dict[str, Any]:
        await answering.service.projects.need(project)
        shelf = serving.shelf(project)
        models = [*shelf.serving, *shelf.held.values(), shelf.extractor]
        items = [_model(model, shelf) for model in models if model is not None]
        return {"items": items, "activation_epoch": max(shelf.epoch, 0), "rss_bytes": rss()}

    @router.get("/v1/shadow", dependencies=[needs("viewer")])
    async def shadow(project: Project, version: str | None = None) -> dict[str, Any]:
        await answering.service.projects.need(project)
        active = serving.shelf(project).shadow
        if version is None and active is None:
            raise Problem(404, "no-shadow", "No version is a shadow: POST /v1/models/{version}:shadow makes it one.")
        return await answering.shadows.read(project, version or (active.version if active else ""))

    @router.post("/v1/models/{version}:load", dependencies=[needs("operator")], status_code=202)
    async def load(project: Project, version: str) -> dict[str, Any]:
        await answering.service.projects.need(project)
        try:
            loaded = await serving.bring(project, version)
        except Unloadable as error:
            raise Problem(422, "unloadable", f"{version} cannot be loaded: {error}. Nothing else changes.") from error
        if loaded is None:
            raise not_found("model version", version)
        return _model(loaded, serving.shelf(project))

    @router.post("/v1/models/{version}:unload", dependencies=[needs("operator")], status_code=202)
    async def unload(project: Project, version: str) -> dict[str, Any]:
        await answering.service.projects.need(project)
        if any(one.version == version for one in serving.shelf(project).serving):
            raise Problem(409, "active", f"{version} is in service; activate another one first.")
        if await serving.wanted.known(project, version) is None:
            raise not_found("model version", version)
        serving.drop(project, version)
        return {"version": version, "loaded": False}


def _model(loaded: Loaded, shelf: Shelf) -> dict[str, Any]:
    active = loaded is shelf.active
    return {
        "version": loaded.version,
        "sha256": loaded.sha256,
        "provider": loaded.provider,
        "labels": list(loaded.manifest.labels),
        "active": active,
        "share": shelf.shares.get(loaded.version, 0.0),
        "activation_epoch": shelf.epoch if active else None,
        "loaded_at": loaded.loaded_at.isoformat(),
        "loaded": True,
    }
