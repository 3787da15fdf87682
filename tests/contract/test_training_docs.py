"""docs/training.md: its examples are what the code takes."""

import json
import re
from pathlib import Path

import pytest
import yaml

from services.contracts.manifest import OutputSpec
from services.contracts.projects import ProjectSpec, TriggerRule
from services.contracts.signatures import key_of
from services.retrain_trigger import settings
from services.retrain_trigger.backend_routes import HINT
from services.retrain_trigger.backends.webhook import Callback

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "training.md").read_text()
FENCES = re.findall(r"^```(\w+) (\w+)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def examples(name: str) -> list[str]:
    found = [body for _, label, body in FENCES if label == name]
    assert found, name
    return found


def test_the_trigger_is_one() -> None:
    for text in examples("trigger"):
        assert TriggerRule.model_validate_json(text).drift


def test_the_rules_of_a_project_are_some() -> None:
    for text in examples("project"):
        for name, value in json.loads(text).items():
            kind = ProjectSpec.model_fields[name].annotation
            assert kind is not None
            assert kind.model_validate(value)


def test_the_callback_and_the_manifest_are_taken() -> None:
    for text in examples("callback"):
        assert Callback.model_validate_json(text)
    for text in examples("manifest"):
        assert OutputSpec.model_validate(json.loads(text)["outputs"])


@pytest.mark.parametrize("text", examples("settings"))
def test_every_setting_is_read(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {
        f"{kind.model_config.get('env_prefix')}{name.upper()}"
        for kind in (
            settings.RetrainTriggerSettings,
            settings.AzureMlSettings,
            settings.WebhookSettings,
            settings.MlflowSettings,
        )
        for name in kind.model_fields
    }
    rows = dict(line.split("=", 1) for line in text.splitlines())
    assert rows.keys() <= known
    for name, value in rows.items():
        monkeypatch.setenv(name, value.strip('"'))
    read = settings.RetrainTriggerSettings()
    assert read.backend in rows["HALFSURE_RETRAIN_TRIGGER_BACKEND"]
    if read.backend == "webhook":
        assert key_of(settings.WebhookSettings().secret.get_secret_value())


@pytest.mark.parametrize("text", examples("mlflow"))
def test_the_mirrors_settings_are_read(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for row in text.splitlines():
        monkeypatch.setenv(*row.split("=", 1))
    read = settings.MlflowSettings()
    assert read.url == "http://127.0.0.1:5000"
    assert read.token.get_secret_value()


def test_the_subscription_goes_to_the_route_of_hints() -> None:
    (text,) = examples("subscription")
    spec = yaml.safe_load(text)["spec"]
    assert spec["routes"]["default"] == HINT


def test_every_backend_is_described_and_every_path_is_there() -> None:
    for backend in ("local", "command", "kubernetes", "azureml", "webhook"):
        assert f"**`{backend}`**" in TEXT
    for path in re.findall(r"\]\((\.\.?/[^)#]+|[a-z]+\.md)\)", TEXT):
        assert (ROOT / "docs" / path).exists(), path
