"""A stack of one probe service on the real Dapr runtime and Redis, shared by a module's tests."""

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
import yaml
from conftest import require_runtime

from services.cli.profiles import Profile
from services.cli.settings import StackSettings, default_root
from services.cli.stack import Stack

# Files run side by side (xdist): a range for each worker.
OFFSET = 1400 + 500 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
BULK = {"enabled": True, "maxMessagesCount": 200, "maxAwaitDurationMs": 50}


def subscription(topic: str) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "pubsubname": "pubsub",
        "topic": topic,
        "metadata": {"rawPayload": "true"},
        "routes": {"default": f"/events/{topic.removesuffix('-probe')}"},
        "bulkSubscribe": BULK,
    }
    if topic != "dlq-probe":
        spec["deadLetterTopic"] = "dlq-probe"
    return {
        "apiVersion": "dapr.io/v2alpha1",
        "kind": "Subscription",
        "metadata": {"name": f"probe.{topic}"},
        "spec": spec,
        "scopes": ["probe"],
    }


def probe_run_file(folder: Path, program: Path | None = None) -> Path:
    """A run file of the probe alone, with the project's own components, resiliency and configuration."""
    root = default_root()
    (folder / "dapr").mkdir()
    for name in ("config.yaml", "resiliency.yaml"):
        (folder / "dapr" / name).write_text((root / "dapr" / name).read_text())
    topics = ["sample-withdrawn", "sample-discarded", "dlq-probe"]
    (folder / "dapr" / "subscriptions.yaml").write_text(yaml.safe_dump_all([subscription(t) for t in topics]))
    common = yaml.safe_load((root / "dapr" / "dapr.yaml").read_text())["common"]
    app = {
        "appID": "probe",
        "appDirPath": str(root),
        "appPort": 8101,
        "daprHTTPPort": 8201,
        "daprGRPCPort": 8301,
        "metricsPort": 8401,
        "daprInternalGRPCPort": 8501,
        "command": ["python", str(program or Path(__file__).with_name("probe.py"))],
        "env": {"PYTHONPATH": str(root)},
    }
    common["resourcesPaths"] = [str(root / "components" / "local"), "."]
    (folder / "dapr" / "dapr.yaml").write_text(yaml.safe_dump({"version": 1, "common": common, "apps": [app]}))
    return folder / "dapr" / "dapr.yaml"


class Probe:
    """The running probe and its stack."""

    def __init__(self, stack: Stack, client: httpx2.AsyncClient) -> None:
        self.stack = stack
        self.client = client

    async def withdraw(self, *names: str, who: str = "w") -> None:
        answer = await self.client.post("/v1/withdraw", json={"names": names, "who": who})
        assert answer.status_code == 200, answer.text

    async def counts(self) -> dict[str, Any]:
        try:
            answer = await self.client.get("/v1/counts")
        except httpx2.HTTPError:
            return {"total": -1, "relayed": {}, "heard": []}
        return answer.json() if answer.status_code == 200 else {"total": -1, "relayed": {}, "heard": []}


@pytest.fixture(scope="session")
def probe_stack() -> Any:
    """`probe_run_file`, for a stack around another program; skips without the Dapr runtime."""
    require_runtime()
    return probe_run_file


@contextlib.asynccontextmanager
async def probing(folder: Path, profile: Profile, offset: int = OFFSET) -> AsyncIterator[Probe]:
    """The probe on a profile's components."""
    run_file = probe_run_file(folder)
    settings = StackSettings(profile=profile, home=folder / "home", run_file=run_file, port_offset=offset)
    async with Stack(settings).running() as stack:
        headers = {"authorization": f"Bearer {stack.token}"}
        async with httpx2.AsyncClient(base_url=stack.url("probe"), headers=headers, timeout=30) as client:
            yield Probe(stack, client)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def probe(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Probe]:
    require_runtime()
    async with probing(tmp_path_factory.mktemp("probe"), "local") as running:
        yield running
