"""The locks: everything has a version and hashes and no address, and the bills of materials say the same."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
sbom = runpy.run_path(str(ROOT / "deploy" / "sbom.py"))
FLAGS = ("--no-binary ", "--only-binary ")


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_every_package_is_pinned_with_hashes_and_without_an_address(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line and not line.startswith(("#", *FLAGS))]
    for line in lines:
        assert re.match(r"[a-z0-9._-]+(\[[a-z,]+\])?==\S+ .*--hash=sha256:[0-9a-f]{64}", line), line
    told = [(row["name"], row["version"]) for row in sbom["bill"](lock.stem, text)["components"]]
    assert sorted(told) == sorted(tuple(line.split(" ")[0].split("==")) for line in lines)


def test_a_package_without_a_hash_is_refused() -> None:
    with pytest.raises(SystemExit, match=r"numpy 2\.4\.6 has no hash"):
        sbom["pinned"]("numpy==2.4.6\n")
