"""Whether an annotator is shown what the model says, and when. Pure.

People who see a suggestion first follow it, wrong ones too. Therefore a share of the tasks is blind in every project:
what people answer there, beside what they answer elsewhere, tells how much they are swayed.
"""

from typing import Any

from services.contracts.projects import ProjectDocument, QualityRule
from services.label_queue.draws import draw
from services.label_queue.tasks import Reveal, Task

SHOWN_BEFORE = ("topk", "accept_reject")


def blind(rule: QualityRule, task: str, annotator: str) -> bool:
    """Whether this task is one of those that the annotator answers without ever seeing what the model says."""
    return draw(task, annotator) < rule.blind_share


def reveal(document: ProjectDocument, task: Task, annotator: str) -> Reveal:
    """When the annotator may see the task's suggestion; the same for the same two, always.

    A gold sample is blind, so that it looks like one of the share that is blind anyway.
    """
    if document.suggestions == "blind" or task.probe or blind(document.quality, task.id, annotator):
        return "never"
    return "before" if document.suggestions in SHOWN_BEFORE else "after"


def suggestion(task: Task) -> dict[str, Any] | None:
    """What the model says of a sample, if any model has said something."""
    return task.prelabel.model_dump(exclude_none=True) if task.prelabel else None
