"""Watches a version that was just activated: back it goes when the audit finds it worse than the one before it."""

import math
from datetime import datetime, timedelta
from typing import Any

import structlog

from services.contracts.projects import ProjectDocument, RolloutRule
from services.retrain_trigger.labels import Labels
from services.retrain_trigger.models import model_key, no_pointer, pointer_key, previous_of
from services.retrain_trigger.registry import Registry
from services.retrain_trigger.trigger import Audits
from services.runtime.service import Service, transact
from services.runtime.unit import Unit

log = structlog.get_logger()

Z998 = 2.878161739095483
"""One-sided 99.8 % quantile of the normal distribution. So strict because the audit is looked at again and again:
of versions that are no worse, about 3 in 100 are sent back in 200 looks (tests/unit/test_watch.py)."""
LEAST = 10
"""Audits of either version without which nothing is said."""


def rise(new: Audits, old: Audits, z: float = Z998) -> tuple[float, float]:
    """Error rate of `new` - of `old`, and its lower confidence bound; both have at least one audit.

    The bound is Newcombe's hybrid score interval (Statistics in Medicine 17, 1998, method 10).
    """
    p, q = new.errors / new.total, old.errors / old.total
    low, high = _wilson(new, z)[0], _wilson(old, z)[1]
    return p - q, max(-1.0, p - q - math.sqrt((p - low) ** 2 + (high - q) ** 2))


def worse(new: Audits, old: Audits, rule: RolloutRule) -> str | None:
    """Why the new version goes back: its error is above the old one's by more than the rule has, and not by chance."""
    if min(new.total, old.total) < LEAST:
        return None
    difference, bound = rise(new, old)
    if difference <= rule.error_rise or bound <= 0:
        return None
    return (
        f"audit-error-rose: {new.errors} of {new.total} against {old.errors} of {old.total} before, "
        f"{difference:+.3f} (lower 99.8 % bound {bound:+.3f}) > {rule.error_rise:+.3f}"
    )


def _wilson(audits: Audits, z: float) -> tuple[float, float]:
    """Wilson's score interval of the error rate."""
    n, p = audits.total, audits.errors / audits.total
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, (centre - half) / (1 + z * z / n)), min(1.0, (centre + half) / (1 + z * z / n))


class Watch:
    """A loop over the projects whose version is young."""

    def __init__(self, service: Service, labels: Labels, registry: Registry) -> None:
        self._service = service
        self._labels = labels
        self._registry = registry

    async def look(self) -> None:
        """Roll back what is worse; give a version that has stood its window all of the traffic."""
        documents = {document.name: document for document in self._service.projects.all()}
        found = await self._service.state.get([pointer_key(name) for name in documents])
        for name, document in documents.items():
            if entry := found.get(pointer_key(name)):
                await self._of(document, entry.value)

    async def _of(self, document: ProjectDocument, pointer: dict[str, Any]) -> None:
        rule = document.rollout
        previous = previous_of(pointer)
        if not pointer["version"] or previous is None or pointer.get("rolled_back") or not pointer.get("at"):
            return
        ends = datetime.fromisoformat(pointer["at"]) + timedelta(seconds=rule.watch_seconds)
        if self._service.clock.now() < ends:
            new, old = self._labels.audits(document.name, [pointer["version"], previous])
            if reason := worse(new, old, rule):
                log.warning("rolled back", project=document.name, version=pointer["version"], reason=reason)
                await self._change(document.name, pointer["epoch"], back=reason)
        elif pointer.get("completes"):
            await self._change(document.name, pointer["epoch"], back=None)

    async def _change(self, project: str, epoch: int, back: str | None) -> None:
        """Unless somebody has changed what serves meanwhile."""

        async def work(unit: Unit) -> None:
            pointer = await unit.get(pointer_key(project)) or no_pointer()
            if pointer["epoch"] != epoch:
                return
            if back is not None:
                await self._registry.roll_back(unit, project, back)
                return
            record = await unit.get(model_key(pointer["version"]))
            if record:
                self._registry.activate(unit, record, pointer, reason="stood its share of the traffic")

        await transact(self._service, work)
