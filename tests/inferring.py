"""A running infer for tests: models to serve, samples to score, questions to ask."""

import base64
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from conftest import Running, started, wait_until
from worlds import NOON, classifier, packaged, project, stored

from services.contracts.events import Content, ModelActivated, SampleIngested
from services.contracts.ids import sha256
from services.infer.app import create

Story = list[tuple[str, dict[str, Any]]]


@contextlib.asynccontextmanager
async def inferring(tmp_path: Path, **kwargs: Any) -> AsyncIterator[Running]:
    async with started(create, tmp_path, **kwargs) as running:
        await running.deliver(await project(running.blobs))
        yield running


async def samples(running: Running, contents: Sequence[bytes], name: str = "default") -> list[SampleIngested]:
    events = []
    for content in contents:
        digest = sha256(content)
        claim = await stored(running.blobs, f"samples/{name}/{digest[:2]}/{digest}", content, "image/png")
        event = {"project": name, "sample_id": f"smp_{digest[:26]}", "content": claim, "captured_at": NOON}
        events.append(SampleIngested.model_validate(event))
    return events


async def model(running: Running, sharpness: float = 8.0) -> dict[str, Content]:
    return await packaged(running.blobs, "default", *classifier(sharpness))


def activated(source: Mapping[str, Content], version: str = "mdl_1", epoch: int = 1) -> ModelActivated:
    return ModelActivated(project="default", version=version, activation_epoch=epoch, **source)


async def serve(running: Running, source: Mapping[str, Content], version: str = "mdl_1", epoch: int = 1) -> None:
    """Activate, and wait until it answers."""
    assert await running.deliver(activated(source, version, epoch)) == ["SUCCESS"]
    await wait_until(lambda: serving(running, version))


async def serving(running: Running, version: str) -> bool:
    items = (await running.call("GET", "/v1/loaded-models")).json()["items"]
    return [row["version"] for row in items if row["active"]] == [version]


async def ask(running: Running, *contents: bytes, **more: Any) -> Any:
    inputs = [{"data": base64.b64encode(content).decode(), "media_type": "image/png"} for content in contents]
    return await running.call("POST", "/v1/predict", role="viewer", json={"inputs": inputs, **more})


def of(kind: type, story: Story) -> list[dict[str, Any]]:
    return [envelope["data"] for _, envelope in story if envelope["type"] == kind.type]
