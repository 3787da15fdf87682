"""Sources on memory ports: folders, bindings, who reads what, and what is said about it."""

import asyncio
import contextlib
import io
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import SIDECAR_TOKEN
from PIL import Image
from sources.feeding import eventually, feeding, real_time
from worlds import png

from services.contracts.ids import sample_id, sha256
from services.contracts.preprocessing import MAX_PIXELS
from services.ingest.sources import lease
from services.runtime.errors import Conflict
from services.runtime.ports import CREATE, Put


def folder(path: Path, **more: Any) -> dict[str, Any]:
    path.mkdir(exist_ok=True)
    return {"name": "drop", "kind": "folder", "path": str(path), "settle_seconds": 0.1, **more}


async def taken(feed: Any, count: int, name: str = "drop", project: str = "default") -> dict[str, Any]:
    async def there() -> Any:
        view = await feed.source(name, project)
        return view if view["taken"] + view["duplicates"] >= count else None

    return await eventually(there)


async def test_files_are_taken_when_whole_and_once_over_restarts(tmp_path: Path, monkeypatch: Any) -> None:
    inbox, ports = tmp_path / "inbox", real_time()
    source = folder(inbox, tags=["dock"], stream_id="cam-1", device_id="box-7")
    (inbox / "before.png").write_bytes(png(1))
    async with feeding(tmp_path, monkeypatch, source, ports=ports) as feed:
        await taken(feed, 1)
        (inbox / "deep").mkdir()
        (inbox / "deep" / "after.png").write_bytes(png(2))
        (inbox / ".hidden.png").write_bytes(png(3))
        (inbox / "note.txt").write_text("no sample")
        (inbox / "again.png").write_bytes(png(1))
        # Written in two parts, with a rest between them that is shorter than a whole file's.
        half = png(4)
        with (inbox / "slow.png").open("wb") as file:
            file.write(half[:30])
            file.flush()
            await asyncio.sleep(0.02)
            file.write(half[30:])
        view = await taken(feed, 4)
        assert (view["taken"], view["duplicates"], view["refused"]) == (3, 1, {})
        assert (view["state"], view["reason"], view["place"]) == ("connected", None, str(inbox))
        samples = {row["sample_id"]: row for row in await feed.samples()}
        assert set(samples) == {sample_id("default", sha256(png(n))) for n in (1, 2, 4)}
        row = samples[sample_id("default", sha256(png(2)))]
        assert (row["stream_id"], row["tags"], row["trigger"]) == ("cam-1", ["dock"], "policy")
        assert (row["attributes"], row["device_id"]) == ({"file": "deep/after.png"}, "box-7")
        assert len(await feed.ingested()) == 3
    (inbox / "while-down.png").write_bytes(png(5))
    async with feeding(tmp_path, monkeypatch, source, ports=ports) as feed:
        view = await taken(feed, 1)
        assert (view["taken"], view["duplicates"]) == (1, 0)
    (tmp_path / "sources" / "drop.sqlite").unlink()
    async with feeding(tmp_path, monkeypatch, source, ports=ports) as feed:
        view = await taken(feed, 5)
        assert (view["taken"], view["duplicates"]) == (0, 5)
        assert len(await feed.samples()) == 4


async def test_each_source_is_counted_and_seen_for_itself(tmp_path: Path, monkeypatch: Any) -> None:
    """Row 4.28: by REST and for Prometheus; one of two has brought something, the other has only been looked at."""
    busy, idle = folder(tmp_path / "busy", name="busy"), folder(tmp_path / "idle", name="idle")
    for number in (1, 1, 2):
        (tmp_path / "busy" / f"{len(list((tmp_path / 'busy').iterdir()))}.png").write_bytes(png(number))
    began = datetime.now(UTC)
    async with feeding(tmp_path, monkeypatch, busy, idle) as feed:
        view, other = await taken(feed, 3, "busy"), await feed.source("idle")
        assert (view["taken"], view["duplicates"], other["taken"]) == (2, 1, 0)
        assert began <= datetime.fromisoformat(view["last_seen"]) <= datetime.now(UTC)
        text = (await feed.running.call("GET", "/metrics")).text
        for outcome, count in (("taken", 2), ("duplicate", 1)):
            assert f'halfsure_source_samples_total{{outcome="{outcome}",source="busy"}} {count}.0' in text
        (seen,) = re.findall(r'^halfsure_source_last_seen_seconds{source="busy"} (\S+)$', text, re.MULTILINE)
        assert float(seen) >= began.timestamp()
        assert 'halfsure_source_samples_total{outcome="taken",source="idle"}' not in text


