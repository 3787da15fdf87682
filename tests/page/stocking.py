"""Projects for the page to show: made over REST as anybody makes them."""

import base64
import json
from collections.abc import Sequence
from typing import Any

from conftest import wait_until
from page.looking import World

from services.cli.rest import Rest
from services.contracts.inputs import InputSpec
from services.contracts.manifest import ModelManifest

Row = dict[str, Any]


async def project(world: World, name: str, task: str, labels: Sequence[str], spec: InputSpec, **more: Any) -> Rest:
    """The project, and the API as its token has it."""
    rest = world.rest(name)
    document = {"name": name, "task": task, "labels": list(labels), "input": spec.model_dump(mode="json"), **more}
    await rest.post("retrain-trigger", "/v1/projects", json=document)
    return rest


async def ingest(rest: Rest, bodies: Sequence[Row]) -> list[str]:
    """The samples' ids."""
    names: list[str] = []
    for start in range(0, len(bodies), 200):
        answer = await ndjson(rest, "ingest", "/v1/samples:batch", bodies[start : start + 200])
        names += [row["sample_id"] for row in answer["results"]]
    return names


async def imported(rest: Rest, bodies: Sequence[Row], split: str = "evaluation") -> list[str]:
    """Labels made elsewhere; the tasks that they are of."""
    answer = await ndjson(rest, "label-queue", "/v1/import", bodies, split=split)
    assert all(row["status"] == 201 for row in answer["results"]), answer
    return [row["task_id"] for row in answer["results"]]


async def answered(rest: Rest, said: Sequence[tuple[str, Any]], n: int) -> list[str]:
    """People, and what each says of the same `n` samples, one after another; the tasks."""
    tasks: list[str] = []
    for who, value in said:
        answer = await rest.post("label-queue", "/v1/tasks:claim", json={"annotator": who, "n": 24})
        claimed = {task["id"]: task for task in answer["tasks"]}
        tasks = tasks or list(claimed)[:n]
        for name, task in claimed.items():
            lease = {"annotator": who, "epoch": task["lease"]["epoch"]}
            path, more = (":release", {}) if name not in tasks else ("/annotations", {"value": value, "seconds": 1})
            await rest.post("label-queue", f"/v1/tasks/{name}{path}", json={**lease, **more})
    return tasks


async def bring(rest: Rest, content: bytes, manifest: ModelManifest) -> None:
    """A model that was made elsewhere, until it answers."""
    brought = {"artefact": base64.b64encode(content).decode(), "manifest": manifest.model_dump(mode="json")}
    await rest.post("retrain-trigger", "/v1/models", json=brought)

    async def serving() -> bool:
        return any(one["active"] for one in (await rest.get("infer", "/v1/loaded-models"))["items"])

    await wait_until(serving, 60)


def inline(content: bytes, media_type: str, **more: Any) -> Row:
    return {"data": base64.b64encode(content).decode(), "media_type": media_type, **more}


async def queued(rest: Rest, n: int, seconds: float = 180) -> None:
    """Until so many tasks wait."""

    async def there() -> bool:
        return (await rest.get("label-queue", "/v1/stats"))["queued"] >= n

    await wait_until(there, seconds)


async def ndjson(rest: Rest, app_id: str, path: str, rows: Sequence[Row], **params: str) -> Any:
    content = "\n".join(json.dumps(row) for row in rows).encode()
    return await rest.post(
        app_id, path, content=content, params=params, headers={"content-type": "application/x-ndjson"}
    )
