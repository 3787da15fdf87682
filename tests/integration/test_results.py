"""Row 4.18: examples/results as it stands, on the real runtime, hands results to a server by an output binding."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
from conftest import require_runtime, wait_until
from fastapi import Request, Response
from prometheus_client.parser import text_string_to_metric_families
from receiving import Hook, hooked

from services.cli.settings import StackSettings, default_root
from services.cli.stack import Stack
from services.contracts.envelope import CONTENT_TYPE, wrap
from services.contracts.events import Content, InferenceResult, PolicyRef, Top

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

OFFSET = 8500
EXAMPLE = default_root() / "examples" / "results"
TRIES = 11  # the first, and the retries of dapr/resiliency.yaml


class Target(Hook):
    """A server that never takes what is about the sample `refused`."""

    async def take(self, request: Request) -> Response:
        answer = await super().take(request)
        return Response(status_code=500) if self.samples()[-1] == "refused" else answer

    def samples(self) -> Sequence[str]:
        return [orjson.loads(body)["subject"] for _, body in self.calls]


def result(sample: str) -> InferenceResult:
    return InferenceResult(
        project="p",
        sample_id=sample,
        model_version="m1",
        policy=PolicyRef(id="default", version=1),
        content=Content(uri="file:///a", sha256="0" * 64, bytes=1, media_type="image/png"),
        top=Top(label="cat", confidence=0.97),
    )


class Results:
    """The running example: its sidecar to publish by, and what it has counted."""

    def __init__(self, stack: Stack) -> None:
        self._bus = f"http://127.0.0.1:{stack.ports['results_http']}/v1.0/publish/pubsub/inference-result"
        self._token = {"dapr-api-token": stack.secrets.dapr_api}
        self.url = stack.url("results")

    async def publish(self, body: bytes, kind: str = CONTENT_TYPE, query: str = "") -> None:
        async with httpx2.AsyncClient(headers=self._token, trust_env=False) as client:
            answer = await client.post(self._bus + query, content=body, headers={"content-type": kind})
        assert answer.status_code == 204, answer.text

    async def say(self, *samples: str) -> list[dict[str, Any]]:
        """Their events, in their envelopes."""
        envelopes = [
            wrap(result(name), siteid="test", service="select-uncertain", now=datetime.now(UTC)) for name in samples
        ]
        for envelope in envelopes:
            await self.publish(envelope)
        return [orjson.loads(envelope) for envelope in envelopes]

    async def counted(self) -> tuple[float, float]:
        """Forwarded and dropped."""
        async with httpx2.AsyncClient(trust_env=False) as client:
            text = (await client.get(f"{self.url}/metrics")).text
        values = {one.name: one.value for kind in text_string_to_metric_families(text) for one in kind.samples}
        return values["results_forwarded_total"], values["results_dropped_total"]


async def test_results_reach_a_server_and_what_it_never_takes_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_runtime()
    target = Target()
    async with hooked(target):
        monkeypatch.setenv("HALFSURE_RESULTS_URL", target.url)
        settings = StackSettings(home=tmp_path / "home", run_file=EXAMPLE / "dapr.yaml", port_offset=OFFSET)
        async with Stack(settings).running() as stack:
            results = Results(stack)

            async def count(forwarded: int, dropped: int) -> bool:
                return await results.counted() == (forwarded, dropped)

            (said,) = await results.say("first")
            await wait_until(lambda: count(1, 0), 60)
            ((headers, body),) = target.calls
            event = orjson.loads(body)
            assert (headers["ce-id"], headers["content-type"]) == (said["id"], "application/cloudevents+json")
            assert said.items() <= event.items(), "its data and all else; the sidecar adds to it"

            (refused,) = await results.say("refused")
            await wait_until(lambda: "refused" in target.samples(), 30)
            await results.say("second", "third")
            await wait_until(lambda: count(3, 0), 15)
            assert target.samples().count("refused") < TRIES, "others go by while it is tried"
            await wait_until(lambda: count(3, 1), 90)
            tries = [headers["ce-id"] for headers, body in target.calls if orjson.loads(body)["subject"] == "refused"]
            assert tries == [refused["id"]] * TRIES, "bounded, and each a repeat that can be told"

            await results.publish(b"no event", "text/plain", "?metadata.rawPayload=true")
            await wait_until(lambda: count(3, 2), 30)
            await results.say("last")
            await wait_until(lambda: count(4, 2), 30)

            forged = httpx2.post(f"{results.url}/events/dlq", json={}, trust_env=False)
            assert (forged.status_code, await results.counted()) == (401, (4, 2))
