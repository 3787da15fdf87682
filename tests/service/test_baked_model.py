"""infer with a model in its image: served without the blob store, and refused when it is not what it says it is."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import started, wait_until
from worlds import classifier, packaged, project

from services.contracts.events import ModelActivated
from services.infer.app import create
from services.infer.artefacts import WrongModel
from services.infer.settings import InferSettings


@pytest.fixture
def baked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the image has it."""
    folder = tmp_path / "baked"
    folder.mkdir()
    content, manifest = classifier()
    (folder / "model.onnx").write_bytes(content)
    (folder / "manifest.json").write_text(manifest.model_dump_json())
    monkeypatch.setenv("HALFSURE_INFER_BAKED", str(folder))
    assert InferSettings().baked == folder
    return folder


async def test_what_the_image_carries_need_not_be_fetched(tmp_path: Path, baked: Path) -> None:
    async with started(create, tmp_path) as running:
        await running.deliver(await project(running.blobs))
        source = await packaged(running.blobs, "default", *classifier())
        for part in source.values():
            await running.blobs.delete(part.uri)
        event = ModelActivated(project="default", version="mdl_1", activation_epoch=1, **source)
        assert await running.deliver(event) == ["SUCCESS"]

        async def serves() -> bool:
            rows = (await running.call("GET", "/v1/loaded-models")).json()["items"]
            return [row["version"] for row in rows if row["active"]] == ["mdl_1"]

        await wait_until(serves)


def other_bytes(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(classifier(2.0)[0])


def other_hash(folder: Path) -> None:
    described: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**described, "sha256": "0" * 64}))


def no_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def no_json(folder: Path) -> None:
    (folder / "manifest.json").write_text("{")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (other_bytes, "but its manifest says"),
        (other_hash, f"but its manifest says {'0' * 64}"),
        (no_manifest, "holds model.onnx alone"),
        (no_json, "is no model manifest"),
    ],
)
async def test_infer_refuses_to_start_with_another_model(tmp_path: Path, baked: Path, spoil: Any, words: str) -> None:
    """Row 0.7: the process ends, and says why."""
    spoil(baked)
    with pytest.raises(WrongModel, match=words):
        async with started(create, tmp_path):
            pass
