"""docs/models.md: its examples are what the code takes."""

import json
import re
import shlex

import pytest

from services.cli.settings import default_root
from services.contracts import endpoints
from services.contracts.endpoints import Answer, Endpoint, Prediction
from services.contracts.manifest import ModelManifest
from services.contracts.projects import SelectionPolicy
from services.infer.settings import InferSettings, Server

PAGE = (default_root() / "docs" / "models.md").read_text()
BLOCKS = dict(re.findall(r"^```(?:json|sh) (\S+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))


def test_manifests_endpoint_and_messages_are_what_the_code_takes() -> None:
    assert ModelManifest.model_validate_json(BLOCKS["manifest"]).backend == "onnx"
    manifest = ModelManifest.model_validate_json(BLOCKS["http-manifest"])
    endpoint = endpoints.read(BLOCKS["endpoint"].encode(), manifest)
    request = json.loads(BLOCKS["request"])
    posted = endpoints.posted(
        manifest.model_copy(update={"version": "mdl_1"}), endpoint, [(b"\x89PNG\r\n\x1a\n", "image/png")]
    )
    assert json.loads(posted) == request
    (said,) = Answer.model_validate_json(BLOCKS["answer"]).predictions
    assert endpoints.mismatch(Prediction.model_validate(said), manifest, endpoint) is None
    SelectionPolicy.model_validate_json(BLOCKS["policy"])


def test_the_setting_is_read_and_every_field_of_a_server_has_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    name, _, value = shlex.split(BLOCKS["servers"])[0].partition("=")
    monkeypatch.setenv(name, value)
    assert InferSettings().servers["eye"].url == "http://127.0.0.1:9000/score"
    rows = re.findall(r"^\| `(\w+)` \|([^|]*)\|", PAGE, re.MULTILINE)
    defaults = {field: str(info.default) for field, info in Server.model_fields.items()}
    assert {field for field, _ in rows} >= set(defaults)
    said = {
        field: default.strip() for field, default in rows if field in defaults and default.strip() not in ("", "none")
    }
    assert {field: float(default) for field, default in said.items()} == {
        field: float(defaults[field]) for field in said
    }


def test_an_endpoint_says_no_address() -> None:
    assert set(Endpoint.model_fields) == {"server", "parameters", "embedding"}
