"""The sources in a whole stack: folder, camera and command on real Dapr and Redis; ingest is killed meanwhile."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
import yaml
from conftest import require_runtime, wait_until
from sources.camera import PASSWORD, USER, Camera
from sources.processes import free_port, require_rtsp, rtsp_server
from worlds import SPECS, png

from services.cli.settings import StackSettings
from services.cli.stack import Stack

OFFSET = 17_000
PROJECT = {
    "name": "yard",
    "task": "image-classification",
    "labels": ["day", "night"],
    "input": SPECS["image"].model_dump(mode="json"),
}
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not os.environ.get("HALFSURE_REQUIRE_RTSP"), reason="a whole stack: `make test-sources` runs it"
    ),
]


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two sources, as ingest is told by its environment: (the folder, the RTSP server's port, the camera)."""
    require_runtime()
    require_rtsp()
    port, inbox, secret = free_port(), tmp_path / "inbox", tmp_path / "password"
    inbox.mkdir()
    secret.write_text(PASSWORD)
    with Camera({"p1": f"rtsp://127.0.0.1:{port}/cam"}) as camera:
        quick = {"project": "yard", "reconnect": {"first": 0.1, "longest": 0.5}}
        login = {"username": USER, "password_file": str(secret)}
        rows = [
            {"name": "drop", "kind": "folder", "path": str(inbox), "settle_seconds": 0.2, **quick},
            {"name": "gate", "kind": "onvif", "url": camera.address, "rate": 4, "timeout_seconds": 2, **login, **quick},
        ]
        file = tmp_path / "sources.yaml"
        file.write_text(yaml.safe_dump({"sources": rows}))
        monkeypatch.setenv("HALFSURE_INGEST_SOURCES", str(file))
        yield inbox, port


async def test_sources_feed_the_loop_and_come_back_after_a_kill(tmp_path: Path, sources: Any) -> None:
    inbox, port = sources
    for n in range(60):
        (inbox / f"{n}.png").write_bytes(png(n, 1))
    with rtsp_server(port, USER, PASSWORD):
        async with Stack(StackSettings(home=tmp_path / "home", port_offset=OFFSET)).running() as stack:
            headers = {"authorization": f"Bearer {stack.token}"}
            async with httpx2.AsyncClient(headers=headers, timeout=30) as client:

                async def get(app_id: str, path: str) -> Any:
                    return (await client.get(stack.url(app_id) + path, params={"project": "yard"})).json()

                async def view(name: str) -> dict[str, Any]:
                    rows = {row["name"]: row for row in (await get("ingest", "/v1/sources"))["items"]}
                    return rows[name]

                assert "There is no project" in (await view("drop"))["reason"]
                made = await client.post(stack.url("retrain-trigger") + "/v1/projects", json=PROJECT)
                assert made.status_code == 201, made.text

                async def flow() -> bool:
                    return (await view("gate"))["taken"] > 3 and (await view("drop"))["taken"] == 60

                await wait_until(flow, 60)
                stack.kill("ingest")
                for n in range(60, 120):
                    (inbox / f"{n}.png").write_bytes(png(n, 1))
                await stack.wait_ready("ingest", 60)

                async def back() -> bool:
                    return (await view("gate"))["taken"] > 3 and (await view("drop"))["taken"] == 60

                await wait_until(back, 60)
                folder = await client.get(
                    stack.url("ingest") + "/v1/samples", params={"project": "yard", "stream": "drop", "limit": 500}
                )
                assert len(folder.json()["items"]) == 120
                assert (await get("ingest", "/v1/stats"))["duplicates"] <= 100  # what was stored and not yet noted
                # By the command, without an address: it finds the stack, and knows what is there.
                command = (
                    sys.executable,
                    "-m",
                    "services.cli.main",
                    "ingest",
                    str(inbox),
                    "--project",
                    "yard",
                    "--json",
                )
                environment = {**os.environ, "HALFSURE_HOME": str(tmp_path / "home")}
                environment["HALFSURE_PORT_OFFSET"] = str(OFFSET)
                child = await asyncio.create_subprocess_exec(*command, stdout=-1, env=environment)
                said = (await child.communicate())[0].decode()
                assert '"new": 0, "known": 120' in said, said

                async def scored() -> bool:
                    return (await get("select-uncertain", "/v1/stats"))["seen"] >= 120

                await wait_until(scored, 60)
                # Told to stop while a stream is read, ingest is gone within ten seconds.
                process, began = psutil.Process(stack.pid("ingest")), time.monotonic()
                process.send_signal(signal.SIGTERM)
                await wait_until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, 10)
                print(f"ingest ended {time.monotonic() - began:.1f} s after SIGTERM")
