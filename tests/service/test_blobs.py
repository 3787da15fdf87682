"""Content in Azure: by a signature in the url, else by an identity; with neither, a service says what is missing."""

from pathlib import Path

import pytest
from conftest import started, wait_until

from services.ingest.app import create
from services.runtime.blobs import AzureBlobs, blob_store
from services.runtime.ports import Ports

URL = "http://127.0.0.1:9/account/container"


async def test_without_a_signature_an_identity_is_used_and_without_one_the_service_is_not_ready(
    tmp_path: Path, ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_TENANT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")  # ask no other, which would use the network
    blobs = blob_store(URL.replace("http:", "https:"))
    assert isinstance(blobs, AzureBlobs)
    ports.reasons = {"blobs": blobs.reason}
    async with started(create, tmp_path, ports) as running:

        async def told() -> str:
            reason = (await running.client.get("/readyz")).json()["reasons"]["blobs"]
            return "" if reason == "not looked at yet" else reason

        reason = await wait_until(told)
        assert "DefaultAzureCredential" in reason
        assert "\n" not in reason
        assert (await running.client.get("/readyz")).status_code == 503
        assert (await running.client.get("/healthz")).status_code == 200
    await blobs.close()


async def test_the_reason_of_a_store_that_is_away_does_not_tell_its_signature() -> None:
    blobs = AzureBlobs(f"{URL}?sig=secret")
    reason = await blobs.reason()
    assert reason
    assert URL in reason
    assert "secret" not in reason
    await blobs.close()
