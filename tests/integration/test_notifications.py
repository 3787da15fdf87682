"""The portal and label-queue on the real runtime: what waits and what is shelved reaches a webhook, signed."""

from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
from conftest import wait_until
from crowd import project, selected
from queues import running
from receiving import SECRET, Hook, hooked

from services.contracts.signatures import key_of, verified
from services.runtime.memory import SystemClock

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="function")]


def rules(folder: Path, hook: Hook) -> Path:
    secret, path = folder / "secret", folder / "notifications.toml"
    secret.write_text(SECRET)
    on = '["labels.waiting", "dead_letters.over"]'
    webhook = f'{{url = "{hook.url}", secret_file = "{secret}"}}'
    path.write_text(f'[[rules]]\nname = "ops"\non = {on}\nlabels_waiting = 2\nwebhook = {webhook}\n')
    return path


async def test_what_waits_and_what_is_shelved_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with hooked() as hook:
        monkeypatch.setenv("HALFSURE_PORTAL_NOTIFICATIONS", str(rules(tmp_path, hook)))
        monkeypatch.setenv("HALFSURE_PORTAL_WAITING_SECONDS", "0.5")
        monkeypatch.setenv("HALFSURE_HEARTBEAT_SECONDS", "1")
        async with running(tmp_path, 8_000, ("label-queue", "portal")) as queue:
            await queue.publish([project()])
            await queue.publish([selected("smp_a"), selected("smp_b")])
            await queue.publish([selected("smp_c", project="nobody-knows-it")])
            await wait_until(lambda: len(hook.calls) >= 2, 60)
            key, now = key_of(SECRET), SystemClock().now()
            assert len({verified(key, headers, body, now) for headers, body in hook.calls}) == 2
            found: dict[str, Any] = {one["type"]: one["data"] for _, body in hook.calls for one in [orjson.loads(body)]}
            assert (found["labels.waiting"]["of"], found["labels.waiting"]["value"]) == ("default", 2)
            assert found["dead_letters.over"]["of"].endswith("/label-queue")
            portal = queue.stack.url("portal")
            headers = {"authorization": f"Bearer {queue.stack.token}"}
            shown = httpx2.get(f"{portal}/v1/notifications", headers=headers, trust_env=False).json()
            assert (shown["waiting"], shown["given_up"]) == ([], [])
