"""Snapshots: an immutable training set with the evaluation set that goes with it, named by its own hash. Pure."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict

from services.contracts.events import Content, SnapshotRef
from services.contracts.ids import digest, sha256
from services.retrain_trigger.entries import Entry, imported


class Row(BaseModel):
    """One sample in a snapshot."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sample_id: str
    revision: int
    label: str
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

    def encoded(self) -> bytes:
        """The canonical bytes, which the snapshot's hash is of."""
        return orjson.dumps(self.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)

    @property
    def rows(self) -> dict[str, Row]:
        """All rows by sample id; no sample is in both parts."""
        return {row.sample_id: row for row in (*self.train, *self.evaluation)}


def take(project: str, labels: Sequence[str], entries: Iterable[Entry]) -> Manifest:
    """The manifest of what the labels are worth now; the same labels make the same bytes, in whatever order."""
    known = sorted(entries, key=lambda one: one.sample_id)
    brought = imported(known)
    parts: dict[str, list[Row]] = {"train": [], "evaluation": [], "none": []}
    for one in known:
        role = one.role(labels, project, brought)
        if role != "none" and one.content is not None:
            parts[role].append(
                Row(
                    sample_id=one.sample_id,
                    revision=one.revision,
                    label=one.value,
                    weight=one.weight if role == "train" else 1.0,
                    content=one.content,
                )
            )
    return Manifest(
        project=project,
        labels=tuple(labels),
        train=tuple(parts["train"]),
        evaluation=tuple(parts["evaluation"]),
        evaluation_sha256=evaluation_sha256(parts["evaluation"]),
    )


def evaluation_sha256(rows: Iterable[Row]) -> str:
    """The hash that pins an evaluation set: of its sample ids and labels, as the trainer reports it."""
    lines = sorted(f"{row.sample_id}\t{row.label}" for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


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
    """label -> samples to train on."""
    found = Counter(row.label for row in manifest.train)
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
