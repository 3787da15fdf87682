"""The models of all projects: which exist, which one serves, and how it came to."""

from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from services.contracts.envelope import Message
from services.contracts.events import (
    Content,
    ModelActivated,
    ModelActivation,
    ModelLoaded,
    ModelLoadFailed,
    ModelRegistered,
    ModelRejected,
    ModelRolledBack,
    ModelStatus,
)
from services.contracts.ids import model_version, sha256
from services.contracts.manifest import ModelManifest
from services.contracts.problem import Problem, not_found
from services.runtime.service import Service, transact
from services.runtime.unit import Unit

log = structlog.get_logger()

HISTORY = 50  # activations that can be rolled back through


class Superseded(Exception):
    """Another model was activated while the candidate was being judged."""


def model_key(version: str) -> str:
    return f"mdl:{version}"


def index_key(project: str) -> str:
    return f"mdl:index:{project}"


def pointer_key(project: str) -> str:
    return f"ptr:active:{project}"


def no_pointer() -> dict[str, Any]:
    """What serves in a project without a model; `history` ends with the version that serves, `served` has them all."""
    return {"version": None, "epoch": 0, "history": [], "served": []}


def previous_of(pointer: Mapping[str, Any]) -> str | None:
    """What a roll-back would bring back."""
    return pointer["history"][-2] if len(pointer["history"]) > 1 else None


class Registry:
    """Versions are records; which of them serves is one pointer a project, and states follow from both."""

    def __init__(self, service: Service) -> None:
        self.service = service

    # What is read.

    async def pointer(self, project: str) -> dict[str, Any]:
        found = (await self.service.state.get([pointer_key(project)])).get(pointer_key(project))
        return found.value if found else no_pointer()

    async def record(self, version: str) -> dict[str, Any] | None:
        """The stored record; `view` is what is shown of it."""
        found = (await self.service.state.get([model_key(version)])).get(model_key(version))
        return found.value if found else None

    async def need(self, project: str, version: str) -> dict[str, Any]:
        """For routes: a 404 problem if the project has no such version."""
        record = await self.record(version)
        if record is None or record.get("project") != project:
            raise not_found("model", version)
        return record

    async def versions(self, project: str) -> list[str]:
        """Oldest first."""
        found = (await self.service.state.get([index_key(project)])).get(index_key(project))
        return found.value["versions"] if found else []

    async def records(self, versions: Sequence[str]) -> list[dict[str, Any]]:
        found = await self.service.state.get([model_key(version) for version in versions])
        return [found[key].value for version in versions if (key := model_key(version)) in found]

    # What changes.

    async def package(
        self, project: str, source: str, content: bytes, manifest: ModelManifest
    ) -> tuple[str, Content, Content]:
        """Version, artefact and manifest in the blob store; the same bytes from the same source are the same."""
        version = model_version(project, source, manifest.sha256)
        described = manifest.model_copy(update={"version": version}).model_dump_json().encode()
        artefact = await self._stored(f"models/{project}/{manifest.sha256}.onnx", content, "application/octet-stream")
        name = f"models/{project}/{sha256(described)}.json"
        return version, artefact, await self._stored(name, described, "application/json")

    async def register(self, unit: Unit, record: dict[str, Any]) -> None:
        """Add a candidate; a version that is known is left as it is."""
        version, project = record["version"], record["project"]
        index = await unit.get(index_key(project)) or {"versions": []}
        if version not in index["versions"]:
            unit.put(index_key(project), {"versions": [*index["versions"], version]}, guard=True)
        if await unit.get(model_key(version)):
            return
        unit.put(model_key(version), record, guard=True)
        event = ModelRegistered(project=project, lineage=record["lineage"], version=version, **_files(record))
        unit.emit(event, guard=model_key(version))

    async def reject(self, version: str, gate: Mapping[str, Any]) -> None:
        """The gate has refused a candidate. Safe to repeat."""

        async def work(unit: Unit) -> None:
            record = await unit.get(model_key(version))
            if record is None or record["gate"] is not None:
                return
            unit.put(model_key(version), {**record, "gate": dict(gate)}, guard=True)
            unit.emit(ModelRejected(project=record["project"], version=version, gate=dict(gate)))

        await transact(self.service, work)

    async def promote(self, version: str, gate: Mapping[str, Any], champion: str | None) -> None:
        """The gate has passed a candidate that was judged against `champion`. Safe to repeat; raises Superseded."""

        async def work(unit: Unit) -> None:
            record = await unit.get(model_key(version))
            if record is None:
                raise RuntimeError(f"{version} is not registered")
            pointer = await unit.get(pointer_key(record["project"])) or no_pointer()
            served = version in pointer["served"]
            if not served and pointer["version"] != champion:
                raise Superseded(f"{pointer['version']} was activated meanwhile")
            if record["gate"] is None:
                unit.put(model_key(version), {**record, "gate": dict(gate)}, guard=True)
            if served:
                return
            record = {**record, "gate": record["gate"] or dict(gate)}
            self.activate(unit, record, pointer, reason="; ".join(gate.get("reasons", ())) or "promoted")

        await transact(self.service, work)

    def activate(
        self, unit: Unit, record: Mapping[str, Any], pointer: Mapping[str, Any], *, reason: str, share: float = 1.0
    ) -> int:
        """Point the project at a version; returns the new epoch. The pointer was read in `unit`."""
        history = [*pointer["history"], record["version"]][-HISTORY:]
        return self._point(unit, ModelActivated, record, pointer, history, reason, share)

    async def roll_back(self, unit: Unit, project: str, reason: str) -> int:
        """Bring the previous version back. Raises a 409 problem when there is none."""
        pointer = await unit.get(pointer_key(project)) or no_pointer()
        before = previous_of(pointer)
        record = await unit.get(model_key(before)) if before else None
        if record is None:
            raise Problem(409, "nothing-to-roll-back-to", "No other version has served in this project.")
        return self._point(unit, ModelRolledBack, record, pointer, pointer["history"][:-1], reason, 1.0)

    async def retire(self, project: str) -> None:
        """No version serves any more; epochs go on counting. Safe to repeat."""

        async def work(unit: Unit) -> None:
            pointer = await unit.get(pointer_key(project))
            if pointer and pointer["version"]:
                unit.put(pointer_key(project), {**pointer, "version": None, "history": []}, guard=True)

        await transact(self.service, work)

    # What infer says.

    async def loaded(self, batch: Sequence[Message[ModelLoaded]], unit: Unit) -> None:
        """ModelLoaded: which replicas answer with a version."""
        await unit.get_many(model_key(message.event.version) for message in batch)
        for message in batch:
            await self._note(unit, message.event, "loaded")

    async def load_failed(self, batch: Sequence[Message[ModelLoadFailed]], unit: Unit) -> None:
        """ModelLoadFailed: of the version that is to serve, it is rolled back."""
        await unit.get_many(model_key(message.event.version) for message in batch)
        for message in batch:
            event = message.event
            await self._note(unit, event, "failed")
            pointer = await unit.get(pointer_key(event.project)) or no_pointer()
            at_fault = pointer["version"] == event.version and pointer["epoch"] == event.activation_epoch
            if at_fault and previous_of(pointer):
                log.warning("rolled back", project=event.project, version=event.version, reason=event.error)
                await self.roll_back(unit, event.project, f"{event.instance} could not load it: {event.error}")

    async def _note(self, unit: Unit, event: ModelStatus, outcome: str) -> None:
        record = await unit.get(model_key(event.version))
        if record is None:
            return
        who = f"{event.site}/{event.instance}"
        known = record["loads"].get(who)
        if known and known["epoch"] > event.activation_epoch:
            return
        note = {"outcome": outcome, "epoch": event.activation_epoch, "provider": event.provider, "error": event.error}
        if note != known:
            unit.put(model_key(event.version), {**record, "loads": {**record["loads"], who: note}}, guard=True)

    def _point(
        self,
        unit: Unit,
        kind: type[ModelActivation],
        record: Mapping[str, Any],
        pointer: Mapping[str, Any],
        history: list[str],
        reason: str,
        share: float,
    ) -> int:
        project, epoch = record["project"], pointer["epoch"] + 1
        after = {
            "version": record["version"],
            "epoch": epoch,
            "history": history,
            "served": list(dict.fromkeys([*pointer["served"], record["version"]])),
            "share": share,
            "reason": reason,
            "at": self.service.clock.now().isoformat(),
        }
        unit.put(pointer_key(project), after, guard=True)
        event = kind(
            project=project,
            version=record["version"],
            activation_epoch=epoch,
            previous=pointer["version"],
            rollout={"share": share},
            reason=reason,
            gate=record["gate"] or {},
            **_files(record),
        )
        unit.emit(event, guard=pointer_key(project))
        return epoch

    async def _stored(self, name: str, content: bytes, media_type: str) -> Content:
        uri = await self.service.blobs.put(name, content)
        return Content(uri=uri, sha256=sha256(content), bytes=len(content), media_type=media_type)


