"""Content in Azure: by a signature in the url, else by an identity; with neither, a service says what is missing."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import ServiceRequestError
from conftest import started, wait_until

from services.cli.backing import azurite_command, container_url, find_azurite, signature
from services.cli.toolchain import NoRuntime
from services.ingest.app import create
from services.runtime import blobs as blobs_module
from services.runtime.blobs import AzureBlobs, blob_store
from services.runtime.errors import Unavailable
from services.runtime.ports import Ports

PORT = 8297
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


@pytest.fixture
def azurite(tmp_path: Path) -> Iterator[str]:
    """A container of Azurite, the stand-in for Blob Storage."""
    try:
        program = find_azurite()
    except (NoRuntime, OSError) as error:
        pytest.skip(f"Azurite is not installed: {error}")
    running = subprocess.Popen(azurite_command(program, PORT, tmp_path), stdout=subprocess.DEVNULL)
    yield f"{container_url(PORT)}?{signature()}"
    running.terminate()
    running.wait(20)


async def test_a_large_content_goes_up_in_blocks_and_after_a_break_only_what_is_missing(
    azurite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs_module, "BLOCK", 1000)
    content = bytes(range(256)) * 20  # six blocks
    store = AzureBlobs(azurite)

    async def answers() -> bool:
        return await store.reason() is None

    await wait_until(answers, 60)
    staged: list[str] = []
    blob_of = store._blob

    class Breaking:
        """The real client of a blob, whose line breaks once."""

        def __init__(self, uri: str, whole: int) -> None:
            self._client, self._left = blob_of(uri), whole

        async def stage_block(self, name: str, part: bytes, **options: Any) -> None:
            if self._left == 0:
                raise ServiceRequestError("the line was cut")
            self._left -= 1
            staged.append(name)
            await self._client.stage_block(name, part, **options)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._client, name)

    monkeypatch.setattr(store, "_blob", lambda uri: Breaking(uri, 4))
    with pytest.raises(Unavailable):
        await store.put("large", content)
    assert not await store.holds("blob:large", content)
    uri = await store.put("large", content)
    assert len(staged) == len(set(staged)) == 6
    assert await store.get(uri) == content
    assert await store.holds(uri, content)
    assert not await store.holds(uri, content[::-1])
    assert await store.put("large", content) == uri
    small = await store.put("small", b"abc")
    assert await store.holds(small, b"abc")
    assert not await store.holds(small, b"abd")
    assert not await store.holds("blob:none", b"abd")
    await store.close()
