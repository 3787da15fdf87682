"""RTSP and recordings (rows 4.10, 4.14, 4.28): a real RTSP server, GStreamer's; ONVIF's camera points to it."""

import io
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sources.camera import PASSWORD, USER, Camera
from sources.feeding import Feeding, eventually, feeding, real_time
from sources.processes import free_port, require_rtsp, rtsp_server

real_stream = pytest.fixture(require_rtsp, name="real_stream")


def gate(port: int, **more: Any) -> dict[str, Any]:
    return {"name": "gate", "kind": "rtsp", "url": f"rtsp://127.0.0.1:{port}/cam", "timeout_seconds": 2, **more}


async def until(feed: Feeding, **wanted: Any) -> dict[str, Any]:
    async def so() -> Any:
        view = await feed.source("gate")
        return view if all(view[name] == value for name, value in wanted.items()) else None

    return await eventually(so)


async def brought(feed: Feeding, count: int) -> dict[str, Any]:
    async def so() -> Any:
        view = await feed.source("gate")
        return view if view["taken"] + view["duplicates"] >= count else None

    return await eventually(so)


@pytest.mark.usefixtures("real_stream")
async def test_frames_come_at_the_cap_and_again_after_the_server_was_away(tmp_path: Path, monkeypatch: Any) -> None:
    port = free_port()
    async with feeding(tmp_path, monkeypatch, gate(port, rate=5, tags=["yard"])) as feed:
        view = await eventually(lambda: failed(feed))
        assert "Connection refused" in view["reason"]
        with rtsp_server(port):
            await until(feed, state="connected")
            await brought(feed, 1)
            began, before = time.monotonic(), await feed.source("gate")
            await brought(feed, before["taken"] + 10)
            seconds, view = time.monotonic() - began, await feed.source("gate")
            assert view["taken"] - before["taken"] <= 5 * seconds + 2  # at most the cap, and a burst
            assert view["dropped"]["rate"] > 2 * view["taken"]  # 25 frames a second came
            assert view["last_seen"]
        lost = await eventually(lambda: failed(feed))
        count = lost["taken"]
        with rtsp_server(port):
            view = await until(feed, state="connected")
            assert view["reconnects"] >= 1
            await brought(feed, count + 3)
        record = (await feed.samples())[0]
        assert (record["content"]["media_type"], record["tags"], record["stream_id"]) == (
            "image/jpeg",
            ["yard"],
            "gate",
        )
        content = await feed.running.blobs.get((await feed.ingested())[0]["content"]["uri"])
        assert Image.open(io.BytesIO(content)).size == (160, 120)


async def failed(feed: Feeding) -> Any:
    view = await feed.source("gate")
    return view if view["state"] == "retrying" else None


@pytest.mark.usefixtures("real_stream")
async def test_a_capture_by_hand_is_the_next_frame(tmp_path: Path, monkeypatch: Any) -> None:
    port = free_port()
    async with feeding(tmp_path, monkeypatch, gate(port, rate=0.01, format="png")) as feed:
        refused = await feed.running.call("POST", "/v1/sources/gate:capture")
        assert refused.status_code == 409
        assert refused.json()["title"] == "not connected"
        with rtsp_server(port):
            await brought(feed, 1)
            answer = await feed.running.call("POST", "/v1/sources/gate:capture")
            assert answer.status_code == 201, answer.text
            body = answer.json()
            assert (body["trigger"], body["content"]["media_type"]) == ("manual", "image/png")
            triggers = [event["trigger"] for event in await feed.ingested()]
            assert sorted(triggers) == ["manual", "policy"]


@pytest.mark.usefixtures("real_stream")
async def test_a_stop_ends_a_stream_soon(tmp_path: Path, monkeypatch: Any) -> None:
    port = free_port()
    with rtsp_server(port):
        async with feeding(tmp_path, monkeypatch, gate(port, rate=5)) as feed:
            await brought(feed, 2)
            began = time.monotonic()
        assert time.monotonic() - began < 4


