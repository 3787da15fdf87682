"""Lay out the pages of the site in a folder, for mkdocs: `python -m docs.site FOLDER`.

The pages are those that GitHub shows too. Links are relative to a page's place in the repository; those that lead out
of `docs` are turned to where the file is in the site, or to its text.
"""

import os
import posixpath
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from docs.site import reference

ROOT = Path(__file__).parents[2]
# What the site has from elsewhere in the repository, by its place in the site.
OTHERS = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "deploy/iotedge/README.md": "iotedge.md",
    "deploy/k8s/README.md": "kubernetes.md",
    "deploy/model/README.md": "model-image.md",
}
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")
FENCE = re.compile(r"^([ ]*```\w+)[ ][^\n]*$", re.MULTILINE)


def places() -> dict[str, str]:
    """Where each page and picture of the repository is in the site."""
    kept = {
        str(path.relative_to(ROOT)): str(path.relative_to(ROOT / "docs"))
        for path in sorted((ROOT / "docs").rglob("*"))
        if path.is_file() and (ROOT / "docs" / "site") not in path.parents
    }
    return kept | {source: target for source, target in OTHERS.items() if (ROOT / source).exists()}


def page(text: str, source: str, known: Mapping[str, str]) -> str:
    """A page as it is in the site. Raises SystemExit for a link to what is not there."""
    here = posixpath.dirname(known[source])

    def turned(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        target = known.get(path)
        if target is None and path.startswith("docs/reference/"):
            target = path.removeprefix("docs/")
        if target is None:
            if not (ROOT / path).exists():
                raise SystemExit(f"{source}: there is no {path}")
            target = (
                f"files/{path}.txt" if (ROOT / path).is_file() else known.get(f"{path}/README.md", f"files/{path}.txt")
            )
        return posixpath.relpath(target, here or ".") + (match[2] or "")

    return FENCE.sub(r"\1", LINK.sub(turned, text))


def lay_out(folder: Path) -> None:
    """The whole source of the site, anew."""
    shutil.rmtree(folder, ignore_errors=True)
    known = places()
    for source, target in known.items():
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        if not source.endswith(".md"):
            shutil.copyfile(ROOT / source, folder / target)
            continue
        text = (ROOT / source).read_text()
        (folder / target).write_text(page(text, source, known))
        for path in _linked(text, source):
            _show(path, folder / "files" / f"{path}.txt")
    (folder / "reference").mkdir()
    for name, text in reference.pages().items():
        (folder / "reference" / name).write_text(text)


def _linked(text: str, source: str) -> set[str]:
    paths = {posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1])) for match in LINK.finditer(text)}
    known = places()
    return {one for one in paths if one not in known and f"{one}/README.md" not in known and (ROOT / one).exists()}


def _show(path: str, target: Path) -> None:
    """A file of the repository as text; of a folder what is in it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    place = ROOT / path
    target.write_text(place.read_text() if place.is_file() else "\n".join(sorted(os.listdir(place))) + "\n")


if __name__ == "__main__":
    lay_out(Path(sys.argv[1]))
