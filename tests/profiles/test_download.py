"""uplink's downloads by https, from a real server with a certificate of its own."""

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from iothub import certificates

from services.contracts.events import Content
from services.contracts.ids import sha256
from services.runtime.errors import Unavailable
from services.uplink.download import Broken, download, where

pytestmark = pytest.mark.profiles
MODEL = b"model" * 50_000


class _Shop(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/moved":
            self.send_response(302)
            self.send_header("location", "/model")
            self.end_headers()
            return
        self.send_response({"/model": 200, "/gone": 404}.get(path, 500))
        self.end_headers()
        if path == "/model":
            self.wfile.write(MODEL)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    authority = certificates(tmp_path, "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    with ThreadingHTTPServer(("127.0.0.1", 0), _Shop) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"https://localhost:{server.server_port}"
        server.shutdown()


def content(uri: str, size: int = len(MODEL)) -> Content:
    return Content(uri=uri, sha256=sha256(MODEL), bytes=size, media_type="application/octet-stream")


@pytest.mark.parametrize("path", ["/model", "/moved", "/model?sig=secret"])
async def test_what_is_there_comes_whole(shop: str, path: str) -> None:
    assert await download(content(shop + path)) == MODEL


async def test_more_than_was_announced_is_not_read(shop: str) -> None:
    with pytest.raises(Broken, match="more than 1000 bytes"):
        await download(content(f"{shop}/model", 1000))


async def test_nothing_there_is_not_the_same_as_trouble(shop: str) -> None:
    with pytest.raises(KeyError):
        await download(content(f"{shop}/gone"))
    with pytest.raises(Unavailable, match="answers 500"):
        await download(content(f"{shop}/broken"))
    with pytest.raises(Unavailable):
        await download(content("https://localhost:1/model"))


async def test_a_certificate_of_a_stranger_is_refused(shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(Unavailable, match="certificate"):
        await download(content(f"{shop}/model"))


def test_a_signature_is_in_no_sentence() -> None:
    assert where(content("https://host/model?sig=secret")) == "https://host/model"
