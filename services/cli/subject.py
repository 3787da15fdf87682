"""All that is kept of one data subject: of the samples that a tag or an attribute names, what every service has.

A subject is whom samples are about; halfsure knows them by what whoever brought the samples said of them.
"""

import json
import mimetypes
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from services.cli.rest import Refused, Rest
from services.contracts.ids import task_id

GONE = (404, 410)
# Of a task: what was answered about the sample, and not who said so, which is about somebody else.
ANSWERED = ("state", "value", "label_revision", "agreement", "split", "created_at", "changed_at")


class NoSubject(Exception):
    """Nothing says whose data is meant, or there is none."""


async def samples(rest: Rest, where: Mapping[str, str]) -> list[dict[str, Any]]:
    """The records of the subject's samples. Raises NoSubject when there are none."""
    found = await rest.everything("ingest", "/v1/samples", **where)
    living = [row for row in found if row["state"] != "WITHDRAWN"]
    if not living:
        raise NoSubject(f"no samples have {', '.join(f'{name} {value}' for name, value in where.items())}")
    return living


async def collected(rest: Rest, project: str, where: Mapping[str, str]) -> dict[str, Any]:
    """What there is of the subject, service by service, without the contents."""
    rows = await samples(rest, where)
    used = await _used(rest, {row["sample_id"] for row in rows})
    told = [{**await _of(rest, project, row), "trained": used.get(row["sample_id"], [])} for row in rows]
    return {"project": project, "where": dict(where), "samples": told}


async def export(rest: Rest, project: str, where: Mapping[str, str], file: Path) -> dict[str, int]:
    """Write a zip: `subject.json`, and the contents by sample id. It is there when it is whole, or not at all."""
    found, contents = await collected(rest, project, where), 0
    draft = file.with_name(f".{file.name}.draft")
    try:
        with zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("subject.json", json.dumps(found, indent=1))
            for row in found["samples"]:
                if raw := await _content(rest, row["sample"]):
                    archive.writestr(_name(row["sample"]), raw)
                    contents += 1
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)
    return {"samples": len(found["samples"]), "contents": contents}


async def erase(rest: Rest, where: Mapping[str, str], reason: str) -> int:
    """Withdraw every sample of the subject; how many there were."""
    rows = await samples(rest, where)
    for row in rows:
        await rest.call("DELETE", "ingest", f"/v1/samples/{row['sample_id']}", json={"reason": reason})
    return len(rows)


async def _of(rest: Rest, project: str, row: Mapping[str, Any]) -> dict[str, Any]:
    name = row["sample_id"]
    task = await _if_there(rest, "label-queue", f"/v1/tasks/{task_id(project, name)}")
    story = await _if_there(rest, "ingest", f"/v1/samples/{name}/history")
    return {
        "sample": dict(row),
        "history": _unnamed((story or {}).get("events", [])),
        "decision": await _if_there(rest, "select-uncertain", f"/v1/decisions/{name}"),
        "label": {key: task[key] for key in ANSWERED if key in task} if task else None,
    }


def _unnamed(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The events without who labelled."""
    return [{**one, "data": {k: v for k, v in one["data"].items() if k not in ("annotator", "who")}} for one in events]


async def _used(rest: Rest, names: set[str]) -> dict[str, list[dict[str, str]]]:
    """Sample -> the runs whose snapshots have it, and the models that came of them."""
    used: dict[str, list[dict[str, str]]] = {}
    for run in await rest.everything("retrain-trigger", "/v1/runs"):
        snapshot = run["snapshot"]["id"]
        content = await _if_there(rest, "retrain-trigger", f"/v1/snapshots/{snapshot}/content") or {}
        rows = [row["sample_id"] for part in ("train", "evaluation") for row in content.get(part, [])]
        for name in names & set(rows):
            used.setdefault(name, []).append(
                {"run": run["run_id"], "snapshot": snapshot, "model": run["model_version"]}
            )
    return used


async def _content(rest: Rest, row: Mapping[str, Any]) -> bytes | None:
    try:
        async with rest.stream("ingest", f"/v1/samples/{row['sample_id']}/content") as answer:
            return await answer.aread()
    except Refused as refused:
        if refused.status not in GONE:
            raise
        return None  # let go for room


def _name(row: Mapping[str, Any]) -> str:
    ending = mimetypes.guess_extension(row["content"]["media_type"]) or ""
    return f"contents/{row['sample_id']}{ending}"


async def _if_there(rest: Rest, app_id: str, path: str) -> Any | None:
    try:
        return await rest.get(app_id, path)
    except Refused as refused:
        if refused.status not in GONE:
            raise
        return None
