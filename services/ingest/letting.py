"""The record of what was let go for room: what is being erased, and counts by project and reason. Pure."""

from collections.abc import Mapping
from typing import Any

EMPTY: dict[str, Any] = {"going": {}, "counts": {}, "bytes": {}}


def uris(record: Mapping[str, Any]) -> list[str]:
    """What is to be erased of a sample: its content, and what was put into the store for it."""
    source = record["source"]
    uploads = [source] if source is not None and source.partition(":")[2].startswith("uploads/") else []
    return [record["content"]["uri"], *uploads]


def settled(buffer: Mapping[str, Any], erased: set[str]) -> dict[str, Any]:
    """The record with those counted whose content is gone, and no longer named."""
    counts = {project: dict(row) for project, row in buffer["counts"].items()}
    sizes = dict(buffer["bytes"])
    for name, (reason, size) in buffer["going"].items():
        if name in erased:
            project = name.partition("/")[0]
            row = counts.setdefault(project, {})
            row[reason] = row.get(reason, 0) + 1
            sizes[project] = sizes.get(project, 0) + size
    rest = {name: row for name, row in buffer["going"].items() if name not in erased}
    return {**buffer, "going": rest, "counts": counts, "bytes": sizes}
