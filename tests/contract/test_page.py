"""The page as it is committed: built from its sources, small, and nothing behind it but the public REST API."""

import gzip
import importlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from services.portal.settings import PortalSettings
from services.runtime.settings import RuntimeSettings

PORTAL = Path(__file__).parents[2] / "services" / "portal"
STATIC, WEB = PORTAL / "static", PORTAL / "web"
FILES = {"app.js", "app.css", "index.html", "icon.svg"}


def test_a_rebuild_is_byte_for_byte_what_is_committed(tmp_path: Path) -> None:
    if not shutil.which("node") or not (WEB / "node_modules").is_dir():
        pytest.skip("The page is built with Node 20 or newer and `npm ci` in services/portal/web; users need neither.")
    subprocess.run(["node", "build.mjs", str(tmp_path)], cwd=WEB, check=True, timeout=60)
    assert {path.name for path in tmp_path.iterdir()} == FILES
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (STATIC / path.name).read_bytes(), f"{path.name}: run `make web` and commit"


def test_the_page_is_small_and_whole() -> None:
    assert {path.name for path in STATIC.iterdir()} == FILES
    assert len(gzip.compress((STATIC / "app.js").read_bytes())) <= 40 * 1024
    index = (STATIC / "index.html").read_text()
    assert set(re.findall(r'(?:src|href)="([^"]+)"', index)) == {f"/static/{name}" for name in FILES - {"index.html"}}
    assert "style=" not in index
    assert "<script>" not in index


def test_nothing_in_it_is_of_another_host() -> None:
    text = "".join((STATIC / name).read_text() for name in FILES)
    hosts = set(re.findall(r"https?://([^/\"'`\s)]+)", text))
    assert hosts <= {"www.w3.org"}, "the names of SVG and MathML, which nobody fetches"
    assert "url(" not in (STATIC / "app.css").read_text()
    assert not re.search(r"\beval\(|new Function\(|innerHTML=`|document\.write", (STATIC / "app.js").read_text())


def test_the_lock_names_no_registry() -> None:
    lock = json.loads((WEB / "package-lock.json").read_text())
    assert all("resolved" not in one for one in lock["packages"].values())
    assert all("integrity" in one for name, one in lock["packages"].items() if name)


def routes(app_id: str, folder: Path) -> set[str]:
    async def connect(_: RuntimeSettings):
        raise RuntimeError("not started")

    module = importlib.import_module(f"services.{app_id.replace('-', '_')}.app")
    return set(module.create(RuntimeSettings(state_dir=folder), connect).api.openapi()["paths"])


def test_everything_the_page_calls_is_in_the_public_api(tmp_path: Path) -> None:
    """Row 4.2: what is done on the page can be done over REST."""
    apps = PortalSettings().services
    known = {app: routes(app, tmp_path) for app in [*apps, "portal"]}
    source = (STATIC / "app.js").read_text()
    named = {re.sub(r"\$\{[^}]*\}", "{}", path) for path in re.findall(r'["`](/(?:api/|v1/)[^"`?\s]*)["`]', source)}
    assert len(named) > 20
    assert "/v1/events" in named
    for path in sorted(named - {"/api/"}):
        service, route = path.split("/", 3)[2:] if path.startswith("/api/") else ("portal", path)
        services = apps if service == "{}" else [service]
        wanted = re.compile("/" + re.escape(route.lstrip("/")).replace(r"\{\}", r"\{[^}]*\}"))
        for one in services:
            assert any(wanted.fullmatch(known_path) for known_path in known[one]), f"{one} has no {route}"
