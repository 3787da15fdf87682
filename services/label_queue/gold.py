"""Gold samples: tasks with a known answer, handed out among the others to see who answers well. Pure."""

import random
from collections.abc import Collection, Sequence
from datetime import datetime

from services.contracts.ids import digest
from services.label_queue.tasks import State, Task


def probe_key(name: str, annotator: str) -> str:
    """The record of one annotator's copy of a gold task."""
    return f"gold:{name}:{digest(annotator)}"


def probe(master: Task, annotator: str, required: int, now: datetime) -> Task:
    """A copy of a gold task for one annotator, in nothing that they are shown unlike a task that was just queued."""
    return Task(
        id=master.id,
        project=master.project,
        sample_id=master.sample_id,
        state=State.QUEUED,
        required=required,
        content=master.content,
        split="gold",
        asked=True,
        probe=annotator,
        created_at=now,
        changed_at=now,
    )


def mixed(
    picks: Sequence[str], gold: Collection[str], seen: Collection[str], share: float, rng: random.Random
) -> list[str]:
    """The picks, each of them in `share` of all cases replaced by a gold task that the annotator has not seen."""
    unseen = sorted(set(gold) - set(seen))
    rng.shuffle(unseen)
    return [unseen.pop() if unseen and rng.random() < share else name for name in picks]
