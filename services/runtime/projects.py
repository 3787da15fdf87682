"""The projects this service knows: its own copy of what retrain-trigger publishes."""

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from services.contracts.envelope import Message
from services.contracts.events import ProjectUpdated
from services.contracts.problem import not_found
from services.contracts.projects import ProjectDocument
from services.runtime.errors import Drop, Retry
from services.runtime.unit import Unit

if TYPE_CHECKING:
    from services.runtime.service import Service

INDEX = "projects"


class UnknownProject(Drop):
    """There is no such project."""


class Projects:
    """Copies by revision, kept in this service's own store and in memory."""

    def __init__(self, service: "Service") -> None:
        self._service = service
        self._known: dict[str, ProjectDocument] = {}
        self._revisions: dict[str, int] = {}  # what is read of a lower one was read before that one was written
        self._forget: list[Callable[[str], object]] = []

    def on_deleted(self, forget: Callable[[str], object]) -> None:
        """Call this with the name of a project that is deleted: the place to forget what is only in memory."""
        self._forget.append(forget)

    async def load(self) -> None:
        """Bring the memory up to date with the store: at start, and where another replica may have heard the news."""
        index = (await self._service.state.get([INDEX])).get(INDEX)
        names = index.value["names"] if index else []
        await self._look_up(names)

    async def update(self, batch: Sequence[Message[ProjectUpdated]], unit: Unit) -> None:
        """Handler of ProjectUpdated: a lower revision than the one known is ignored."""
        index = await unit.get(INDEX) or {"names": []}
        names = list(index["names"])
        for message in batch:
            event = message.event
            known = await unit.get(f"project:{event.project}")
            if known and known["revision"] >= event.revision:
                continue
            row = {"revision": event.revision, "deleted": event.deleted, "document": dict(event.document)}
            unit.put(f"project:{event.project}", row, guard=True)
            if event.project not in names:
                names.append(event.project)
            document = None if event.deleted else _checked(event)
            name, revision = event.project, event.revision
            unit.then(lambda name=name, revision=revision, document=document: self._take(name, revision, document))
        if names != index["names"]:
            unit.put(INDEX, {"names": names}, guard=True)

    def _take(self, name: str, revision: int, document: ProjectDocument | None) -> None:
        """Remember a project, or (without a document) that it is deleted."""
        if revision < self._revisions.get(name, 0):
            return
        self._revisions[name] = revision
        if document:
            self._known[name] = document
            return
        self._known.pop(name, None)
        for forget in self._forget:
            forget(name)

    def all(self) -> list[ProjectDocument]:
        return list(self._known.values())

    async def get(self, name: str) -> ProjectDocument | None:
        """The project, asked of its owner when this service has not heard of it yet."""
        try:
            return await self._find(name)
        except Retry:
            return None

    async def need(self, name: str) -> ProjectDocument:
        """For routes: a 404 problem if there is none."""
        if document := await self.get(name):
            return document
        raise not_found("project", name)

    async def of_event(self, event: Any) -> ProjectDocument:
        """For handlers: drops an event of a project that nobody knows. Raises Retry while the owner does not answer."""
        return await self.named(event.project)

    async def named(self, name: str) -> ProjectDocument:
        """The same by the project's name."""
        if document := await self._find(name):
            return document
        raise UnknownProject(f"There is no project {name!r}.")

    async def _look_up(self, names: Sequence[str]) -> None:
        """Take over what this service's own store has, whichever replica wrote it."""
        keys = {f"project:{name}": name for name in names}
        for key, row in (await self._service.state.get(list(keys))).items():
            document = None if row.value["deleted"] else ProjectDocument.model_validate(row.value["document"])
            self._take(keys[key], row.value["revision"], document)

    async def of_batch(self, batch: Sequence[Message[Any]]) -> dict[str, ProjectDocument]:
        """For handlers: the projects of a batch by name; drops an event of one that nobody knows."""
        return {name: await self.of_event(event) for name, event in {m.event.project: m.event for m in batch}.items()}

    async def _find(self, name: str) -> ProjectDocument | None:
        if name not in self._known:
            await self._look_up([name])
        if name not in self._known and self._service.app_id != self._service.settings.projects_owner:
            await self._ask(name)
        return self._known.get(name)

    async def _ask(self, name: str) -> None:
        owner = self._service.settings.projects_owner
        with contextlib.suppress(KeyError):
            answer = await self._service.peers.get(owner, f"v1/projects/{name}", {})
            document = ProjectDocument.model_validate(answer)
            self._take(name, document.revision, document)


def _checked(event: ProjectUpdated) -> ProjectDocument:
    try:
        return ProjectDocument.model_validate(event.document)
    except ValidationError as error:
        raise Drop(f"the document of project {event.project!r} does not fit: {error}") from error
