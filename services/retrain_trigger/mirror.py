"""The registry, mirrored to an MLflow server: a worker that follows the records, and that nothing waits for.

What is to be there follows from the registry alone; what is there already is noted in a book, one for each project.
A server that is away, or a crash between the two, costs a repetition of a step that is harmless to repeat.
"""

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import httpx2
import structlog

from services.retrain_trigger.mlflow import Mlflow, Refused
from services.retrain_trigger.models import previous_of
from services.retrain_trigger.registry import Registry
from services.retrain_trigger.runs import Runs
from services.retrain_trigger.settings import MlflowSettings
from services.runtime.service import transact
from services.runtime.unit import Unit

log = structlog.get_logger()

HOLD = timedelta(seconds=120)
"""How long a replica that says nothing keeps the book."""
GATE = "halfsure.gate"

Book = dict[str, Any]


def book_key(project: str) -> str:
    return f"mlflow:{project}"


def no_book() -> Book:
    """`versions`: what MLflow calls each of ours, `aliases`: which version each name stands for there."""
    return {"versions": {}, "aliases": {}, "holder": None, "until": None}


def mirrored(registry: Registry, runs: Runs) -> None:
    """Have the service of `registry` mirror it, if a server is named."""
    own = MlflowSettings()
    if not own.url:
        return
    token = own.token.get_secret_value()
    headers = {"authorization": f"Bearer {token}"} if token else {}
    client = httpx2.AsyncClient(base_url=own.url.rstrip("/"), headers=headers, timeout=60)
    mirror = Mirror(registry, runs, Mlflow(client), own.prefix)
    registry.service.every(own.look_seconds, mirror.look)
    registry.service.on_stop(client.aclose)


class Mirror:
    """Follows the registry, project by project."""

    def __init__(self, registry: Registry, runs: Runs, mlflow: Mlflow, prefix: str) -> None:
        self._registry = registry
        self._service = registry.service
        self._runs = runs
        self._mlflow = mlflow
        self._prefix = prefix

    async def look(self) -> None:
        """Bring MLflow to where the registry is. Raises Unavailable when the server is away."""
        for document in self._service.projects.all():
            await self._follow(document.name)

    async def _follow(self, project: str) -> None:
        book = await self._book(project)
        versions = await self._registry.versions(project)
        todo = [one for one in versions if not _done(book["versions"].get(one))]
        pointer = await self._registry.pointer(project)
        if not todo and _aliases(pointer, book) == book["aliases"]:
            return
        records = await self._registry.records(todo)
        waiting = [one for one in records if _behind(one, book["versions"].get(one["version"]))]
        if not waiting and _aliases(pointer, book) == book["aliases"]:
            return
        if not await self._note(project):  # another replica is at it
            return
        for record in waiting:
            note = await self._told(project, record, book["versions"].get(record["version"]))
            book["versions"][record["version"]] = note
            if not await self._note(project, versions={record["version"]: note}):
                return
        wanted = _aliases(pointer, book)
        for alias in wanted.keys() | book["aliases"].keys():
            if wanted.get(alias) != book["aliases"].get(alias):
                number = book["versions"][wanted[alias]]["number"] if alias in wanted else None
                await self._mlflow.alias(self._prefix + project, alias, number)
        await self._note(project, aliases=wanted)

    async def _told(self, project: str, record: Mapping[str, Any], note: Mapping[str, Any] | None) -> dict[str, Any]:
        """Put one version there, or what the gate has said since; the note for the book."""
        model, version = self._prefix + project, record["version"]
        try:
            if note is None:
                info = await self._run(project, record)
                number = await self._mlflow.version(model, info, {"halfsure.version": version})
                note = {"run_id": info["run_id"], "number": number, "gate": False}
                log.info("mirrored", project=project, version=version, mlflow=number)
            if record["gate"]:
                await self._mlflow.tag(model, note["number"], GATE, "; ".join(record["gate"]["reasons"]))
            return {**note, "gate": bool(record["gate"]) or not record["lineage"].get("run")}
        except Refused as error:
            log.error("not mirrored", project=project, version=version, reason=str(error))
            return {"refused": str(error)}

    async def _run(self, project: str, record: Mapping[str, Any]) -> dict[str, Any]:
        """The MLflow run of a version, with its parameters, metrics and artefacts; its info."""
        lineage, version = record["lineage"], record["version"]
        run = await self._runs.get(lineage["run"]) if lineage.get("run") else None
        at = round(datetime.fromisoformat(record["created_at"]).timestamp() * 1000)
        tags = {f"halfsure.{name}": value for name, value in lineage.items() if isinstance(value, str)}
        tags |= {"halfsure.sha256": record["artefact"]["sha256"], "halfsure.project": project}
        experiment = await self._mlflow.experiment(self._prefix + project)
        info = await self._mlflow.run(experiment, version, at, tags)
        for name, part in (("model.onnx", "artefact"), ("manifest.json", "manifest")):
            if content := await self._content(record, part):
                await self._mlflow.put(info, f"model/{name}", content)
        params = (run or {}).get("params", {}).get("training", {})
        await self._mlflow.say(info["run_id"], at, params, numbers(record["metrics"] or {}))
        return info

    async def _content(self, record: Mapping[str, Any], part: str) -> bytes | None:
        """None: retention has removed it."""
        try:
            return await self._service.blobs.get(record[part]["uri"])
        except KeyError:
            return None

    async def _book(self, project: str) -> Book:
        found = (await self._service.state.get([book_key(project)])).get(book_key(project))
        return found.value if found else no_book()

    async def _note(self, project: str, versions: Mapping[str, Any] | None = None, **changes: Any) -> bool:
        """Write into the book and keep it for a while; False when another replica has it."""

        async def work(unit: Unit) -> bool:
            book = await unit.get(book_key(project)) or no_book()
            now, holder = self._service.clock.now(), self._service.outbox.slot
            if book["holder"] not in (None, holder) and now < datetime.fromisoformat(book["until"]):
                return False
            book = {**book, **changes, "versions": {**book["versions"], **(versions or {})}}
            until = (now + HOLD).isoformat()
            unit.put(book_key(project), {**book, "holder": holder, "until": until}, guard=True)
            return True

        return await transact(self._service, work)


def numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics that are one number. Pure."""
    plain = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    return {name: float(value) for name, value in plain.items() if math.isfinite(value)}


def _done(note: Mapping[str, Any] | None) -> bool:
    """Nothing about this version can change any more."""
    return note is not None and ("refused" in note or note["gate"])


def _behind(record: Mapping[str, Any], note: Mapping[str, Any] | None) -> bool:
    """The version is not there yet, or the gate has spoken since."""
    return note is None or bool(record["gate"] and not note["gate"])


def _aliases(pointer: Mapping[str, Any], book: Book) -> dict[str, str]:
    """alias -> version, of the versions that MLflow has."""
    named = {"champion": pointer["version"], "previous": previous_of(pointer), "shadow": pointer.get("shadow")}
    return {alias: one for alias, one in named.items() if one and "number" in book["versions"].get(one, ())}
