"""The site as it is built: whole, and nothing in it is fetched from anywhere else."""

import re
from pathlib import Path

import pytest
from commands.blocks import ROOT

SITE = ROOT / "out" / "docs"
FETCHED = re.compile(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"(?P<a>[^\"]+)\"|<link\b(?P<b>[^>]*)>", re.IGNORECASE)

pytestmark = pytest.mark.skipif(not (SITE / "index.html").exists(), reason="`make docs` has not built the site")


def pages() -> list[Path]:
    return sorted(SITE.rglob("*.html"))


def test_no_page_fetches_anything_from_elsewhere() -> None:
    assert len(pages()) > 40
    for page in pages():
        for match in FETCHED.finditer(page.read_text()):
            if match["a"]:
                assert not re.match(r"(\w+:)?//", match["a"]), f"{page}: {match['a']}"
            elif 'rel="canonical"' not in match["b"]:
                (target,) = re.findall(r'href="([^"]*)"', match["b"])
                assert not re.match(r"(\w+:)?//", target), f"{page}: {target}"
    for style in SITE.rglob("*.css"):
        assert not re.search(r"url\(['\"]?https?:|@import\s+['\"]?https?:", style.read_text()), style


def test_every_link_and_picture_inside_leads_somewhere() -> None:
    for page in pages():
        if page.name == "404.html":
            continue
        for target in re.findall(r'(?:href|src)="([^"#?]+)', page.read_text()):
            if not re.match(r"\w+:", target):
                assert (page.parent / target).exists(), f"{page.relative_to(SITE)}: {target}"


def test_the_reference_has_what_the_code_has() -> None:
    assert "halfsure_outbox_waiting" in (SITE / "reference" / "metrics.html").read_text()
    assert "HALFSURE_RETRAIN_TRIGGER_BACKEND" in (SITE / "reference" / "settings.html").read_text()
    assert "io.halfsure.label.accepted.v1" in (SITE / "reference" / "events.html").read_text()
    assert "halfsure label-studio serve" in (SITE / "reference" / "cli.html").read_text()
    assert "/v1/tasks:claim" in (SITE / "reference" / "api-label-queue.html").read_text()
