"""Collection policies: versioned documents; a project's own is the first, and the newest is in force."""

from datetime import datetime, timedelta
from typing import Any

from services.contracts.events import PolicyUpdated
from services.contracts.problem import invalid, not_found
from services.contracts.projects import SelectionPolicy
from services.contracts.structured_uncertainty import score_name
from services.runtime.http import check_match
from services.runtime.service import Service, transact
from services.runtime.unit import Unit
from services.select_uncertain.strategies import STRATEGIES

RECENT = timedelta(seconds=1)


class Policies:
    """The policies of each project, by id and version."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._read: dict[str, tuple[datetime, Any, SelectionPolicy]] = {}

    async def current(self, project: str) -> SelectionPolicy:
        """The policy in force: one put here, else the one in the project's document."""
        key = f"pol:{project}"
        entry = (await self._service.state.get([key])).get(key)
        stored = entry.value["current"] if entry else None
        before = self._read.get(project)
        if not stored:
            policy = (await self._service.projects.need(project)).policy
        elif before and before[1] == stored:
            policy = before[2]
        else:
            policy = SelectionPolicy.model_validate(stored)
        self._read[project] = (self._service.clock.now(), stored, policy)
        return policy

    async def recent(self, project: str) -> SelectionPolicy:
        """The policy that was in force a second ago at most, for what happens with every batch."""
        known = self._read.get(project)
        if known and self._service.clock.now() - known[0] < RECENT:
            return known[2]
        return await self.current(project)

    async def put(self, project: str, policy_id: str, policy: SelectionPolicy, if_match: str | None) -> dict[str, Any]:
        """A new version; `if_match` is the version that it replaces, as an ETag."""
        document = await self._service.projects.need(project)
        check(policy, document.task)
        own = document.policy

        async def write(unit: Unit) -> dict[str, Any]:
            head = await unit.get(f"pol:{project}") or {"current": None, "versions": {}}
            seed = own.version if own.id == policy_id else 0
            known = head["versions"].get(policy_id, seed)
            if known or if_match is not None:
                check_match(if_match, f'"{known}"')
            new = policy.model_copy(update={"id": policy_id, "version": known + 1})
            document = new.model_dump(mode="json")
            versions = {**head["versions"], policy_id: new.version}
            unit.put(f"pol:{project}", {"current": document, "versions": versions}, guard=True)
            unit.put(f"pol:{project}:{policy_id}:{new.version}", document)
            unit.emit(PolicyUpdated(project=project, policy_id=policy_id, version=new.version, document=document))
            unit.then(lambda: self._forget(project))
            return document

        return await transact(self._service, write)

    def _forget(self, project: str) -> None:
        self._read.pop(project, None)

    async def get(self, project: str, policy_id: str, version: int | None = None) -> dict[str, Any]:
        """One version of a policy, the newest by default."""
        rows = await self.versions(project, policy_id)
        found = [row for row in rows if version in (None, row["version"])]
        if not found:
            raise not_found("policy", policy_id)
        return found[-1]

    async def versions(self, project: str, policy_id: str) -> list[dict[str, Any]]:
        """Every version of a policy, oldest first."""
        own = (await self._service.projects.need(project)).policy
        head = (await self._service.state.get([f"pol:{project}"])).get(f"pol:{project}")
        last = head.value["versions"].get(policy_id, 0) if head else 0
        keys = [f"pol:{project}:{policy_id}:{number}" for number in range(1, last + 1)]
        found = await self._service.state.get(keys)
        rows = [own.model_dump(mode="json")] if own.id == policy_id else []
        rows += [found[key].value for key in keys if key in found]
        if not rows:
            raise not_found("policy", policy_id)
        return rows


def check(policy: SelectionPolicy, task: str) -> None:
    """Raises a 422 that names the strategies there are, or the aggregates that the task has."""
    try:
        score_name(task, policy.aggregate)
    except ValueError as error:
        raise invalid("/aggregate", "unknown-aggregate", str(error)) from error
    for pointer, name in (("/strategy", policy.strategy), ("/cold_start", policy.cold_start)):
        if name not in STRATEGIES:
            raise invalid(pointer, "unknown-strategy", f"{name!r} is not one of {', '.join(sorted(STRATEGIES))}")
