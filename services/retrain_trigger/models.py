"""What is known of a model version, and what it is in its project now. Pure."""

from collections.abc import Mapping
from typing import Any

from services.contracts.events import Content
from services.contracts.problem import Problem
from services.retrain_trigger.evaluation import main_value, metric_of


def pointer_key(project: str) -> str:
    return f"ptr:active:{project}"


def index_key(project: str) -> str:
    return f"mdl:index:{project}"


def model_key(version: str) -> str:
    return f"mdl:{version}"


def previous_of(pointer: Mapping[str, Any]) -> str | None:
    """What a roll-back would bring back."""
    return pointer["history"][-2] if len(pointer["history"]) > 1 else None


def no_pointer() -> dict[str, Any]:
    """What serves in a project without a model; `history` ends with the version that serves, `served` has them all."""
    return {"version": None, "epoch": 0, "history": [], "served": []}


def new_record(
    project: str, version: str, artefact: Content, manifest: Content, *, at: str, lineage: Mapping[str, Any]
) -> dict[str, Any]:
    """A candidate nobody has judged yet."""
    return {
        "version": version,
        "project": project,
        "artefact": artefact.model_dump(),
        "manifest": manifest.model_dump(),
        "lineage": dict(lineage),
        "metrics": None,
        "evaluation_sha256": None,
        "gate": None,
        "loads": {},
        "gone": None,
        "created_at": at,
    }


def view(record: Mapping[str, Any], pointer: Mapping[str, Any]) -> dict[str, Any]:
    """What is shown of a model: its record and its state now."""
    shown = {name: value for name, value in record.items() if not name.startswith("_")}
    share = share_of(record["version"], pointer)
    return {
        **shown,
        "state": state_of(record, pointer),
        "labels": labels_of(record["version"], pointer),
        "share": share,
    }


def labels_of(version: str, pointer: Mapping[str, Any]) -> list[str]:
    """The names by which a version is known: champion, previous, shadow."""
    named = {"champion": pointer["version"], "previous": previous_of(pointer), "shadow": pointer.get("shadow")}
    return [label for label, one in named.items() if one == version]


def share_of(version: str, pointer: Mapping[str, Any]) -> float:
    """The version's share of the traffic, 0..1."""
    share = pointer.get("share", 1.0)
    if version == pointer["version"]:
        return share
    return 1.0 - share if version == previous_of(pointer) else 0.0


def acknowledged(
    record: Mapping[str, Any], pointer: Mapping[str, Any], before: Mapping[str, Any] | None
) -> dict[str, list[str]] | None:
    """Which replicas of infer serve the champion by its last activation, and which are known and have not said so.

    Known are those that loaded the previous version; a replica that was removed since waits for ever. None of another
    version.
    """
    if record["version"] != pointer["version"]:
        return None
    loads = record["loads"]
    serve = {who for who, one in loads.items() if one["epoch"] == pointer["epoch"] and one["outcome"] == "loaded"}
    known = set(loads) | (set(before["loads"]) if before else set())
    return {"serving": sorted(serve), "waiting": sorted(known - serve)}


def state_of(record: Mapping[str, Any], pointer: Mapping[str, Any]) -> str:
    """ACTIVE, PREVIOUS, SHADOW, ARCHIVED, REJECTED or CANDIDATE."""
    version, gate = record["version"], record["gate"]
    if pointer["version"] == version:
        return "ACTIVE"
    if previous_of(pointer) == version:
        return "PREVIOUS"
    if pointer.get("shadow") == version:
        return "SHADOW"
    if version in pointer["served"]:
        return "ARCHIVED"
    return "CANDIDATE" if gate is None or gate["promote"] else "REJECTED"


def compared(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """Two models on the same evaluation set. Raises a 409 problem when there is none."""
    if not a["evaluation_sha256"] or a["evaluation_sha256"] != b["evaluation_sha256"]:
        detail = "The two were judged on different evaluation sets, so their numbers say nothing about each other."
        raise Problem(409, "different-evaluation-sets", detail)
    return {
        "evaluation_sha256": a["evaluation_sha256"],
        "a": {"version": a["version"], "metrics": a["metrics"]},
        "b": {"version": b["version"], "metrics": b["metrics"]},
        "metric": metric_of(a["metrics"]),
        "difference": main_value(a["metrics"]) - main_value(b["metrics"]),
    }
