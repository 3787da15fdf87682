"""Sidecars that speak mTLS: a certificate of each app's own, and each may ask the others only what it is let.

The control is the same stack's own REST, where the same calls pass with the same token.
"""

import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
import yaml
from conftest import require_runtime
from cryptography import x509
from stacks import run_file

from services.cli.build import build_runtime
from services.cli.settings import StackSettings, default_root
from services.cli.stack import Stack
from services.contracts.inputs import InputSpec, TabularColumn

pytestmark = [pytest.mark.loop, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]
OFFSET = 9600
PROJECT = {
    "name": "yard",
    "task": "tabular-classification",
    "labels": ["a", "b"],
    "input": InputSpec.tabular([TabularColumn(name="x")]).model_dump(mode="json"),
}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    require_runtime()
    build_runtime(default_root(), runtime=False, sentry=True)
    folder = tmp_path_factory.mktemp("mtls")
    listed = run_file(folder, ["ingest", "retrain-trigger", "portal"])
    settings = StackSettings(home=folder / "home", run_file=listed, port_offset=OFFSET, mtls=True)
    _beside(listed)
    async with Stack(settings).running() as running:
        yield running


def _beside(listed: Path) -> None:
    """The run file of a test names the project's own configuration."""
    named = Path(yaml.safe_load(listed.read_text())["common"]["configFilePath"])
    assert named.with_name("access.yaml").exists()


async def asked(stack: Stack, by: str, method: str, target: str, path: str, **how: Any) -> httpx2.Response:
    """What a service's sidecar hears from another app's."""
    headers = {"dapr-api-token": stack.secrets.dapr_api, **how.pop("headers", {})}
    url = f"http://127.0.0.1:{stack.ports[f'{by}_http']}/v1.0/invoke/{target}/method{path}"
    async with httpx2.AsyncClient(trust_env=False, timeout=20) as client:
        return await client.request(method, url, headers=headers, **how)


async def test_services_read_and_do_no_more_and_the_portal_hands_on(stack: Stack) -> None:
    bearer = {"authorization": f"Bearer {stack.token}"}
    async with httpx2.AsyncClient(trust_env=False, timeout=30, headers=bearer) as client:
        made = await client.post(f"{stack.url('portal')}/api/retrain-trigger/v1/projects", json=PROJECT)
        assert made.status_code == 201, made.text
        # ingest hears of the project by the bus, or asks its owner through both sidecars.
        sample = {"row": {"x": 1.0}}
        stored = await client.post(f"{stack.url('ingest')}/v1/samples?project=yard", json=sample)
        assert stored.status_code in (201, 404), stored.text
        own = await client.post(f"{stack.url('retrain-trigger')}/v1/projects", json={**PROJECT, "name": "own"})
        assert own.status_code == 201
    read = await asked(stack, "ingest", "GET", "retrain-trigger", "/v1/projects/yard")
    assert read.status_code == 200, read.text
    for method, path in (("POST", "/v1/projects"), ("DELETE", "/v1/projects/yard"), ("GET", "/metrics")):
        refused = await asked(stack, "ingest", method, "retrain-trigger", path, headers=bearer, json=PROJECT)
        assert refused.status_code == 403, (method, path, refused.text)
        assert "access control policy has denied access" in refused.text
    event = await asked(stack, "portal", "POST", "ingest", "/events/project", headers=bearer, json={})
    assert event.status_code == 403, "events come from the service's own sidecar alone"


async def test_each_sidecar_has_a_certificate_and_talks_to_nobody_without_one(stack: Stack) -> None:
    for app in ("ingest", "retrain-trigger", "portal"):
        port = stack.ports[f"{app.replace('-', '_')}_internal"]
        found = x509.load_pem_x509_certificate(ssl.get_server_certificate(("127.0.0.1", port), timeout=10).encode())
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        assert uris == [f"spiffe://public/ns/default/{app}"]
    async with httpx2.AsyncClient(trust_env=False, http2=False, timeout=5) as plain:
        with pytest.raises(httpx2.TransportError):
            await plain.get(f"http://127.0.0.1:{stack.ports['ingest_internal']}/")
    without = ssl.create_default_context(cafile=str(stack.home.path / "sentry" / "ca.crt"))
    without.check_hostname = False
    async with httpx2.AsyncClient(trust_env=False, verify=without, timeout=5) as nameless:
        with pytest.raises((httpx2.TransportError, ssl.SSLError)):
            await nameless.get(f"https://127.0.0.1:{stack.ports['ingest_internal']}/")
