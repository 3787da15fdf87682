"""The YAML that Dapr reads: numbers that must fit each other, and no code beside it."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.cli.runfile import read_run_file
from services.cli.settings import default_root

ROOT = default_root()
DAPR = ROOT / "dapr"
PUBSUBS = sorted([*ROOT.glob("components/*/pubsub.yaml"), ROOT / "components" / "iotedge" / "cloud.yaml"])
LOCK_SECONDS = 15  # of the subscriptions in Azure
# Fixed in Dapr (cenkalti/backoff through dapr/kit): first interval, growth, and random stray either way.
FIRST, GROWTH, STRAY = 0.5, 1.5, 0.5
ADDRESSES = r"host|url|connectionString|namespace|vault|password|key$|token|consumerID"


def seconds(text: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(ms|s|m)", text).groups()  # type: ignore[union-attr]
    return int(number) * {"ms": 0.001, "s": 1.0, "m": 60.0}[unit]


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def metadata(path: Path) -> dict[str, Any]:
    return {entry["name"]: entry.get("value") for entry in documents(path)[0]["spec"]["metadata"]}


def longest_retries(policy: dict[str, Any]) -> float:
    waits, wait = [], FIRST
    for _ in range(policy["maxRetries"]):
        waits.append(wait * (1 + STRAY))
        wait = min(wait * GROWTH, seconds(policy["maxInterval"]))
    return sum(waits)


@pytest.mark.parametrize("path", PUBSUBS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_retries_and_a_handler_fit_into_the_brokers_patience(path: Path) -> None:
    policies = documents(DAPR / "resiliency.yaml")[0]["spec"]["policies"]
    longest = longest_retries(policies["retries"]["redeliver"]) + seconds(policies["timeouts"]["handler"])
    values = metadata(path)
    if documents(path)[0]["spec"]["type"] == "pubsub.redis":
        assert longest < int(values["processingTimeout"]) / 1000
        assert values["redeliverInterval"].isdigit()
    else:
        # A lock is renewed while its handler works, and daprd ends the handler before anybody else gets the event.
        assert documents(path)[0]["spec"]["type"] == "pubsub.azure.servicebus.topics"
        assert longest < int(values["handlerTimeoutInSec"])
        assert int(values["lockRenewalInSec"]) <= LOCK_SECONDS / 3


@pytest.mark.parametrize("path", PUBSUBS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_batch_fits_into_the_buss_concurrency(path: Path) -> None:
    concurrency = metadata(path).get("concurrency")
    for subscription in documents(DAPR / "subscriptions.yaml"):
        bulk = subscription["spec"]["bulkSubscribe"]
        assert bulk["enabled"] is True
        assert concurrency is None or bulk["maxMessagesCount"] < int(concurrency)


def test_resiliency_is_alone_in_its_file() -> None:
    assert len(documents(DAPR / "resiliency.yaml")) == 1


def test_every_subscription_is_scoped_and_has_somewhere_for_its_dead() -> None:
    app_ids = {app.app_id for app in read_run_file(DAPR / "dapr.yaml").apps} | {"uplink"}
    heard: set[tuple[str, str, str]] = set()
    for subscription in documents(DAPR / "subscriptions.yaml"):
        [app_id], spec = subscription["scopes"], subscription["spec"]
        assert app_id in app_ids
        assert (app_id, spec["pubsubname"], spec["topic"]) not in heard
        heard.add((app_id, spec["pubsubname"], spec["topic"]))
        assert spec["pubsubname"] == "pubsub" or (app_id, spec["pubsubname"]) == ("uplink", "cloud")
        assert spec["metadata"] == {"rawPayload": "true"}
        if spec["topic"] == f"dlq-{app_id}":
            assert spec["routes"]["default"] == "/events/dlq"
            assert "deadLetterTopic" not in spec
        else:
            assert spec["routes"]["default"] == f"/events/{spec['topic']}"
            assert spec["deadLetterTopic"] == f"dlq-{app_id}"
    assert {(app_id, bus, f"dlq-{app_id}") for app_id, bus, _ in heard} <= heard


def test_no_python_in_the_dapr_folder_hides_the_sdk() -> None:
    import dapr

    assert not list(DAPR.rglob("*.py"))
    assert [Path(path).parent.name for path in dapr.__path__] == ["site-packages"]


def test_hosts_and_secrets_stay_out_of_the_components() -> None:
    paths = [path for path in ROOT.glob("components/*/*.yaml") if path.name != "kustomization.yaml"]
    assert paths
    for path in paths:
        for entry in documents(path)[0]["spec"]["metadata"]:
            assert not ("value" in entry and re.search(ADDRESSES, entry["name"], re.IGNORECASE)), path
