"""A server of a model, as halfsure asks one (docs/models.md): it says how bright pictures are. `serve.py PORT`.

Nothing of halfsure is in it: replace `says` by your own model, in whatever language it lives.
"""

import base64
import io
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image, ImageStat


def says(one: dict[str, Any]) -> dict[str, Any]:
    """The prediction for one input."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(one["data"]))) as picture:
            statistics = ImageStat.Stat(picture.convert("L"))
    except (KeyError, OSError, ValueError) as error:
        return {"error": f"not a picture: {error}"}
    shade, spread = statistics.mean[0] / 255, statistics.stddev[0] / 255
    return {"probabilities": {"dark": 1 - shade, "bright": shade}, "embedding": [shade, spread]}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        answer = json.dumps({"predictions": [says(one) for one in asked["inputs"]]}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
