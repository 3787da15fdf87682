"""What `make release` writes by itself: the version and the changelog."""

import runpy
from pathlib import Path

import pytest

from services.cli.settings import default_root

release = runpy.run_path(str(default_root() / "deploy" / "release.py"))
BEFORE = "# Changelog\n\n## Unreleased\n\n- Mind the gap.\n\n## 0.1.0 (2026-11-01)\n\n- Begin.\n"


def test_a_version_gets_its_section_once_and_the_older_ones_stay() -> None:
    after = release["changed"](BEFORE, "0.2.0", "2026-11-25", ["Count twice", "Cut once"])
    assert after == (
        "# Changelog\n\n## Unreleased\n\n## 0.2.0 (2026-11-25)\n\n- Mind the gap.\n- Count twice\n- Cut once\n"
        "\n## 0.1.0 (2026-11-01)\n\n- Begin.\n"
    )
    assert release["changed"](after, "0.2.0", "2026-11-26", ["Again"]) == after


def test_only_the_projects_own_version_changes() -> None:
    text = (default_root() / "pyproject.toml").read_text()
    after = release["versioned"](text, "9.8.7")
    changed = [(a, b) for a, b in zip(text.splitlines(), after.splitlines(), strict=True) if a != b]
    assert [b for _, b in changed] == ['version = "9.8.7"']


@pytest.mark.parametrize("version", ["", "1.2", "v1.2.3", "1.2.3; rm"])
def test_what_is_no_version_is_refused(version: str) -> None:
    with pytest.raises(SystemExit, match="VERSION"):
        release["main"](version)


def test_a_client_without_its_daemon_is_no_builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = tmp_path / "docker"
    client.write_text('#!/bin/sh\necho "Cannot connect to the Docker daemon" >&2\nexit 1\n')
    client.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert release["images"]("1.2.3") == "no images: neither docker nor podman answers here"
