"""No secret in a log: planted in settings, requests, addresses and errors, and looked for in all that is written."""

import logging
from pathlib import Path
from typing import Any

import pytest
from conftest import SIDECAR_TOKEN, TOKENS
from filled import APPS, filled, operations
from report import count
from roles import BODIES

from services.runtime import telemetry

pytestmark = pytest.mark.usefixtures("brisk")
PLANTED = "planted-5f9c1e-secret"
STREAM = "/v1/events"


def planted_in(method: str, path: str) -> list[dict[str, Any]]:
    """Requests that carry the secret, each in another place."""
    body = {**BODIES.get((method, path), {}), "password": PLANTED}
    good = {"authorization": f"Bearer {TOKENS['admin']}"}
    return [
        {"headers": {"authorization": f"Bearer {PLANTED}"}},
        {"headers": {"authorization": f"Basic {PLANTED}"}},
        {"headers": {**good, "cookie": f"session={PLANTED}", "x-api-key": PLANTED, "idempotency-key": PLANTED}},
        {"headers": good, "params": {"token": PLANTED, "sig": PLANTED}},
        {"headers": good, "json": body},
        {"headers": {"dapr-api-token": PLANTED}},
        {"headers": {**good, "content-type": "application/json"}, "content": f'{{"token": "{PLANTED}'},
    ]


@pytest.mark.parametrize("app", APPS)
async def test_no_secret_is_in_a_log(
    app: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HALFSURE_RETRAIN_TRIGGER_WEBHOOK_SECRET", f"whsec_{PLANTED}")
    root = logging.getLogger()
    kept, root.handlers = root.handlers, []
    telemetry.configure("test", "debug")
    try:
        async with filled(app, tmp_path, monkeypatch) as one:
            await _everything(one)
            await _broken(one, monkeypatch)
    finally:
        root.handlers = kept
        telemetry.configure("test", "warning")
    written = "".join(capfd.readouterr())
    assert "request failed" in written, "an error with the secret in it was logged"
    secrets = [PLANTED, SIDECAR_TOKEN, *TOKENS.values(), "other-token"]
    found = [line for line in written.splitlines() if any(secret in line for secret in secrets)]
    count("secrets_in_logs", len(found), app)
    assert found == []


async def _everything(one: Any) -> None:
    for method, path in operations(one.running.service):
        if path == STREAM:
            continue
        for how in planted_in(method, path):
            await one.running.client.request(method, one.path(path), **how)
    await one.running.client.post("/events/project", headers={"dapr-api-token": PLANTED}, json={"data": PLANTED})
    envelope = {"specversion": "1.0", "id": "x", "type": "io.halfsure.project.updated.v1", "password": PLANTED}
    await one.running.deliver_raw("project", [envelope, f"token={PLANTED}"])


async def _broken(one: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store whose error repeats its address, as clients of stores do."""

    async def get(_: Any, keys: Any) -> Any:
        raise RuntimeError(f"connecting to redis://halfsure:{PLANTED}@10.0.0.9:6379 failed (sig={PLANTED})")

    with monkeypatch.context() as patched:
        patched.setattr(type(one.running.state), "get", get)
        answer = await one.running.call("GET", "/v1/deadletters")
    assert answer.status_code == 500
    assert PLANTED not in answer.text
