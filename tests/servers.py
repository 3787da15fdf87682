"""A real HTTP server of a model, which can be told to do everything wrong, and what makes infer ask it."""

import base64
import contextlib
import io
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image, ImageStat
from worlds import LABELS

from services.contracts.ids import sha256
from services.contracts.manifest import ModelManifest, OutputSpec

Row = dict[str, Any]


def shade_of(one: Row) -> Row:
    """What the server says of a picture: how bright it is."""
    with Image.open(io.BytesIO(base64.b64decode(one["data"]))) as picture:
        shade = ImageStat.Stat(picture.convert("L")).mean[0] / 255
    return {"probabilities": {"dark": 1 - shade, "bright": shade}}


class Model:
    """The server, from `with` on: what it was asked, what it says, and which statuses it answers first."""

    def __init__(self, says: Callable[[Row], Row] = shade_of) -> None:
        self.says = says
        self.asked: list[Row] = []
        self.tokens: list[str | None] = []
        self.statuses: list[int] = []
        self.refuses: Callable[[list[Row]], bool] = lambda inputs: False
        self.raw: bytes | None = None
        self.waits = threading.Event()
        self.waits.set()

    def __enter__(self) -> "Model":
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"model": self}))
        self.port = self._http.server_port
        self._thread = threading.Thread(target=self._http.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.waits.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def answer(self, body: Row, token: str | None) -> tuple[int, bytes]:
        self.asked.append(body)
        self.tokens.append(token)
        self.waits.wait(10)
        if self.statuses and (status := self.statuses.pop(0)) != 200:
            return status, b"not now"
        if self.refuses(body["inputs"]):
            return 422, b"not this one"
        said = json.dumps({"predictions": [self.says(one) for one in body["inputs"]]}).encode()
        return 200, said if self.raw is None else self.raw


class _Handler(BaseHTTPRequestHandler):
    model: Model
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        status, said = self.model.answer(body, self.headers.get("authorization"))
        with contextlib.suppress(OSError):  # who asked may have gone
            self.send_response(status)
            self.send_header("content-length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

    def log_message(self, *_: object) -> None: ...


@contextlib.contextmanager
def served(says: Callable[[Row], Row] = shade_of) -> Iterator[Model]:
    with Model(says) as model:
        yield model


def described(spec: Any, task: str = "image-classification", **endpoint: Any) -> tuple[bytes, ModelManifest]:
    """Artefact and manifest of a model on the server `eye`."""
    artefact = json.dumps({"server": "eye", **endpoint}).encode()
    roles = ["probabilities", *(["boxes"] if task == "image-detection" else [])]
    roles += ["embedding"] if "embedding" in endpoint else []
    manifest = ModelManifest(
        task=task,  # type: ignore[arg-type]
        labels=tuple(LABELS),
        input=spec,
        outputs=OutputSpec(**{role: role for role in roles}),
        backend="http",
        sha256=sha256(artefact),
    )
    return artefact, manifest
