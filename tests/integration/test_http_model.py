"""A model on somebody else's server, in a running stack: it scores, it goes and people stand in, it comes back."""

import base64
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from conftest import require_runtime, wait_until
from servers import described
from sources.processes import free_port
from stacks import run_file
from training import SPEC
from worlds import SPECS, png

from services.cli.rest import Refused, Rest
from services.cli.settings import StackSettings, default_root
from services.cli.stack import Stack

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

OFFSET = 5400
SERVER = default_root() / "examples" / "server" / "serve.py"


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    """Where infer is told that the server is."""
    found = free_port()
    eye = {"url": f"http://127.0.0.1:{found}/", "timeout_seconds": 1, "within_seconds": 3, "tries": 2}
    monkeypatch.setenv("HALFSURE_INFER_SERVERS", json.dumps({"eye": eye}))
    return found


@pytest.fixture
def server(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """The example of docs/models.md, as a process."""
    child = _started(port)
    yield child
    child.kill()
    child.wait()


async def test_a_server_scores_the_stream_and_people_stand_in_for_it(
    tmp_path: Path, port: int, server: subprocess.Popen[bytes]
) -> None:
    require_runtime()
    file = run_file(tmp_path, ("ingest", "infer", "select-uncertain", "label-queue", "retrain-trigger"))
    async with Stack(StackSettings(home=tmp_path / "home", run_file=file, port_offset=OFFSET)).running() as stack:
        rest = Rest(stack.url, stack.token, "default")
        await rest.post("retrain-trigger", "/v1/projects", json=SPEC)
        artefact, manifest = described(SPECS["image"], embedding=2)
        body = {"artefact": base64.b64encode(artefact).decode(), "manifest": manifest.model_dump(mode="json")}
        version = (await rest.post("retrain-trigger", "/v1/models", json=body))["version"]

        async def serves() -> bool:
            items = (await rest.get("infer", "/v1/loaded-models"))["items"]
            return [row["provider"] for row in items if row["version"] == version and row["active"]] == ["http:eye"]

        await wait_until(serves, 60)
        first = await _sent(stack, png(204))
        assert (await _told(rest, first, "predictions"))[0]["top"]["label"] == "bright"
        said = await rest.post("infer", "/v1/predict", json={"sample_id": first})
        assert said["predictions"][0]["probabilities"] == pytest.approx([0.2, 0.8], abs=0.02)
        server.kill()
        server.wait()
        second = await _sent(stack, png(51))

        async def asked() -> Any:
            tasks = (await rest.get("label-queue", "/v1/tasks"))["items"]
            return [row for row in tasks if row["sample_id"] == second]

        async def answers() -> bool:
            with contextlib.suppress(Refused):
                return bool(await rest.post("infer", "/v1/predict", json={"sample_id": second}))
            return False

        (task,) = await wait_until(asked, 60)
        assert "cannot be scored: server-silent" in str(task)
        again = _started(port)
        try:
            await wait_until(answers, 60)
            await rest.post("infer", "/v1/rescore", json={"model_version": version, "sample_ids": [second]})
            assert (await _told(rest, second, "predictions"))[0]["top"]["label"] == "dark"
        finally:
            again.kill()
            again.wait()


def _started(port: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, str(SERVER), str(port)], stderr=subprocess.DEVNULL)


async def _sent(stack: Stack, content: bytes) -> str:
    headers = {"authorization": f"Bearer {stack.token}", "content-type": "image/png"}
    async with httpx2.AsyncClient(base_url=stack.url("ingest"), headers=headers, timeout=30) as client:
        answer = await client.post("/v1/samples", content=content)
        assert answer.status_code == 201, answer.text
        return answer.json()["sample_id"]


async def _told(rest: Rest, sample: str, field: str) -> Any:
    """What ingest's record says of a sample, once it says it."""

    async def there() -> Any:
        return (await rest.get("ingest", f"/v1/samples/{sample}")).get(field)

    return await wait_until(there, 60)