async def test_what_cannot_be_a_sample_is_refused_once_and_says_why(tmp_path: Path, monkeypatch: Any) -> None:
    """Bounded decoding: a bomb, half a file, wrong magic bytes, too many bytes, and a link out of the folder."""
    inbox = tmp_path / "inbox"
    source = folder(inbox, after="delete")
    side = int(MAX_PIXELS**0.5) + 1
    bomb = io.BytesIO()
    Image.new("1", (side, side)).save(bomb, "PNG")
    (tmp_path / "secret.png").write_bytes(png(9))
    os.symlink(tmp_path / "secret.png", inbox / "link.png")
    wrong = {
        "bomb.png": bomb.getvalue(),
        "half.png": png(1)[:40],
        "text.jpg": b"not a picture",
        "empty.png": b"",
        "large.png": b"\x89PNG\r\n\x1a\n" + bytes(40_000),
    }
    for name, content in wrong.items():
        (inbox / name).write_bytes(content)
    (inbox / "good.png").write_bytes(png(2))
    async with feeding(tmp_path, monkeypatch, source, max_body=30_000) as feed:

        async def judged() -> Any:
            view = await feed.source("drop")
            return view if sum(view["refused"].values()) + view["taken"] >= 6 else None

        view = await eventually(judged)
        assert view["taken"] == 1
        assert view["refused"] == {"invalid": 2, "media-type": 2, "unreadable": 1}
        assert view["last_refusal"]["detail"]
        await eventually(lambda: not (inbox / "good.png").exists())
        assert {path.name for path in inbox.iterdir()} == {*wrong, "link.png"}
        # Mended, it is taken.
        (inbox / "half.png").write_bytes(png(1))
        await taken(feed, 2)
    assert len(bomb.getvalue()) < 30_000


async def test_a_table_is_taken_row_by_row(tmp_path: Path, monkeypatch: Any) -> None:
    inbox = tmp_path / "inbox"
    source = folder(inbox, project="table")
    content = b"a,b\n1,2\n3,4\nx,5\n1,2\n"
    (inbox / "rows.csv").write_bytes(content)
    (inbox / "more.jsonl").write_text('{"a": 1, "b": 2}\n{"a": 5, "b": 6}\n')
    async with feeding(tmp_path, monkeypatch, source) as feed:
        view = await taken(feed, 5, project="table")
        assert (view["taken"], view["refused"]) == (5, {"invalid": 1})
        assert sample_id("table", f"{sha256(content)}:3") in {row["sample_id"] for row in await feed.samples("table")}


async def test_the_rate_cap_paces_a_folder_and_loses_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    inbox = tmp_path / "inbox"
    source = folder(inbox, rate=20)
    for n in range(30):
        (inbox / f"{n}.png").write_bytes(png(n))
    async with feeding(tmp_path, monkeypatch, source) as feed:
        began = datetime.now(UTC)
        await taken(feed, 30)
        assert (datetime.now(UTC) - began).total_seconds() > 0.3
        assert (await feed.source("drop"))["dropped"] == {}


async def test_a_folder_that_comes_later_is_found(tmp_path: Path, monkeypatch: Any) -> None:
    source = {"name": "drop", "kind": "folder", "path": str(tmp_path / "later"), "settle_seconds": 0.1}
    async with feeding(tmp_path, monkeypatch, source) as feed:

        async def tried() -> Any:
            view = await feed.source("drop")
            return view if view["reconnects"] > 1 else None

        view = await eventually(tried)
        assert f"there is no folder {tmp_path / 'later'}" in view["reason"]
        (tmp_path / "later").mkdir()
        (tmp_path / "later" / "a.png").write_bytes(png(1))
        await taken(feed, 1)
        assert (await feed.ready())["ready"]


async def test_a_store_that_is_away_loses_no_file(tmp_path: Path, monkeypatch: Any) -> None:
    from services.ingest.sources import door
    from services.runtime.errors import Unavailable

    monkeypatch.setattr(door, "AGAIN_SECONDS", 0.1)
    inbox = tmp_path / "inbox"
    async with feeding(tmp_path, monkeypatch, folder(inbox)) as feed:
        await asyncio.sleep(0.02)
        commit = feed.running.state.commit

        async def broken(ops: Any) -> None:
            raise Unavailable("switched off")

        feed.running.state.commit = broken  # type: ignore[method-assign]
        (inbox / "a.png").write_bytes(png(1))

        async def waits() -> bool:
            view = await feed.source("drop")
            return (view["state"], view["reason"]) == ("waiting", "switched off")

        await eventually(waits)
        feed.running.state.commit = commit  # type: ignore[method-assign]
        view = await taken(feed, 1)
        assert view["taken"] == 1
        assert len(await feed.ingested()) == 1


