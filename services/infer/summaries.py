"""How sure the models are of what comes in: histograms, said now and then where a project watches for drift."""

import platform
from collections.abc import Sequence

import numpy as np

from services.contracts.events import SampleScored, SampleScoringFailed, ScoresSummarised
from services.runtime.service import Service

BINS = 20
SAMPLES = 200  # that make a summary at once
SECONDS = 30.0  # after which fewer are enough


class Summaries:
    """Counts of this replica, by project and version; a crash loses what was not said yet."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._counts: dict[tuple[str, str], np.ndarray] = {}
        self._said: dict[tuple[str, str], float] = {}

    def note(self, project: str, version: str, verdicts: Sequence[SampleScored | SampleScoringFailed]) -> None:
        """Count what was just scored, once it is committed."""
        sure = [one.top.confidence for one in verdicts if isinstance(one, SampleScored) and one.top is not None]
        if sure:
            counts = self._counts.setdefault((project, version), np.zeros(BINS, np.int64))
            counts += np.bincount(np.minimum((np.array(sure) * BINS).astype(int), BINS - 1), minlength=BINS)

    async def say(self) -> None:
        """Emit the summaries that are due."""
        now = self._service.clock.now()
        for (project, version), counts in list(self._counts.items()):
            document = await self._service.projects.get(project)
            if document is None or document.trigger.drift is None:
                del self._counts[project, version]
                continue
            since = self._said.setdefault((project, version), now.timestamp())
            if counts.sum() < SAMPLES and now.timestamp() - since < SECONDS:
                continue
            unit = await self._service.unit()
            unit.emit(
                ScoresSummarised(
                    project=project,
                    model_version=version,
                    site=self._service.settings.siteid,
                    instance=f"{platform.node()}-{self._service.outbox.slot}",
                    until=now,
                    samples=int(counts.sum()),
                    confidence=counts.tolist(),
                )
            )
            # Taken before it is said: what is counted meanwhile is of the next summary.
            del self._counts[project, version]
            self._said[project, version] = now.timestamp()
            await unit.commit()
