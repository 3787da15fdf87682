"""Content from an https url, no more of it than was announced."""

from urllib.parse import urlsplit

import httpx2

from services.contracts.events import Content
from services.runtime.blobs import AzureBlobs
from services.runtime.errors import Unavailable

BLOB_STORAGE = ".blob.core.windows.net"


class Broken(Exception):
    """What is at a uri is not what was announced, or nothing is."""


def where(content: Content) -> str:
    """The uri without its query, which may be a signature that nobody should read in a log."""
    return content.uri.partition("?")[0]


async def download(content: Content) -> bytes:
    """From Blob Storage with this module's identity, from anywhere else as anybody.

    Raises KeyError when there is nothing, Broken when there is too much, and Unavailable.
    """
    parts = urlsplit(content.uri)
    if (parts.hostname or "").endswith(BLOB_STORAGE):
        container, _, name = parts.path.lstrip("/").partition("/")
        query = f"?{parts.query}" if parts.query else ""
        store = AzureBlobs(f"https://{parts.netloc}/{container}{query}")
        try:
            return await store.get(f"blob:{name}")
        finally:
            await store.close()
    try:
        async with (
            httpx2.AsyncClient(follow_redirects=True, timeout=30) as http,
            http.stream("GET", content.uri) as got,
        ):
            return await _read(got, content)
    except httpx2.HTTPError as error:
        raise Unavailable(f"{where(content)}: {error}") from error


async def _read(answer: httpx2.Response, content: Content) -> bytes:
    if answer.status_code in (404, 410):
        raise KeyError(content.uri)
    if answer.status_code >= 400:
        raise Unavailable(f"{where(content)} answers {answer.status_code}")
    raw = bytearray()
    async for chunk in answer.aiter_bytes():
        raw += chunk
        if len(raw) > content.bytes:
            raise Broken(f"what is at {where(content)} has more than {content.bytes} bytes")
    return bytes(raw)
