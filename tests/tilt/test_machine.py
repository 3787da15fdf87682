"""Tilt without a cluster: the services by `dapr run`, the buttons, and an honest end."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from conftest import wait_until

from services.cli.settings import default_root

pytestmark = [pytest.mark.loop, pytest.mark.timeout(600)]

PORT = 10_399
INGEST, LABELS, TRIGGER = (f"http://127.0.0.1:{port}" for port in (8101, 8104, 8105))


def test_tilt_ci_ends_well_when_every_service_is_ready(tilt: Callable[..., Any]) -> None:
    done = tilt("ci", "--port", str(PORT), "--timeout", "240s", "--", "--on", "machine")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "All workloads are healthy" in done.stdout


def test_tilt_ci_fails_when_a_service_is_broken(tilt: Callable[..., Any]) -> None:
    done = tilt("ci", "--port", str(PORT), "--timeout", "90s", "--", "--on", "machine", HALFSURE_INFER_CHUNK="many")
    assert done.returncode == 1, done.stdout[-4000:] + done.stderr[-2000:]
    assert "infer" in done.stdout.splitlines()[-1] + done.stderr or "unable to parse" in done.stdout


async def test_the_buttons_close_the_loop(binary: Path, environment: dict[str, str], tmp_path: Path) -> None:
    """Samples are sent, questions answered, a model trained: by what Tilt's page would press."""
    with (tmp_path / "tilt.log").open("w") as log:
        command = [str(binary), "up", "--stream", "--port", str(PORT), "--", "--on", "machine"]
        up = await asyncio.create_subprocess_exec(*command, cwd=default_root(), env=environment, stdout=log, stderr=log)
        try:
            async with httpx2.AsyncClient(trust_env=False, timeout=10) as client:
                await _press(client)
        finally:
            up.send_signal(signal.SIGINT)
            await asyncio.wait_for(up.wait(), 60)


async def _press(client: httpx2.AsyncClient) -> None:
    tilt = f"http://127.0.0.1:{PORT}"

    async def answer(url: str, **params: Any) -> Any:
        try:
            found = await client.get(url, params=params, headers=client.headers)
        except httpx2.HTTPError:
            return {}
        return found.json() if found.status_code == 200 else {}

    async def ready() -> bool:
        return all([(await answer(f"{url}/readyz")).get("ready") for url in (INGEST, LABELS, TRIGGER)])

    async def press(button: str) -> None:
        body = {"manifest_names": [button], "build_reason": 16}
        assert (await client.post(f"{tilt}/api/trigger", json=body)).status_code == 200

    await wait_until(ready, 180)
    assert (await client.get(tilt)).status_code == 200, "there is a page"
    token = (default_root() / ".halfsure" / "token").read_text().strip()
    client.headers["authorization"] = f"Bearer {token}"

    await press("send samples")

    async def asked() -> int:
        return (await answer(f"{LABELS}/v1/stats", project="digits")).get("asked", 0)

    await wait_until(asked, 60)
    await press("play the annotator")

    async def accepted() -> int:
        return (await answer(f"{LABELS}/v1/stats", project="digits")).get("accepted", 0)

    await wait_until(accepted, 60)
    await press("retrain")

    async def trained() -> bool:
        runs = (await answer(f"{TRIGGER}/v1/runs", project="digits")).get("items", [])
        return any(run["state"] == "SUCCEEDED" for run in runs)

    await wait_until(trained, 120)