async def test_one_replica_reads_a_source_and_another_takes_over(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(lease, "SECONDS", 0.3)
    inbox, ports, key = tmp_path / "inbox", real_time(), lease.key("drop")
    (inbox.parent / "inbox").mkdir()
    (inbox / "a.png").write_bytes(png(1))
    said = {"name": "drop", "state": "connected", "taken": 7, "duplicates": 0}

    async def another_has_it(seconds: float) -> None:
        held = (await ports.state.get([key])).get(key)
        until = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
        with contextlib.suppress(Conflict):
            put = Put(key, {"holder": "7", "until": until, "view": said}, held.etag if held else CREATE)
            await ports.state.commit([put])

    await another_has_it(60)
    async with feeding(tmp_path, monkeypatch, folder(inbox), ports=ports) as feed:

        async def told() -> bool:
            return await feed.source("drop") == said

        await eventually(told)
        assert (await feed.samples()) == []
        await another_has_it(0)  # it has been silent for too long

        async def took_over() -> bool:
            view = await feed.source("drop")
            return (view["state"], view["taken"]) == ("connected", 1)

        await eventually(took_over)

        async def lost() -> bool:  # and loses it again: it stops reading
            await another_has_it(60)
            return await feed.source("drop") == said

        await eventually(lost)
    async with feeding(tmp_path, monkeypatch, {**folder(inbox), "name": "other"}, ports=ports) as feed:
        await taken(feed, 1, "other")
    # A replica that stops says so, and is not waited for.
    record = (await ports.state.get([lease.key("other")]))[lease.key("other")].value
    assert datetime.fromisoformat(record["until"]) <= datetime.now(UTC)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sources: [{name: gate, kind: rtsp, url: 'rtsp://x/', rate: fast}]", "source 1 (gate): rate: Input should be"),
        ("sources: [", "neither YAML nor TOML"),
    ],
)
async def test_a_bad_file_leaves_ingest_not_ready_with_a_sentence(
    tmp_path: Path, monkeypatch: Any, text: str, words: str
) -> None:
    async with feeding(tmp_path, monkeypatch) as feed:
        assert (await feed.ready())["ready"]
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    from conftest import started

    from services.ingest.app import create

    monkeypatch.setenv("HALFSURE_INGEST_SOURCES", str(file))
    async with started(create, tmp_path) as running:
        answer = await running.client.get("/readyz")
        assert answer.status_code == 503
        assert words in answer.json()["reasons"]["sources"]
        assert (await running.call("GET", "/v1/sources")).json()["items"] == []


async def test_a_source_whose_library_is_missing_says_what_to_install(tmp_path: Path, monkeypatch: Any) -> None:
    from services.ingest.sources import kinds

    def absent(name: str) -> Any:
        raise ModuleNotFoundError("No module named 'av'", name="av")

    monkeypatch.setattr(kinds.importlib, "import_module", absent)
    async with feeding(tmp_path, monkeypatch, {"name": "gate", "kind": "rtsp", "url": "rtsp://127.0.0.1:1/x"}) as feed:

        async def ended() -> Any:
            view = await feed.source("gate")
            return view if view["state"] == "ended" else None

        view = await eventually(ended)
        assert view["reason"] == "a source of kind rtsp needs the library av: pip install 'halfsure[sources]'"
        assert (await feed.ready())["ready"]


async def test_any_input_binding_feeds_a_project(tmp_path: Path, monkeypatch: Any) -> None:
    source = {"name": "queue", "kind": "binding", "component": "orders", "project": "table", "trigger": "backfill"}
    async with feeding(tmp_path, monkeypatch, source) as feed:

        async def sent(payload: bytes, token: str = SIDECAR_TOKEN) -> int:
            headers = {"dapr-api-token": token, "content-type": "application/json"}
            return (await feed.running.client.post("/orders", content=payload, headers=headers)).status_code

        assert await sent(b'{"a": 1, "b": 2}') == 200
        assert await sent(b'{"b": 2, "a": 1}') == 200
        assert await sent(b'{"a": NaN}') == 200
        assert await sent(b"no row") == 200
        assert await sent(b'{"a": 1, "b": 2}', "another token") == 401

        async def connected() -> Any:
            view = await feed.source("queue", "table")
            return view if view["state"] == "connected" else None

        view = await eventually(connected)
        assert (view["state"], view["place"]) == ("connected", "dapr:orders")
        assert (view["taken"], view["duplicates"], view["refused"]) == (1, 1, {"json": 2})
        (data,) = await feed.ingested()
        assert (data["stream_id"], data["trigger"]) == ("queue", "backfill")
        letters = (await feed.running.call("GET", "/v1/deadletters")).json()["items"]
        assert {letter["topic"] for letter in letters} == {"orders"}
        assert len(letters) == 2


