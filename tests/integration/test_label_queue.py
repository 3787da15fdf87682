"""Two replicas of label-queue on a real sidecar and Redis: what etags promise there, many hands at once."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import started
from crowd import crowd, project, selected
from dapr.conf import settings as dapr_settings

from services.contracts.events import LabelAccepted
from services.label_queue.app import create
from services.runtime.dapr_ports import DaprState, connect
from services.runtime.memory import MemoryBlobs, MemoryBus, MemoryPeers, SystemClock
from services.runtime.ports import Ports

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]


async def test_32_annotators_on_two_replicas_over_redis_take_every_task_once(
    probe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = 11
    print(f"seed {seed}")
    monkeypatch.setenv("HALFSURE_LABEL_QUEUE_REFRESH_SECONDS", "0.2")
    ports = probe.stack.ports
    dapr_settings.DAPR_HTTP_ENDPOINT = f"http://127.0.0.1:{ports['probe_http']}"
    dapr_settings.DAPR_GRPC_ENDPOINT = f"127.0.0.1:{ports['probe_grpc']}"
    dapr_settings.DAPR_API_TOKEN = probe.stack.secrets.dapr_api
    client = await connect()
    shared = Ports(DaprState(client, "statestore"), MemoryBus(), MemoryBlobs(), SystemClock(), MemoryPeers())
    names = [f"smp_{number}" for number in range(300)]
    async with (
        started(create, tmp_path, ports=shared, replica=40) as one,
        started(create, tmp_path, ports=shared, replica=41) as two,
    ):
        await one.deliver(project())
        await one.deliver_batch([selected(name) for name in names[:180]])
        await two.deliver_batch([selected(name) for name in names[120:]])
        answered, leases = await crowd([one, two], random.Random(seed), annotators=32)
        assert set(leases.values()) == {1}, "a lease was given twice"
        assert answered == Counter(dict.fromkeys(names, 1))
        await two.service.outbox.drain()
        accepted = [e["data"]["sample_id"] for _, e in await one.published() if e["type"] == LabelAccepted.type]
        assert Counter(accepted) == answered
    async with started(create, tmp_path, ports=shared, replica=40) as again:
        counts = (await again.call("GET", "/v1/stats")).json()
        assert (counts["accepted"], counts["open"], counts["asked"]) == (300, 0, 300)
    await client.close()
