"""Snapshots: an immutable training set with the evaluation set that goes with it, named by its own hash. Pure."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Self

import orjson
from pydantic import BaseModel, ConfigDict

from services.contracts.events import Content, SnapshotRef
from services.contracts.ids import digest, sha256
from services.contracts.values import classes_of
from services.retrain_trigger.entries import Entry, Schema, imported
from services.retrain_trigger.evaluation import evaluation_sha256


class Row(BaseModel):
    """One sample in a snapshot; `label` is its answer, as in `contracts/values.py`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sample_id: str
    revision: int
    label: str | list[str] | dict[str, Any]
    weight: float
    content: Content


class Manifest(BaseModel):
    """What a run trains on and is judged on; rows are sorted by sample id."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = 1
    project: str
    labels: tuple[str, ...]
    train: tuple[Row, ...]
    evaluation: tuple[Row, ...]
    evaluation_sha256: str
    erased: int = 0
    """Rows that were here, and whose samples were withdrawn after the run."""

    def encoded(self) -> bytes:
        """The canonical bytes; those of what was taken are what the snapshot's hash is of, whatever is erased later."""
        left_out = None if self.erased else {"erased"}
        return orjson.dumps(self.model_dump(mode="json", exclude=left_out), option=orjson.OPT_SORT_KEYS)

    def without(self, gone: Collection[str]) -> Self:
        """What is left when samples are erased."""
        parts = {"train": self.train, "evaluation": self.evaluation}
        kept = {part: tuple(row for row in rows if row.sample_id not in gone) for part, rows in parts.items()}
        erased = len(self.rows) - sum(map(len, kept.values()))
        return self.model_copy(update={**kept, "erased": self.erased + erased})

    @property
    def rows(self) -> dict[str, Row]:
        """All rows by sample id; no sample is in both parts."""
        return {row.sample_id: row for row in (*self.train, *self.evaluation)}


def without(content: bytes, gone: Collection[str]) -> bytes:
    """A stored manifest without some samples."""
    return Manifest.model_validate_json(content).without(gone).encoded()


def take(project: str, schema: Schema, entries: Iterable[Entry]) -> Manifest:
    """The manifest of what the labels are worth now; the same labels make the same bytes, in whatever order."""
    known = sorted(entries, key=lambda one: one.sample_id)
    brought = imported(known)
    parts: dict[str, list[Row]] = {"train": [], "evaluation": [], "none": []}
    for one in known:
        role, answer = one.role(schema, project, brought), schema.answer(one.value)
        if role != "none" and one.content is not None and answer is not None:
            parts[role].append(
                Row(
                    sample_id=one.sample_id,
                    revision=one.revision,
                    label=answer,
                    weight=one.weight if role == "train" else 1.0,
                    content=one.content,
                )
            )
    return Manifest(
        project=project,
        labels=tuple(schema.labels),
        train=tuple(parts["train"]),
        evaluation=tuple(parts["evaluation"]),
        evaluation_sha256=evaluation_sha256(parts["evaluation"]),
    )


def snapshot_id(project: str, sha: str) -> str:
    return f"snp_{digest(project, sha)}"


def blob_name(project: str, sha: str) -> str:
    return f"snapshots/{project}/{sha}.json"


def reference(manifest: Manifest, uri: str, new: int) -> SnapshotRef:
    """What events and workflow history carry of a snapshot; `new` labels are in no earlier one."""
    sha = sha256(manifest.encoded())
    counts = {"train": len(manifest.train), "evaluation": len(manifest.evaluation), "new": new}
    return SnapshotRef(id=snapshot_id(manifest.project, sha), sha256=sha, uri=uri, counts=counts)


def per_class(manifest: Manifest) -> dict[str, int]:
    """label -> samples to train on that have it."""
    found = Counter(label for row in manifest.train for label in classes_of(row.label))
    return {label: found[label] for label in manifest.labels}


def difference(old: Manifest, new: Manifest) -> Mapping[str, Any]:
    """Which samples came, went or have another revision, label or part since `old`."""
    before, after = old.rows, new.rows
    judged_before = {row.sample_id for row in old.evaluation}
    judged_after = {row.sample_id for row in new.evaluation}
    both = before.keys() & after.keys()
    changed = [
        name for name in both if before[name] != after[name] or (name in judged_before) != (name in judged_after)
    ]
    return {
        "added": sorted(after.keys() - before.keys()),
        "removed": sorted(before.keys() - after.keys()),
        "changed": sorted(changed),
        "evaluation_changed": old.evaluation_sha256 != new.evaluation_sha256,
    }
