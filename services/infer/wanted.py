"""What the model events want, as state: which version is to serve, and where each version is."""

from collections.abc import Sequence
from typing import Any

from services.contracts.envelope import Message, Origin
from services.contracts.events import ModelActivated, ModelActivation, ModelRegistered
from services.runtime.errors import Unavailable
from services.runtime.service import Service, transact
from services.runtime.unit import Unit


class Wanted:
    """The wishes for all projects; nothing is loaded here."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._unasked: set[str] = set()
        self.announced: list[ModelRegistered] = []  # to be prefetched by this replica

    async def register(self, batch: Sequence[Message[ModelRegistered]], unit: Unit) -> None:
        """Handler: remember where a version is, and prefetch it."""
        keys = {message.id: version_key(message.event.project, message.event.version) for message in batch}
        known = await unit.get_many([*keys.values(), *(versions_key(message.event.project) for message in batch)])
        for message in batch:
            event = message.event
            await self._service.projects.of_event(event)
            if keys[message.id] not in known:
                unit.put(keys[message.id], source_of(event))
                await _list(unit, event.project, event.version)
                unit.then(lambda event=event: self.announced.append(event))

    async def activate(self, batch: Sequence[Message[ModelActivation]], unit: Unit) -> None:
        """Handler: the highest epoch is wanted from now on; the worker brings it in."""
        await unit.get_many(active_key(message.event.project) for message in batch)
        for message in batch:
            await self._service.projects.of_event(message.event)
            await self._want(message.event, message.origin, unit)

    async def _want(self, event: ModelActivation, origin: Origin | None, unit: Unit) -> None:
        key = active_key(event.project)
        wanted = await unit.get(key)
        if wanted and wanted["epoch"] >= event.activation_epoch:
            return
        source = source_of(event)
        good = wanted["good"] if wanted else None
        record = {**source, "epoch": event.activation_epoch, **_rollout(event), "good": good}
        unit.put(key, record, guard=True, origin=origin)
        unit.put(version_key(event.project, event.version), source)
        await _list(unit, event.project, event.version)

    async def of(self, projects: Sequence[str]) -> dict[str, dict[str, Any]]:
        """What is to serve in those of the projects where something is."""
        entries = await self._service.state.get([active_key(project) for project in projects])
        return {project: entries[key].value for project in projects if (key := active_key(project)) in entries}

    async def good(self, project: str) -> dict[str, Any] | None:
        """What served last, and is to serve again after a restart."""
        return (await self.of([project])).get(project, {"good": None})["good"]

    async def start(self) -> None:
        """Have the owner of every project asked."""
        self._unasked = {document.name for document in self._service.projects.all()}

    async def catch_up(self) -> None:
        """After a start, hear what is to serve from whoever owns the projects.

        An activation that this process had in hand when it was killed comes again from the broker, after a minute.
        """
        owner = self._service.settings.projects_owner
        for project in sorted(self._unasked):
            try:
                answer = await self._service.peers.get(owner, "v1/activation", {"project": project})
            except Unavailable:
                return  # and asked again
            except KeyError:
                pass  # it serves nothing yet, or is a site's uplink, which says it by event alone
            else:
                event = ModelActivated.model_validate(answer)
                await transact(self._service, lambda unit, event=event: self._want(event, None, unit))
            self._unasked.discard(project)

    async def known(self, project: str, version: str) -> dict[str, Any] | None:
        """Where a version is, if it was ever announced."""
        key = version_key(project, version)
        entry = (await self._service.state.get([key])).get(key)
        return entry.value if entry else None

    async def record_good(self, project: str, source: dict[str, Any]) -> None:
        """Remember what a restart has to serve."""
        names = ("version", "epoch", "artefact", "manifest", "previous", "share", "shadow")
        good = {name: source[name] for name in names if name in source}

        async def work(unit: Unit) -> None:
            record = await unit.get(active_key(project))
            if record and (record["good"] is None or record["good"]["epoch"] < source["epoch"]):
                unit.put(active_key(project), {**record, "good": good}, guard=True)

        await transact(self._service, work)


def active_key(project: str) -> str:
    return f"act:{project}"


def version_key(project: str, version: str) -> str:
    return f"mdl:{project}:{version}"


def versions_key(project: str) -> str:
    """All versions that were ever announced, in one record: who erases looks for what each of them has said."""
    return f"mdls:{project}"


async def _list(unit: Unit, project: str, version: str) -> None:
    known = (await unit.get(versions_key(project)) or {"of": []})["of"]
    if version not in known:
        unit.put(versions_key(project), {"of": [*known, version]}, guard=True)


def source_of(event: ModelRegistered | ModelActivation) -> dict[str, Any]:
    """Where a version is."""
    files = {"artefact": event.artefact.model_dump(), "manifest": event.manifest.model_dump()}
    return {"version": event.version, **files}


def _rollout(event: ModelActivation) -> dict[str, Any]:
    """Who has the rest of the traffic, which share the version itself has, and which one is only listened to."""
    return {"previous": event.previous, "share": event.rollout.get("share", 1.0), "shadow": event.shadow}
