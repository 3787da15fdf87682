"""label-queue: exports and imports over REST, in every format, by revision and by snapshot."""

import base64
import io
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from conftest import Running, started
from crowd import LABELS, claim, project, selected, submit
from PIL import Image

from services.contracts.events import SampleWithdrawn
from services.contracts.ids import sha256, task_id
from services.contracts.inputs import InputSpec, TabularColumn
from services.label_queue.app import create
from services.label_queue.interchange import FORMATS

JPEG_OF_NOTHING = b"\xff\xd8"


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (4, 4), shade).save(file, "PNG")
    return file.getvalue()


async def upload(running: Running, content: bytes, **query: str) -> list[dict[str, Any]]:
    answer = await running.call("POST", "/v1/import", "operator", params=query, content=content)
    assert answer.status_code == 207, answer.text
    return answer.json()["results"]


def line(shade: int, value: str, **more: Any) -> bytes:
    row = {"data": base64.b64encode(png(shade)).decode(), "media_type": "image/png", "value": value, **more}
    return orjson.dumps(row) + b"\n"


@pytest.mark.parametrize("form", list(FORMATS))
async def test_an_export_imported_elsewhere_gives_the_same_labels(tmp_path: Path, form: str) -> None:
    async with started(create, tmp_path) as here:
        await here.deliver(project())
        rows = [line(shade, LABELS[shade % 3], split=("train", "evaluation")[shade % 2]) for shade in range(250)]
        assert {row["status"] for row in await upload(here, b"".join(rows))} == {201}
        answer = await here.call("GET", f"/v1/export?format={form}", "viewer")
        assert (answer.status_code, answer.headers["x-total-count"]) == (200, "250")
        assert answer.headers["content-type"] == FORMATS[form].media_type
        again = await here.call("GET", f"/v1/export?format={form}", "viewer")
        assert (again.content, again.headers["etag"]) == (answer.content, answer.headers["etag"])
        blobs = here.blobs.contents
        folder = tmp_path / "there"
        folder.mkdir()
        async with started(create, folder) as there:
            await there.deliver(project())
            if not FORMATS[form].packs:
                there.blobs.contents |= blobs
            assert {row["status"] for row in await upload(there, answer.content, format=form)} == {201}
            assert {row["status"] for row in await upload(there, answer.content, format=form)} == {200}
            theirs = await there.call("GET", "/v1/export", "viewer")
            ours = await here.call("GET", "/v1/export", "viewer")
            keys = ("sample_id", "value", "split", "sha256", "uri", "bytes")
            told = [
                [{key: row[key] for key in keys} for row in map(orjson.loads, x.text.splitlines())]
                for x in (theirs, ours)
            ]
            assert told[0] == told[1]
            assert theirs.headers["etag"] == ours.headers["etag"], "equal labels have an equal name"


async def test_a_revision_that_is_gone_is_a_409_and_comes_back_with_no_label(tmp_path: Path) -> None:
    async with started(create, tmp_path) as queue:
        await queue.deliver(project(), selected("smp_a"))
        await upload(queue, line(1, "cat"))
        first = await queue.call("GET", "/v1/export", "viewer")
        tag = first.headers["etag"]
        assert (await queue.call("GET", "/v1/export", "viewer", params={"revision": tag})).status_code == 200
        (task,) = await claim(queue)
        name = (await submit(queue, task)).json()["id"]
        gone = await queue.call("GET", "/v1/export", "viewer", params={"revision": tag})
        assert (gone.status_code, gone.json()["type"]) == (409, "urn:halfsure:problem:revision-gone")
        await queue.call("DELETE", f"/v1/annotations/{name}", "operator")
        back = await queue.call("GET", "/v1/export", "viewer", params={"revision": tag})
        assert (back.status_code, back.content) == (200, first.content)


async def test_labels_of_a_snapshot_are_those_that_the_run_had(tmp_path: Path) -> None:
    """Row D13: what was retracted since is in the old snapshot still, and not in what is exported now."""
    digest = sha256(png(1))
    content = {"uri": "blob:samples/default/a/b", "sha256": digest, "bytes": 3, "media_type": "image/png"}
    row = {"sample_id": "smp_a", "revision": 1, "label": "dog", "weight": 2.0, "content": content}
    manifest = {"project": "default", "labels": LABELS, "train": [row], "evaluation": [{**row, "sample_id": "smp_b"}]}

    def trigger(path: str, params: Any) -> Any:
        if path == "v1/snapshots/snp_1":
            return {"id": "snp_1", "uri": "blob:snapshots/default/x.json", "sha256": "f" * 64}
        raise KeyError(path)

    async with started(create, tmp_path, peers={"retrain-trigger": trigger}) as queue:
        await queue.deliver(project(), selected("smp_a"))
        missing = await queue.call("GET", "/v1/export?snapshot=snp_1", "viewer")
        assert (missing.status_code, missing.json()["type"]) == (409, "urn:halfsure:problem:snapshot-gone")
        await queue.blobs.put("snapshots/default/x.json", orjson.dumps(manifest))
        (task,) = await claim(queue)
        await submit(queue, task, "cat")
        for form in ("jsonl", "csv", "coco", "azureml", "label-studio"):
            answer = await queue.call("GET", f"/v1/export?snapshot=snp_1&format={form}", "viewer")
            assert (answer.status_code, answer.headers["etag"]) == (200, f'"{"f" * 64}"')
        rows = [orjson.loads(raw) for raw in (await queue.call("GET", "/v1/export?snapshot=snp_1")).text.splitlines()]
        assert [(r["sample_id"], r["value"], r["split"], r["weight"], r["label_revision"]) for r in rows] == [
            ("smp_a", "dog", "train", 2.0, 1),
            ("smp_b", "dog", "evaluation", 2.0, 1),
        ]
        assert (await queue.call("GET", "/v1/export?snapshot=snp_2", "viewer")).status_code == 404
        await queue.deliver(SampleWithdrawn(project="default", sample_id="smp_a", who="w", why="privacy"))
        gone = await queue.call("GET", "/v1/export?snapshot=snp_1", "viewer")
        assert (gone.status_code, "withdrawn" in gone.json()["detail"]) == (409, True)


