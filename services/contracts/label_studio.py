"""Label Studio's shapes: tasks with annotations and predictions, for files and for its server. Pure.

Format: https://labelstud.io/guide/task_format and https://labelstud.io/guide/export
"""

from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

NAME, TARGET = "label", "sample"


def config(labels: Sequence[str]) -> str:
    """The labelling interface: one choice about one picture."""
    choices = "".join(f"<Choice value={quoteattr(label)}/>" for label in labels)
    picture = f'<Image name="{TARGET}" value="$image"/>'
    control = f'<Choices name="{NAME}" toName="{TARGET}" choice="single" required="true">{choices}</Choices>'
    return f"<View>{picture}{control}</View>"


def result(value: str) -> list[dict[str, Any]]:
    """One choice, as annotations and predictions say it."""
    return [{"from_name": NAME, "to_name": TARGET, "type": "choices", "value": {"choices": [value]}}]


def task(sample: str, content: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A task; its data name the sample, so that what comes back is known again."""
    return {"data": {"image": f"/v1/samples/{sample}/content", "sample_id": sample, **content}, **more}


def prediction(value: str, score: float | None, version: str) -> dict[str, Any]:
    return {"model_version": version, "score": score, "result": result(value)}


def choice(annotation: Mapping[str, Any]) -> str | None:
    """The one choice of an annotation; None if it was skipped, or says anything else."""
    if annotation.get("was_cancelled"):
        return None
    found = [
        value
        for part in annotation.get("result") or ()
        if isinstance(part, dict) and part.get("type") == "choices"
        for value in (part.get("value") or {}).get("choices") or ()
    ]
    return found[0] if len(found) == 1 and isinstance(found[0], str) else None
