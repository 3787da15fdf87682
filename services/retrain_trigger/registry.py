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
from services.retrain_trigger.models import index_key, model_key, no_pointer, pointer_key, previous_of
from services.runtime.service import Service, transact
from services.runtime.signing import Signer
from services.runtime.unit import Unit

log = structlog.get_logger()

HISTORY = 50  # activations that can be rolled back through


class Superseded(Exception):
    """Another model was activated while the candidate was being judged."""


class Registry:
    """Versions are records; which of them serves is one pointer a project, and states follow from both."""

    def __init__(self, service: Service, signer: Signer | None = None) -> None:
        self.service = service
        self._signer = signer or Signer(None)

    # What is read.

    async def pointer(self, project: str) -> dict[str, Any]:
        found = (await self.service.state.get([pointer_key(project)])).get(pointer_key(project))
        return found.value if found else no_pointer()

    async def activation(self, project: str) -> ModelActivation | None:
        """What is to serve, as the event says that does."""
        pointer = await self.pointer(project)
        if pointer["version"] is None or (record := await self.record(pointer["version"])) is None:
            return None
        kind = ModelRolledBack if pointer["rolled_back"] else ModelActivated
        return self._event(kind, record, pointer, previous_of(pointer))

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
        kind = "application/octet-stream" if manifest.backend == "onnx" else "application/json"
        artefact = await self._stored(f"models/{project}/{manifest.sha256}.{manifest.backend}", content, kind)
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
        event = ModelRegistered(project=project, lineage=record["lineage"], version=version, **self.files(record))
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

    async def promote(self, version: str, gate: Mapping[str, Any], champion: str | None, share: float = 1.0) -> None:
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
            reason = "; ".join(gate.get("reasons", ())) or "promoted"
            part = share if pointer["version"] else 1.0
            self.activate(unit, record, pointer, reason=reason, share=part, completes=True)

        await transact(self.service, work)

    def activate(
        self,
        unit: Unit,
        record: Mapping[str, Any],
        pointer: Mapping[str, Any],
        *,
        reason: str,
        share: float = 1.0,
        completes: bool = False,
    ) -> int:
        """Point the project at a version; returns the new epoch. The pointer was read in `unit`.

        With a share below 1 the version that served whole before keeps the rest; `completes` has the watch give the
        version all of it in the end. Raises a 409 problem when there is nothing to share with, or the artefact is gone.
        """
        if record.get("gone"):
            raise Problem(409, "artefact-gone", f"The artefact of {record['version']} was removed by retention.")
        base = list(pointer["history"])
        if base and pointer.get("share", 1.0) < 1.0:
            base.pop()  # it never served whole
        if base and base[-1] == record["version"]:
            base.pop()
        if share < 1.0 and not base:
            raise Problem(409, "nothing-beside", "No other version can have the rest: activate it with share 1.")
        history = [*base, record["version"]][-HISTORY:]
        more = {"share": share, "completes": completes and share < 1.0}
        return self._point(unit, ModelActivated, record, pointer, {"history": history, "reason": reason, **more})

    async def roll_back(self, unit: Unit, project: str, reason: str) -> int:
        """Bring the previous version back. Raises a 409 problem when there is none."""
        pointer = await unit.get(pointer_key(project)) or no_pointer()
        history = list(pointer["history"][:-1])
        while history:
            record = await unit.get(model_key(history[-1]))
            if record and not record.get("gone"):
                return self._point(unit, ModelRolledBack, record, pointer, {"history": history, "reason": reason})
            history.pop()
        raise Problem(409, "nothing-to-roll-back-to", "No other version has served in this project.")

    async def shadow(self, unit: Unit, project: str, version: str | None, reason: str) -> int:
        """Have a version score beside the champion, or none; returns the new epoch. Raises a 409 problem."""
        pointer = await unit.get(pointer_key(project)) or no_pointer()
        record = await unit.get(model_key(pointer["version"])) if pointer["version"] else None
        if record is None or version in pointer["history"][-2:]:
            raise Problem(409, "no-shadow", "A shadow stands beside a champion, and is neither it nor its previous.")
        if version == pointer.get("shadow"):
            return pointer["epoch"]
        kept = {name: pointer[name] for name in ("history", "share", "completes", "at") if name in pointer}
        return self._point(unit, ModelActivated, record, pointer, {**kept, "shadow": version, "reason": reason})

    async def retire(self, project: str) -> None:
        """No version serves any more; epochs go on counting. Safe to repeat."""

        async def work(unit: Unit) -> None:
            pointer = await unit.get(pointer_key(project))
            if pointer and pointer["version"]:
                unit.put(
                    pointer_key(project),
                    {**pointer, "version": None, "history": [], "share": 1.0, "shadow": None},
                    guard=True,
                )

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
        changes: Mapping[str, Any],
    ) -> int:
        project, version, epoch = record["project"], record["version"], pointer["epoch"] + 1
        after = {
            "version": version,
            "epoch": epoch,
            "served": list(dict.fromkeys([*pointer["served"], version])),
            "share": 1.0,
            "completes": False,
            "shadow": pointer.get("shadow") if pointer.get("shadow") != version else None,
            "rolled_back": kind is ModelRolledBack,
            "at": self.service.clock.now().isoformat(),
            **changes,
        }
        unit.put(pointer_key(project), after, guard=True)
        previous = pointer["version"] if kind is ModelRolledBack else previous_of(after)
        unit.emit(self._event(kind, record, after, previous), guard=pointer_key(project))
        return epoch

    def _event(
        self, kind: type[ModelActivation], record: Mapping[str, Any], pointer: Mapping[str, Any], previous: str | None
    ) -> ModelActivation:
        return kind(
            project=record["project"],
            version=record["version"],
            activation_epoch=pointer["epoch"],
            previous=previous,
            rollout={"share": pointer["share"]},
            shadow=pointer["shadow"],
            reason=pointer["reason"],
            gate=record["gate"] or {},
            **self.files(record),
        )

    async def _stored(self, name: str, content: bytes, media_type: str) -> Content:
        uri = await self.service.blobs.put(name, content)
        return Content(uri=uri, sha256=sha256(content), bytes=len(content), media_type=media_type)

    def files(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Artefact and manifest, signed anew whenever they are told of: a new key needs an activation, and no more."""
        artefact, manifest = (Content.model_validate(record[part]) for part in ("artefact", "manifest"))
        return {"artefact": artefact, "manifest": self._signer.signed(record["project"], manifest)}
