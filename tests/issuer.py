"""A small OpenID Connect issuer on loopback: real RSA and EC keys, a discovery document, tokens as asked for."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from json import dumps
from threading import Thread
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa


class Issuer:
    """Signs whatever it is told to; only the keys in `published` are told to those who ask."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked = 0
        self.keys: dict[str, Any] = {
            "rsa-1": rsa.generate_private_key(65537, 2048),
            "ec-1": ec.generate_private_key(ec.SECP256R1()),
            "rsa-2": rsa.generate_private_key(65537, 2048),
        }
        self.published = ["rsa-1", "ec-1"]

    def jwks(self) -> dict[str, Any]:
        return {"keys": [{**self._public(kid), "kid": kid, "use": "sig"} for kid in self.published]}

    def _public(self, kid: str) -> dict[str, Any]:
        kind = jwt.algorithms.RSAAlgorithm if kid.startswith("rsa") else jwt.algorithms.ECAlgorithm
        return kind.to_jwk(self.keys[kid].public_key(), as_dict=True)

    def claims(self, **more: Any) -> dict[str, Any]:
        now = int(time.time())
        return {
            **{"iss": self.url, "aud": "halfsure", "sub": "ann", "iat": now, "exp": now + 300},
            **{"halfsure_role": "operator", "halfsure_projects": ["default"]},
            **more,
        }

    def token(self, kid: str = "rsa-1", **more: Any) -> str:
        algorithm = "RS256" if kid.startswith("rsa") else "ES256"
        return jwt.encode(self.claims(**more), self.keys[kid], algorithm=algorithm, headers={"kid": kid})


@contextmanager
def issuing() -> Iterator[Issuer]:
    """The issuer, served while it is needed."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.asked += 1
            told = {"issuer": issuer.url, "jwks_uri": f"{issuer.url}/keys"}
            body = dumps(issuer.jwks() if self.path == "/keys" else told).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    issuer = Issuer(f"http://127.0.0.1:{server.server_address[1]}")
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