@pytest.mark.usefixtures("real_stream")
async def test_a_camera_found_by_onvif_feeds_frames_and_no_secret_is_said(tmp_path: Path, monkeypatch: Any) -> None:
    port, secret = free_port(), tmp_path / "password"
    secret.write_text(PASSWORD)
    with rtsp_server(port, USER, PASSWORD), Camera({"p1": f"rtsp://127.0.0.1:{port}/cam"}) as camera:
        source = {
            "name": "gate",
            "kind": "onvif",
            "endpoint": camera.endpoint,
            "interface": "127.0.0.1",
            "username": USER,
            "password_file": str(secret),
            "rate": 5,
            "timeout_seconds": 2,
        }
        async with feeding(tmp_path, monkeypatch, source) as feed:
            view = await brought(feed, 3)
            assert (view["kind"], view["place"]) == ("onvif", camera.endpoint)
            secret.write_text("wrong")
            await feed.running.call("GET", "/v1/sources")
        async with feeding(tmp_path, monkeypatch, source, ports=real_time()) as feed:
            view = await eventually(lambda: failed(feed))
            assert "refuses user and password" in view["reason"]
        async with feeding(
            tmp_path, monkeypatch, {**gate(port), "username": USER, "password_file": str(secret)}
        ) as feed:
            view = await eventually(lambda: failed(feed))
            assert "401" in view["reason"]
            assert "wrong" not in str(view)


def record(path: Path, seconds: int = 4, rate: int = 10) -> None:
    """A recording: Motion JPEG in an AVI file, each frame another grey."""
    import av
    import numpy as np

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for n in range(seconds * rate):
            pixels = np.full((48, 64, 3), 5 * n % 250, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


async def test_a_recording_is_taken_once_and_its_rest_after_a_restart(tmp_path: Path, monkeypatch: Any) -> None:
    path, ports = tmp_path / "tape.avi", real_time()
    record(path)
    source = {"name": "gate", "kind": "video", "path": str(path), "rate": 2}
    async with feeding(tmp_path, monkeypatch, source, ports=ports) as feed:
        view = await until(feed, state="ended")
        assert (view["taken"], view["duplicates"], view["reason"]) == (8, 0, None)
        assert [row["sequence"] for row in await feed.samples()] == [3500, 3000, 2500, 2000, 1500, 1000, 500, 0]
    async with feeding(tmp_path, monkeypatch, source, ports=ports) as feed:
        view = await until(feed, state="ended")
        assert (view["taken"], view["duplicates"]) == (0, 0)
    # A crash between storing and noting: what was stored is known, the rest is taken.
    (tmp_path / "sources" / "gate.sqlite").unlink()
    async with feeding(tmp_path, monkeypatch, {**source, "rate": 4}, ports=ports) as feed:
        view = await until(feed, state="ended")
        assert (view["taken"], view["duplicates"]) == (8, 8)


@pytest.mark.parametrize(
    ("content", "words"), [(b"no video at all", "Invalid data"), (None, "No such file"), (b"", "Invalid data")]
)
async def test_what_is_no_recording_is_said(tmp_path: Path, monkeypatch: Any, content: Any, words: str) -> None:
    path = tmp_path / "tape.mp4"
    if content is not None:
        path.write_bytes(content)
    async with feeding(tmp_path, monkeypatch, {"name": "gate", "kind": "video", "path": str(path)}) as feed:
        view = await eventually(lambda: failed(feed))
        assert words in view["reason"]


async def test_a_recording_cut_short_gives_what_is_whole_of_it(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "tape.avi"
    record(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    async with feeding(tmp_path, monkeypatch, {"name": "gate", "kind": "video", "path": str(path), "rate": 2}) as feed:
        view = await until(feed, state="ended")
        assert 1 <= view["taken"] < 8


async def test_a_playlist_leads_nowhere(tmp_path: Path, monkeypatch: Any) -> None:
    """A file that calls itself a list of other places is not followed to the network."""
    path = tmp_path / "tape.m3u8"
    path.write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/secret.ts\n#EXT-X-ENDLIST\n")
    async with feeding(tmp_path, monkeypatch, {"name": "gate", "kind": "video", "path": str(path)}) as feed:
        view = await eventually(lambda: failed(feed))
        assert view["reason"]


async def test_a_recording_of_too_many_pixels_is_not_decoded(tmp_path: Path, monkeypatch: Any) -> None:
    from services.ingest.sources import frames

    monkeypatch.setattr(frames, "MAX_PIXELS", 64 * 48 - 1)
    record(tmp_path / "tape.avi")
    source = {"name": "gate", "kind": "video", "path": str(tmp_path / "tape.avi")}
    async with feeding(tmp_path, monkeypatch, source) as feed:
        view = await eventually(lambda: failed(feed))
        assert "max_pixels" in view["reason"]
        assert view["taken"] == 0
