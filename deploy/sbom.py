"""Write a bill of materials (CycloneDX 1.6, JSON) to standard output: `sbom.py NAME` of this environment, `sbom.py NAME
REQUIREMENTS` of a file of pinned and hashed requirements, with the hashes."""

import json
import re
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path


def component(found: Distribution) -> dict[str, object]:
    """One installed distribution."""
    name, version = found.metadata["Name"], found.version
    row: dict[str, object] = {"type": "library", "name": name, "version": version}
    row["bom-ref"] = row["purl"] = f"pkg:pypi/{name.lower().replace('_', '-')}@{version}"
    licence = found.metadata.get("License-Expression")
    return {**row, "licenses": [{"expression": licence}]} if licence else row


def pinned(text: str) -> list[dict[str, object]]:
    """The packages of a requirements file: every one has a version and hashes, or the file is refused."""
    rows: list[dict[str, object]] = []
    for block in re.split(r"\n(?=[A-Za-z0-9])", text.replace("\\\n", " ")):
        if not (found := re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)", block)):
            continue
        name, version = found.groups()
        hashes = [{"alg": "SHA-256", "content": one} for one in re.findall(r"--hash=sha256:([0-9a-f]{64})", block)]
        if not hashes:
            raise SystemExit(f"{name} {version} has no hash")
        purl = f"pkg:pypi/{name.lower().replace('_', '-')}@{version}"
        # One of the hashes is the file's that is installed: which, the platform decides.
        references = [{"type": "distribution", "url": f"https://pypi.org/project/{name}/{version}/", "hashes": hashes}]
        rows.append(
            {"type": "library", "name": name, "version": version, "bom-ref": purl, "purl": purl}
            | {"externalReferences": references}
        )
    return rows


def bill(name: str, requirements: str | None = None) -> dict[str, object]:
    """The whole bill, in an order that does not change from build to build."""
    found = pinned(requirements) if requirements is not None else [component(one) for one in distributions()]
    rows = sorted(found, key=lambda row: str(row["purl"]))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": name}},
        "components": rows,
    }


if __name__ == "__main__":
    told = Path(sys.argv[2]).read_text() if len(sys.argv) > 2 else None
    json.dump(bill(sys.argv[1], told), sys.stdout, indent=1, sort_keys=True)
