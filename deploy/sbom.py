"""Write the bill of materials of this environment (CycloneDX 1.6, JSON) to standard output: `sbom.py NAME`."""

import json
import sys
from importlib.metadata import Distribution, distributions


def component(found: Distribution) -> dict[str, object]:
    """One installed distribution."""
    name, version = found.metadata["Name"], found.version
    row: dict[str, object] = {"type": "library", "name": name, "version": version}
    row["bom-ref"] = row["purl"] = f"pkg:pypi/{name.lower().replace('_', '-')}@{version}"
    licence = found.metadata.get("License-Expression")
    return {**row, "licenses": [{"expression": licence}]} if licence else row


def bill(name: str) -> dict[str, object]:
    """The whole bill, in an order that does not change from build to build."""
    rows = sorted((component(found) for found in distributions()), key=lambda row: str(row["purl"]))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": name}},
        "components": rows,
    }


if __name__ == "__main__":
    json.dump(bill(sys.argv[1]), sys.stdout, indent=1, sort_keys=True)