async def test_the_binding_of_a_project_that_nobody_knows(tmp_path: Path, monkeypatch: Any) -> None:
    source = {"name": "queue", "kind": "binding", "component": "orders", "project": "nowhere"}
    async with feeding(tmp_path, monkeypatch, source) as feed:
        answer = await feed.running.client.post("/orders", content=b"x", headers={"dapr-api-token": SIDECAR_TOKEN})
        assert answer.status_code == 200
        assert (await feed.source("queue", "nowhere"))["refused"] == {"dropped": 1}
        letters = (await feed.running.call("GET", "/v1/deadletters")).json()["items"]
        assert "There is no project 'nowhere'." in str(letters)


async def test_who_may_see_and_do_what(tmp_path: Path, monkeypatch: Any) -> None:
    async with feeding(tmp_path, monkeypatch, folder(tmp_path / "inbox")) as feed:
        call = feed.running.call
        assert (await feed.running.client.get("/v1/sources")).status_code == 401
        assert [row["name"] for row in (await call("GET", "/v1/sources", role="viewer")).json()["items"]] == ["drop"]
        assert (await call("GET", "/v1/sources?project=table")).json()["items"] == []
        assert (await call("GET", "/v1/sources/drop?project=table")).status_code == 404
        assert (await call("GET", "/v1/sources/none")).status_code == 404
        assert (await call("POST", "/v1/sources/drop:capture", role="viewer")).status_code == 403
        refused = await call("POST", "/v1/sources/drop:capture")
        assert (refused.status_code, refused.json()["title"]) == (409, "not live")
        (tmp_path / "inbox" / "a.png").write_bytes(png(1))
        await taken(feed, 1)
        metrics = (await call("GET", "/metrics")).text
        assert 'halfsure_source_samples_total{outcome="taken",source="drop"}' in metrics
        assert 'halfsure_source_connected{source="drop"} 1.0' in metrics
        assert 'halfsure_source_last_seen_seconds{source="drop"}' in metrics


async def test_a_manual_capture_is_a_sample_with_that_trigger(tmp_path: Path, monkeypatch: Any) -> None:
    """Row 4.14: capture by hand is ingest with the trigger `manual`."""
    async with feeding(tmp_path, monkeypatch) as feed:
        headers = {"content-type": "image/png", "x-halfsure-trigger": "manual", "x-halfsure-stream": "cam-1"}
        answer = await feed.running.call("POST", "/v1/samples", content=png(1), headers=headers)
        assert (answer.status_code, answer.json()["trigger"]) == (201, "manual")
        headers["x-halfsure-trigger"] = "perhaps"
        assert (await feed.running.call("POST", "/v1/samples", content=png(2), headers=headers)).status_code == 422
        (data,) = await feed.ingested()
        assert (data["trigger"], data["stream_id"]) == ("manual", "cam-1")


async def test_http_and_broker_give_the_same_state(tmp_path: Path, monkeypatch: Any) -> None:
    """Row 2.1: a telemetry sample is the same record and the same event, whichever way it comes."""
    rows: list[dict[str, Any]] = []
    events: list[dict[str, Any]] = []
    for way in ("http", "sensors", "binding"):
        source = {"name": "scale", "kind": "binding", "component": "scale", "project": "table"}
        (tmp_path / way).mkdir()
        async with feeding(tmp_path / way, monkeypatch, source) as feed:
            token = {"dapr-api-token": SIDECAR_TOKEN}
            if way == "http":
                body = {"row": {"b": 2, "a": 1.5}, "stream_id": "scale"}
                answer = await feed.running.call("POST", "/v1/samples?project=table", json=body)
                assert answer.status_code == 201
            else:
                path, topic = ("/sensors", "halfsure/table/scale") if way == "sensors" else ("/scale", "")
                content = b'{"a": 1.5, "b": 2}'
                await feed.running.client.post(path, content=content, headers={**token, "topic": topic})
            (record,) = await feed.samples("table")
            (event,) = await feed.ingested()
            counts = (await feed.running.call("GET", "/v1/stats?project=table")).json()
            assert counts["states"]["STORED"] == 1
            for row in (record, event):
                row.pop("captured_at")  # the moment of arrival
            record.pop("stored_at")
            rows.append(record)
            events.append(event)
    assert rows[0] == rows[1] == rows[2]
    assert events[0] == events[1] == events[2]