def _files(record: Mapping[str, Any]) -> dict[str, Content]:
    return {part: Content.model_validate(record[part]) for part in ("artefact", "manifest")}


def new_record(
    project: str, version: str, artefact: Content, manifest: Content, *, at: str, lineage: Mapping[str, Any]
) -> dict[str, Any]:
    """A candidate nobody has judged yet."""
    return {
        "version": version,
        "project": project,
        "artefact": artefact.model_dump(),
        "manifest": manifest.model_dump(),
        "lineage": dict(lineage),
        "metrics": None,
        "evaluation_sha256": None,
        "gate": None,
        "loads": {},
        "created_at": at,
    }


def view(record: Mapping[str, Any], pointer: Mapping[str, Any]) -> dict[str, Any]:
    """What is shown of a model: its record and its state now."""
    shown = {name: value for name, value in record.items() if not name.startswith("_")}
    return {**shown, "state": state_of(record, pointer)}


def state_of(record: Mapping[str, Any], pointer: Mapping[str, Any]) -> str:
    """ACTIVE, PREVIOUS, ARCHIVED, REJECTED or CANDIDATE."""
    version, gate = record["version"], record["gate"]
    if pointer["version"] == version:
        return "ACTIVE"
    if previous_of(pointer) == version:
        return "PREVIOUS"
    if version in pointer["served"]:
        return "ARCHIVED"
    return "CANDIDATE" if gate is None or gate["promote"] else "REJECTED"


def compared(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """Two models on the same evaluation set. Raises a 409 problem when there is none."""
    if not a["evaluation_sha256"] or a["evaluation_sha256"] != b["evaluation_sha256"]:
        detail = "The two were judged on different evaluation sets, so their numbers say nothing about each other."
        raise Problem(409, "different-evaluation-sets", detail)
    return {
        "evaluation_sha256": a["evaluation_sha256"],
        "a": {"version": a["version"], "metrics": a["metrics"]},
        "b": {"version": b["version"], "metrics": b["metrics"]},
        "difference": a["metrics"]["accuracy"] - b["metrics"]["accuracy"],
    }
