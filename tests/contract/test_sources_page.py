"""docs/sources.md: its examples are read as ingest reads them, and it names every kind and field."""

import re
from pathlib import Path

import pytest
import yaml

from services.cli.settings import default_root
from services.ingest.sources import config
from services.ingest.sources.config import Common, Sources

PAGE = (default_root() / "docs" / "sources.md").read_text()
BLOCKS = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
EXAMPLES = [block for block in BLOCKS if re.search(r"^sources:$", block, re.MULTILINE)]
DEVICES = {
    "OPCUA_DISCOVERY_URL_8120FE": "opc.tcp://10.0.0.9:4840/",
    "ONVIF_DEVICE_SERVICE_URL_30B10F": "http://10.0.0.6/onvif/device_service",
}
KINDS = {
    definition["properties"]["kind"]["const"]: definition["properties"]
    for definition in Sources.model_json_schema()["$defs"].values()
    if "kind" in definition["properties"]
}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: re.findall(r"name: (\S+)", text)[0])
def test_an_example_is_what_ingest_reads(example: str, tmp_path: Path) -> None:
    file = tmp_path / "sources.yaml"
    file.write_text(example)
    assert config.read(file, DEVICES)


def test_every_kind_has_an_example_and_every_field_a_word() -> None:
    shown = {source["kind"] for example in EXAMPLES for source in yaml.safe_load(example)["sources"]}
    assert shown == set(KINDS)
    said = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    assert set(Common.model_fields) <= said
    missing = {
        f"{kind}.{field}"
        for kind, fields in KINDS.items()
        for field in fields
        if field not in Common.model_fields and not re.search(rf"\b{field}\b", PAGE)
    }
    assert not missing


def test_akris_documents_have_the_fields_of_its_definition() -> None:
    (akri,) = [yaml.safe_load(block) for block in BLOCKS if "kind: Configuration" in block]
    assert (akri["apiVersion"], set(akri["spec"])) == (
        "akri.sh/v0",
        {"discoveryHandler", "brokerProperties", "capacity"},
    )
    assert set(akri["spec"]["discoveryHandler"]) == {"name", "discoveryDetails"}
    assert "opcuaDiscoveryMethod" in yaml.safe_load(akri["spec"]["discoveryHandler"]["discoveryDetails"])
    (patch,) = [yaml.safe_load(block) for block in BLOCKS if "kind: Deployment" in block]
    (container,) = patch["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {f"akri.sh/{akri['metadata']['name']}": "1"}
