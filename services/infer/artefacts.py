"""Model artefacts: fetched once, kept on disk by their hash, checked each time, loaded and warmed in a thread."""

import asyncio
import uuid
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import httpx2
import structlog
from pydantic import ValidationError

from services.contracts import endpoints
from services.contracts.events import Content, SignedContent
from services.contracts.ids import sha256
from services.contracts.manifest import ModelManifest
from services.contracts.problem import faults
from services.infer.http_model import HttpModel
from services.infer.model import OnnxModel
from services.infer.settings import InferSettings
from services.runtime.service import Service
from services.runtime.signing import NotTrusted, Verifier

log = structlog.get_logger()


class Unloadable(Exception):
    """This model can never be loaded as it is."""


class WrongModel(SystemExit):
    """The model in this image is not the one that its manifest describes; the process ends with this sentence."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model version in memory, ready to answer. Equal only to itself, so that a swap is one reference."""

    project: str
    version: str
    sha256: str
    manifest: ModelManifest
    model: OnnxModel | HttpModel
    loaded_at: datetime

    @property
    def provider(self) -> str:
        """The execution provider that runs it, or the server."""
        return self.model.provider


class Artefacts:
    """Loads models from the blob store by way of a folder on this machine."""

    def __init__(self, service: Service, settings: InferSettings) -> None:
        self._service = service
        self._settings = settings
        self._trust = Verifier(settings.model_keys)
        self._folder = service.settings.state_dir / "models"
        self._client = httpx2.AsyncClient()
        service.on_stop(self._client.aclose)
        if settings.baked is not None:
            _unpack(settings.baked, self._folder)

    async def load(self, project: str, version: str, artefact: Content, manifest: SignedContent) -> Loaded:
        """Raises Unloadable for what will never load, and whatever the blob store raises when it is down."""
        try:
            self._trust.check(project, manifest)
        except NotTrusted as error:
            raise Unloadable(f"{version} is not loaded: {error}") from error
        described = _manifest(await self._fetch(manifest, "json"), artefact)
        content = await self._fetch(artefact, described.backend)
        try:
            model = await self._opened(content, described)
        except ValueError as error:
            raise Unloadable(str(error)) from error
        now = self._service.clock.now()
        return Loaded(project, version, artefact.sha256, described, model, now)

    async def _opened(self, content: bytes, manifest: ModelManifest) -> OnnxModel | HttpModel:
        """Raises ValueError."""
        if manifest.backend == "onnx":
            providers, threads = self._settings.providers, self._settings.threads
            return await asyncio.to_thread(OnnxModel.load, content, manifest, providers, threads)
        endpoint = endpoints.read(content, manifest)
        if (server := self._settings.servers.get(endpoint.server)) is None:
            known = ", ".join(sorted(self._settings.servers)) or "none"
            raise Unloadable(f"HALFSURE_INFER_SERVERS has no server {endpoint.server!r} here; it has {known}")
        return HttpModel(self._client, server, endpoint, manifest)

    async def _fetch(self, content: Content, suffix: str) -> bytes:
        """The bytes, from the folder if they are there and sound. Raises Unloadable."""
        path = self._folder / f"{content.sha256}.{suffix}"
        kept = await asyncio.to_thread(_sound, path, content.sha256)
        if kept is not None:
            return kept
        try:
            fetched = await self._service.blobs.get(content.uri)
        except (KeyError, ValueError) as error:
            raise Unloadable(f"there is nothing at {content.uri}") from error
        if sha256(fetched) != content.sha256:
            raise Unloadable(f"what is at {content.uri} has the sha256 {sha256(fetched)}, not {content.sha256}")
        await asyncio.to_thread(_keep, path, fetched)
        return fetched


def _unpack(baked: Path, folder: Path) -> None:
    """Put the model that the image carries, if any, where fetched ones are kept. Raises WrongModel."""
    parts = [path for path in (baked / "model.onnx", baked / "manifest.json") if path.exists()]
    if not parts:
        return
    if len(parts) == 1:
        raise WrongModel(f"infer: {baked} holds {parts[0].name} alone; a model goes with its manifest")
    content, raw = (path.read_bytes() for path in parts)
    try:
        described = ModelManifest.model_validate_json(raw)
    except ValidationError as error:
        raise WrongModel(f"infer: {parts[1]} is no model manifest: {error}") from error
    if (found := sha256(content)) != described.sha256:
        raise WrongModel(
            f"infer: {parts[0]} has the sha256 {found}, but its manifest says {described.sha256};"
            " build the image anew with the model that the manifest is of"
        )
    _keep(folder / f"{found}.onnx", content)
    _keep(folder / f"{sha256(raw)}.json", raw)


def _manifest(raw: bytes, artefact: Content) -> ModelManifest:
    try:
        manifest = ModelManifest.model_validate_json(raw)
    except ValidationError as error:
        raise Unloadable(f"the manifest does not fit: {faults(error)}") from error
    if manifest.sha256 != artefact.sha256:
        raise Unloadable(f"the manifest is of another artefact: {manifest.sha256}, not {artefact.sha256}")
    return manifest


def _sound(path: Path, expected: str) -> bytes | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    return content if sha256(content) == expected else None


def _keep(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    draft.write_bytes(content)
    draft.replace(path)
