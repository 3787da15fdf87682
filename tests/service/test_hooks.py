"""What looks at content before it is stored: redaction, refusal, downscaling; nothing is stored past it."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import started
from PIL import Image
from worlds import png, project, stored

from services.contracts.ids import sample_id, sha256
from services.ingest.app import create
from services.ingest.hooks import UnknownHook

EXAMPLE = Path(__file__).parents[2] / "examples" / "hook"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example as pip would install it."""
    site = tmp_path / "site"
    info = site / "halfsure_example_hook-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: halfsure-example-hook\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(
        "[halfsure.ingest_hooks]\nblack-corner = black_corner:redact\nbroken = black_corner:nothing\n"
    )
    (site / "black_corner.py").write_text(
        (EXAMPLE / "black_corner.py").read_text() + "\n\ndef nothing(content, media_type):\n    return 1 / 0\n"
    )
    monkeypatch.syspath_prepend(site)
    sys.modules.pop("black_corner", None)


def test_the_example_is_short() -> None:
    lines = [line for line in (EXAMPLE / "black_corner.py").read_text().splitlines() if line.strip()]
    assert len(lines) < 20


async def test_what_is_stored_is_redacted_and_what_is_refused_is_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: None
) -> None:
    monkeypatch.setenv("HALFSURE_INGEST_HOOKS", '["black-corner"]')
    async with started(create, tmp_path) as running:
        await running.deliver(await project(running.blobs))
        picture, white = png(200), png(255, corner=255)
        kind = {"content-type": "image/png"}
        answer = await running.call("POST", "/v1/samples", content=picture, headers=kind)
        assert answer.status_code == 201
        record = answer.json()
        raw = await running.blobs.get(record["content"]["uri"])
        pixels = np.asarray(Image.open(io.BytesIO(raw)))
        assert (pixels[4:, 4:] == 0).all()
        assert pixels[1, 1] == 200
        assert record["content"]["sha256"] == sha256(raw) != sha256(picture)
        assert record["sample_id"] == sample_id("default", sha256(raw))
        again = await running.call("POST", "/v1/samples", content=picture, headers=kind)
        assert (again.status_code, again.json()["sample_id"]) == (200, record["sample_id"])
        refused = await running.call("POST", "/v1/samples", content=white, headers=kind)
        assert (refused.status_code, refused.json()["type"]) == (403, "urn:halfsure:problem:hook-refused")
        assert "nothing is to be seen" in refused.json()["detail"]
        upload = await stored(running.blobs, "uploads/default/x", picture, "image/png")
        claim = {"content": {"uri": upload.uri, "sha256": upload.sha256}}
        claimed = await running.call("POST", "/v1/samples", json=claim)
        assert claimed.json()["sample_id"] == record["sample_id"]
        assert not {picture, white} & set(running.blobs.contents.values())
        assert (await running.call("GET", "/v1/stats")).json()["rejected"] == {"policy": 1}


async def test_a_hook_that_fails_stores_nothing_and_one_that_is_missing_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: None
) -> None:
    monkeypatch.setenv("HALFSURE_INGEST_HOOKS", '["broken"]')
    async with started(create, tmp_path) as running:
        await running.deliver(await project(running.blobs))
        answer = await running.call("POST", "/v1/samples", content=png(1), headers={"content-type": "image/png"})
        assert answer.status_code == 503
        assert png(1) not in running.blobs.contents.values()
    monkeypatch.setenv("HALFSURE_INGEST_HOOKS", '["redact-faces"]')
    with pytest.raises(UnknownHook, match="redact-faces"):
        async with started(create, tmp_path):
            pass


async def test_large_pictures_are_made_smaller_before_they_are_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HALFSURE_INGEST_HOOKS", '["downscale"]')
    monkeypatch.setenv("HALFSURE_INGEST_DOWNSCALE_SIDE", "64")
    pixels = np.random.default_rng(5).integers(0, 256, (240, 320), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    async with started(create, tmp_path) as running:
        await running.deliver(await project(running.blobs))
        answer = await running.call(
            "POST", "/v1/samples", content=file.getvalue(), headers={"content-type": "image/jpeg"}
        )
        assert answer.status_code == 201
        raw = await running.blobs.get(answer.json()["content"]["uri"])
        picture = Image.open(io.BytesIO(raw))
        assert (picture.size, picture.format) == ((64, 48), "JPEG")
        assert len(raw) < len(file.getvalue()) // 10
        small = await running.call("POST", "/v1/samples", content=png(3), headers={"content-type": "image/png"})
        assert small.json()["content"]["sha256"] == sha256(png(3))
