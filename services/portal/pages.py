"""The page: committed files, read once, under a policy that lets it talk to this origin and nobody else."""

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Request, Response

from services.contracts.ids import sha256

STATIC = Path(__file__).with_name("static")
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}
VIEWS = ("label", "review", "dashboard", "models", "samples", "try", "people", "deadletters", "settings")
POLICY = "; ".join(
    [
        "default-src 'none'",
        *(f"{kind}-src 'self'" for kind in ("script", "style", "img", "connect", "font", "manifest")),
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    ]
)
HEADERS: Mapping[str, str] = {
    "content-security-policy": POLICY,
    "cache-control": "no-cache",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "referrer-policy": "no-referrer",
    "vary": "accept-encoding",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


@dataclass(frozen=True)
class Asset:
    """One file, as it is and packed."""

    content: bytes
    packed: bytes
    media_type: str
    etag: str

    @classmethod
    def read(cls, path: Path) -> "Asset":
        content = path.read_bytes()
        return cls(content, gzip.compress(content, mtime=0), TYPES[path.suffix], f'"{sha256(content)[:32]}"')


def assets(folder: Path = STATIC) -> dict[str, Asset]:
    """Every file of the folder by its name. What is asked for is looked up here and never becomes a path."""
    return {path.name: Asset.read(path) for path in sorted(folder.iterdir()) if path.suffix in TYPES}


def routes(found: Mapping[str, Asset]) -> APIRouter:
    """The files, and the page itself at the address of each of its views. Open to all: they say nothing of anybody."""
    router = APIRouter(include_in_schema=False)

    def answer(request: Request, asset: Asset) -> Response:
        headers = {**HEADERS, "etag": asset.etag}
        if asset.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(asset.packed, headers={**headers, "content-encoding": "gzip"}, media_type=asset.media_type)
        return Response(asset.content, headers=headers, media_type=asset.media_type)

    def page(request: Request) -> Response:
        return answer(request, found["index.html"])

    def file(name: str):
        return lambda request: answer(request, found[name])

    for name in found:
        router.add_route(f"/static/{name}", file(name), methods=["GET", "HEAD"])
    for path in ("/", *(f"/{view}" for view in VIEWS), "/samples/{sample}"):
        router.add_route(path, page, methods=["GET", "HEAD"])
    return router
