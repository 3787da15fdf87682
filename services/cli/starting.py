"""A project's document to begin with, from a look at the data: what is learnt, whom to ask about, when to train."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.cli.datasets import SIDE, DataProblem
from services.cli.tables import READERS, column_of
from services.contracts.inputs import InputSpec
from services.contracts.tasks import Kind

DETECTION_SIDE = 96  # a detector looks for things that are a small part of the picture
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
KINDS: dict[str, Kind] = {
    **dict.fromkeys(PICTURES, "image"),
    **dict.fromkeys((".txt", ".md"), "text"),
    **dict.fromkeys(READERS, "tabular"),
}
ANSWERS = ("classification", "multi-label", "detection")
TEMPLATE = """\
# What {name} learns, from which labels, and when. `halfsure apply {file}` puts it to the loop, and every change of it.
name: {name}
task: {task}

# Label schema: what annotators choose from, and what they are told about it.
labels: {labels}
guide: |
{guide}

# Policy: which samples people are asked about. Every field and rule: docs/policies.md
policy:
  strategy: uncertainty_coverage   # unsure, and unlike each other; the first round covers the data
  batch: 20                        # questions in a round
  audit: 1                         # of each round, one that the model is sure of: to find silent errors
  required_labels: 1               # people who answer each question

# Trainer: when a model is trained, what it has to be, and how. docs/training.md
trigger: {{n: 20, min_per_class: {least}}}   # after 20 new labels, once each class has {least}
gate: {{delta: 0.1}}                  # lower it as the evaluation set grows: about 3 / its size is the least that works
training: {{seed: 0}}

# How a sample becomes the model's input.
input: {input}
"""


@dataclass(frozen=True)
class Wanted:
    """What the user has said; the rest is seen from the data."""

    answer: str | None = None
    labels: tuple[str, ...] = ()
    label_column: str | None = None
    stream_column: str | None = None
    key_column: str | None = None
    window: int = 32


@dataclass(frozen=True)
class Seen:
    """What a project is about."""

    task: str
    labels: tuple[str, ...]
    input: InputSpec


def look(path: Path, wanted: Wanted) -> Seen:
    """The kind of the samples, their labels and their input. Raises DataProblem with what to say or to change."""
    if wanted.answer not in (None, *ANSWERS):
        raise DataProblem(f"there is no answer {wanted.answer!r}; there is {', '.join(ANSWERS)}")
    if not path.exists():
        raise DataProblem(f"there is nothing at {path}")
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    kinds = Counter(KINDS[file.suffix.lower()] for file in files if file.suffix.lower() in KINDS)
    if not kinds:
        raise DataProblem(f"{path} has no pictures ({' '.join(PICTURES)}), texts (.txt .md) or tables (.csv .jsonl)")
    kind = kinds.most_common(1)[0][0]
    answer = wanted.answer or "classification"
    if answer == "detection" and kind != "image":
        raise DataProblem(f"boxes are drawn on pictures; {path} has {kind} samples")
    if kind == "tabular":
        return _table(next(file for file in files if file.suffix.lower() in READERS), answer, wanted)
    labels = _enough(wanted.labels or _folders(path), answer)
    side = DETECTION_SIDE if answer == "detection" else SIDE
    spec = InputSpec.text() if kind == "text" else InputSpec.image(side, side, 3)
    return Seen(f"{kind}-{answer}", labels, spec)


def document(name: str, file: str, seen: Seen) -> str:
    """The project as YAML that explains itself."""
    import yaml

    spec = seen.input.model_dump(mode="json", exclude_defaults=True) | {"kind": seen.input.kind}
    return TEMPLATE.format(
        name=name,
        file=file,
        task=seen.task,
        labels=_line(yaml, list(seen.labels)),
        guide="\n".join(f"  {label}: say here what it is, and what it is not." for label in seen.labels[:20]),
        least=5 if len(seen.labels) <= 4 else 2,
        input=_line(yaml, spec),
    )


def _line(yaml: Any, value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6, allow_unicode=True).strip()


def _table(path: Path, answer: str, wanted: Wanted) -> Seen:
    rows = READERS[path.suffix.lower()](path)
    if not rows:
        raise DataProblem(f"{path} has no rows")
    names = [name for name in rows[0] if name]
    others = (wanted.label_column, wanted.stream_column, wanted.key_column)
    for name in others:
        if name is not None and name not in names:
            raise DataProblem(f"{path} has no column {name!r}; it has {', '.join(names)}")
    used = [column for name in names if name not in others and (column := column_of(name, rows))]
    if wanted.stream_column:
        used = [column for column in used if column.kind == "number"]
    if not used:
        raise DataProblem(f"{path} has no column of numbers, or of a few words")
    told = (
        {str(row[wanted.label_column]) for row in rows if row.get(wanted.label_column)} if wanted.label_column else ()
    )
    labels = _enough(wanted.labels or tuple(sorted(told)), answer)
    if wanted.stream_column:
        return Seen(f"series-{answer}", labels, InputSpec.series(wanted.window, used))
    return Seen(f"tabular-{answer}", labels, InputSpec.tabular(used))


def _folders(path: Path) -> tuple[str, ...]:
    """A folder for each class names the labels."""
    inner = [one for one in path.iterdir() if one.is_dir() and not one.name.startswith(".")] if path.is_dir() else []
    return tuple(sorted(one.name for one in inner))


def _enough(labels: Sequence[str], answer: str) -> tuple[str, ...]:
    least = 2 if answer == "classification" else 1
    if len(labels) < least:
        raise DataProblem("say what the labels are: --labels cat,dog" + ("" if least > 1 else " (one will do)"))
    return tuple(labels)