async def test_formats_that_a_project_or_this_machine_cannot_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = InputSpec.tabular([TabularColumn(name="a")]).model_dump(mode="json")
    async with started(create, tmp_path) as queue:
        await queue.deliver(project(), project("table", task="tabular-classification", input=columns))
        refused = await queue.call("GET", "/v1/export?project=table&format=coco", "viewer")
        assert (refused.status_code, refused.json()["detail"]) == (
            406,
            "coco cannot carry tabular-classification; for this project there is jsonl, csv, parquet.",
        )
        rows = b"".join(orjson.dumps({"row": {"a": n}, "key": f"r{n}", "value": "cat"}) + b"\n" for n in range(3))
        assert (await queue.call("POST", "/v1/import?project=table", "operator", content=rows)).status_code == 207
        assert len((await queue.call("GET", "/v1/export?project=table&format=csv", "viewer")).text.splitlines()) == 4
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        for method, role in (("GET", "viewer"), ("POST", "operator")):
            path = "/v1/export" if method == "GET" else "/v1/import"
            refused = await queue.call(method, f"{path}?format=parquet", role)
            assert refused.status_code == 406
            assert "pip install 'halfsure[parquet]'" in refused.json()["detail"]


async def test_a_picture_in_an_archive_that_is_none_costs_itself_alone(tmp_path: Path) -> None:
    import zipfile

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("train/cat/good.png", png(1))
        archive.writestr("train/cat/bad.jpg", JPEG_OF_NOTHING)
        archive.writestr("val/dog/text.txt", b"hello")
        archive.writestr("val/cow/other.png", png(2))
        archive.writestr("val/dog/other.png", png(3))
    async with started(create, tmp_path) as queue:
        await queue.deliver(project())
        results = await upload(queue, file.getvalue(), format="yolo")
        assert [row["status"] for row in results] == [201, 422, 422, 422, 201]
        assert [row.get("split") for row in results] == ["train", None, None, None, "evaluation"]


async def test_content_that_is_gone_cuts_an_archive_short(tmp_path: Path) -> None:
    async with started(create, tmp_path) as queue:
        await queue.deliver(project())
        await upload(queue, line(1, "cat"))
        queue.blobs.contents.clear()
        with pytest.raises(Exception, match="gone"):
            await _raising(queue)


async def _raising(queue: Running) -> None:
    """The stream as the server sends it: a client would see the connection break."""
    import httpx2
    from conftest import TOKENS

    transport = httpx2.ASGITransport(app=queue.service.api, raise_app_exceptions=True)
    headers = {"authorization": f"Bearer {TOKENS['viewer']}"}
    async with httpx2.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:
        await client.get("/v1/export?format=yolo")


async def test_weight_and_policy_of_a_selection_reach_the_export(tmp_path: Path) -> None:
    """Row 2.12, as far as the queue is on the way: `weight` goes out with the label and with the table."""
    async with started(create, tmp_path) as queue:
        await queue.deliver(project(), selected("smp_a", weight=3.5))
        (task,) = await claim(queue)
        await submit(queue, task)
        (row,) = map(orjson.loads, (await queue.call("GET", "/v1/export", "viewer")).text.splitlines())
        assert row["weight"] == 3.5
        full = (await queue.call("GET", f"/v1/tasks/{task_id('default', 'smp_a')}", "reviewer")).json()
        assert (full["weight"], full["reasons"], full["round_id"]) == (3.5, ["margin"], "rnd_1")


async def test_while_people_label_new_samples_still_come_in(tmp_path: Path) -> None:
    """Rows 4.20 and 4.21: a lease holds one task alone, and the queue takes more meanwhile; none is ever evicted."""
    async with started(create, tmp_path) as queue:
        await queue.deliver(project())
        await queue.deliver_batch([selected(f"smp_{number}", priority=0.1) for number in range(30)])
        held = await claim(queue, 24, "ann")
        verdicts = await queue.deliver_batch([selected(f"smp_new_{number}", priority=0.9) for number in range(30)])
        assert set(verdicts) == {"SUCCESS"}
        first = await claim(queue, 1, "bob")
        assert first[0]["sample_id"].startswith("smp_new_")
        for task in held:
            assert (await submit(queue, task, "cat", "ann")).status_code == 201
