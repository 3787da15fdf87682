"""Content by claim check: a local folder, or Azure Blob Storage, as the url says."""

import asyncio
import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from services.contracts.ids import sha256
from services.runtime.errors import Unavailable
from services.runtime.folder import FolderBlobs
from services.runtime.ports import Blobs


def blob_store(url: str) -> Blobs:
    """`file:///folder`, or `https://ACCOUNT.blob.core.windows.net/CONTAINER` (identity from the environment).

    Raises ValueError for any other scheme.
    """
    if url.startswith("file://"):
        return FolderBlobs(Path(url.removeprefix("file://")))
    if url.startswith(("https://", "http://")):
        return AzureBlobs(url)
    raise ValueError(f"HALFSURE_BLOBS must start with file:// or https://, and is {url!r}")


# Seconds and tries: whoever asked will ask again, so a store that is away must say so soon.
PATIENCE: dict[str, Any] = {"connection_timeout": 5, "read_timeout": 30, "retry_total": 2, "initial_backoff": 1}


AT_ONCE = 32  # blobs on their way at a time: more only wait for each other, and run into PATIENCE

BLOCK = 4 << 20  # bytes; what is larger goes up in parts of this size


def md5(content: bytes) -> bytes:
    """What Blob Storage compares contents by; no signature."""
    return hashlib.md5(content, usedforsecurity=False).digest()


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """What Azure raises while it cannot be reached, as our Unavailable."""
    from azure.core.exceptions import AzureError

    try:
        yield
    except AzureError as error:
        raise Unavailable(f"blob store: {error}") from error


class AzureBlobs:
    """One container; names are content-addressed, so a blob that is there already is the same blob."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._container: Any = None
        self._at_once = asyncio.Semaphore(AT_ONCE)

    async def put(self, name: str, content: bytes) -> str:
        from azure.core.exceptions import ResourceExistsError

        async with self._at_once:
            with _translated(), contextlib.suppress(ResourceExistsError):
                await self._upload(name, content)
        return f"blob:{name}"

    async def _upload(self, name: str, content: bytes) -> None:
        if len(content) > BLOCK:
            await self._put_blocks(self._blob(name), content)
        else:
            await self._blob(name).upload_blob(content, overwrite=False, validate_content=True)

    async def _put_blocks(self, blob: Any, content: bytes) -> None:
        """Block by block, each named by its place and hash: a try after one that broke sends what is missing."""
        from azure.core import MatchConditions
        from azure.core.exceptions import ResourceNotFoundError
        from azure.storage.blob import BlobBlock, ContentSettings

        parts = [content[at : at + BLOCK] for at in range(0, len(content), BLOCK)]
        names = [f"{at:06d}.{sha256(part)[:32]}" for at, part in enumerate(parts)]  # 64 bytes at most
        staged: set[str] = set()
        with contextlib.suppress(ResourceNotFoundError):
            there, waiting = await blob.get_block_list("all")
            if there:
                return
            staged = {block.id for block in waiting}
        for name, part in zip(names, parts, strict=True):
            if name not in staged:
                await blob.stage_block(name, part, validate_content=True)
        checked = ContentSettings(content_md5=bytearray(md5(content)))
        missing = MatchConditions.IfMissing
        await blob.commit_block_list([BlobBlock(n) for n in names], content_settings=checked, match_condition=missing)

    async def put_all(self, contents: Sequence[tuple[str, bytes]]) -> list[str]:
        return await asyncio.gather(*(self.put(name, content) for name, content in contents))

    async def get_all(self, uris: Sequence[str]) -> list[bytes | None]:
        return await asyncio.gather(*map(self._found, uris))

    async def _found(self, uri: str) -> bytes | None:
        try:
            return await self.get(uri)
        except (KeyError, ValueError):
            return None

    async def holds(self, uri: str, content: bytes) -> bool:
        """By size and MD5, which Blob Storage makes of what it has or has checked block by block; else by reading."""
        from azure.core.exceptions import ResourceNotFoundError

        with _translated():
            try:
                found = await self._blob(uri).get_blob_properties()
            except ResourceNotFoundError:
                return False
        if found.size != len(content):
            return False
        if found.content_settings.content_md5:
            return bytes(found.content_settings.content_md5) == md5(content)
        return await self.get(uri) == content

    async def get(self, uri: str) -> bytes:
        from azure.core.exceptions import ResourceNotFoundError

        async with self._at_once:
            with _translated():
                try:
                    return await (await self._blob(uri).download_blob()).readall()
                except ResourceNotFoundError as error:
                    raise KeyError(uri) from error

    async def replace(self, uri: str, content: bytes) -> None:
        with _translated():
            await self._blob(uri).upload_blob(content, overwrite=True, validate_content=True)

    async def delete(self, uri: str) -> None:
        from azure.core.exceptions import ResourceNotFoundError

        with _translated(), contextlib.suppress(ResourceNotFoundError):
            await self._blob(uri).delete_blob()

    async def reason(self) -> str | None:
        """Why the container cannot be worked with, in a line; None when it can."""
        try:
            with _translated():
                async for _ in self._client().list_blobs(results_per_page=1, retry_total=0):
                    break
        except (Unavailable, ImportError) as error:
            return f"{self._url.partition('?')[0]}: {str(error).splitlines()[0]}"
        return None

    def _blob(self, uri: str) -> Any:
        return self._client().get_blob_client(uri.removeprefix("blob:"))

    def _client(self) -> Any:
        if self._container is None:
            from azure.identity.aio import DefaultAzureCredential
            from azure.storage.blob.aio import ContainerClient

            # A shared access signature in the url is a credential already.
            credential = None if "?" in self._url else DefaultAzureCredential()
            self._container = ContainerClient.from_container_url(self._url, credential=credential, **PATIENCE)
        return self._container

    async def close(self) -> None:
        if self._container is not None:
            await self._container.close()
