"""The YAML that Dapr reads: numbers that must fit each other, and no code beside it."""

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from services.cli import components
from services.cli.components import documents
from services.cli.profiles import PROFILES, Profile
from services.cli.runfile import read_run_file
from services.cli.settings import default_root
from services.contracts.inputs import InputSpec
from services.contracts.projects import ProjectSpec
from services.standins.entities import LOCK_SECONDS

ROOT = default_root()
DAPR = ROOT / "dapr"
PUBSUBS = sorted([*ROOT.glob("components/*/pubsub.yaml"), ROOT / "components" / "iotedge" / "cloud.yaml"])
# Fixed in Dapr (cenkalti/backoff through dapr/kit): first interval, growth, and random stray either way.
FIRST, GROWTH, STRAY = 0.5, 1.5, 0.5


def seconds(text: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(ms|s|m)", text).groups()  # type: ignore[union-attr]
    return int(number) * {"ms": 0.001, "s": 1.0, "m": 60.0}[unit]


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


@pytest.mark.parametrize("profile", list(PROFILES))
def test_every_profiles_components_are_what_dapr_says_they_may_be(profile: Profile) -> None:
    assert components.profile_faults(ROOT, profile) == []


def test_components_of_one_name_are_for_the_same_services_on_every_profile() -> None:
    """Row 3.2: a service finds its stores and buses by name, wherever it runs."""
    scopes: dict[str, set[tuple[str, ...]]] = {}
    for folder in ("local", "iotedge", "azure"):
        found = components.folder_components(ROOT / "components" / folder)
        for one in [one for ones in found.values() for one in ones]:
            scopes.setdefault(one["metadata"]["name"], set()).add(tuple(one.get("scopes", ())))
    assert all(len(found) == 1 for found in scopes.values()), scopes
    assert set(scopes) == {"pubsub", "statestore", "secretstore", "cloud", "sensors"}


def mutated(folder: str, file: str, change: Callable[[dict[str, Any]], Any]) -> list[str]:
    files = components.folder_components(ROOT / "components" / folder)
    change(files[file][0])
    return components.faults(files, components.index(ROOT), {"ingest", "uplink"})


def entry(one: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in one["spec"]["metadata"] if row["name"] == name)


@pytest.mark.parametrize(
    ("folder", "file", "change", "words"),
    [
        ("local", "pubsub.yaml", lambda c: entry(c, "concurrency").update(name="concurency"), "perhaps 'concurrency'"),
        ("local", "pubsub.yaml", lambda c: entry(c, "concurrency").update(value="many"), "must be a number"),
        ("local", "pubsub.yaml", lambda c: entry(c, "concurrency").update(value=256), 'write "256"'),
        ("local", "pubsub.yaml", lambda c: c["spec"]["metadata"].pop(0), "redisHost is missing"),
        ("local", "pubsub.yaml", lambda c: entry(c, "redisHost").update(envRef="PATH"), "begin with HALFSURE_"),
        ("local", "pubsub.yaml", lambda c: c["spec"]["metadata"].append(c["spec"]["metadata"][0]), "said twice"),
        ("local", "pubsub.yaml", lambda c: c["spec"].update(type="pubsub.rediss"), "perhaps 'pubsub.redis/v1'"),
        ("local", "pubsub.yaml", lambda c: c["spec"].update(version="v9"), "pubsub.redis/v9 is not known"),
        ("local", "pubsub.yaml", lambda c: c.update(kind="Componet"), "is no component of Dapr"),
        ("local", "pubsub.yaml", lambda c: c.update(scope=["ingest"]), "perhaps 'scopes'"),
        ("local", "pubsub.yaml", lambda c: c.update(scopes=["ingets"]), "perhaps 'ingest'"),
        ("local", "pubsub.yaml", lambda c: c["metadata"].update(name="bus"), "no component 'pubsub'"),
        ("local", "pubsub.yaml", lambda c: c["metadata"].update(name="statestore"), "is there twice"),
        ("local", "statestore.yaml", lambda c: entry(c, "actorStateStore").update(value="perhaps"), "true or false"),
        ("azure", "statestore.yaml", lambda c: entry(c, "timeout").update(value="soon"), "must be a duration"),
        ("azure", "statestore.yaml", lambda c: c["spec"]["metadata"].pop(0), "how to authenticate"),
        (
            "azure",
            "pubsub.yaml",
            lambda c: c["spec"].update(metadata=c["spec"]["metadata"][2:]),
            "connectionString, or",
        ),
        ("azure", "secretstore.yaml", lambda c: entry(c, "vaultName").update(value="v"), "takes exactly one of"),
        ("iotedge", "sensors.yaml", lambda c: entry(c, "direction").update(value="sideways"), "must be one of input"),
        (
            *("iotedge", "sensors.yaml"),
            lambda c: c["spec"]["metadata"].append({"name": "caCert", "value": "x", "why": "y"}),
            "takes exactly one of",
        ),
        (
            *("iotedge", "sensors.yaml"),
            lambda c: c["spec"]["metadata"].__setitem__(0, {"name": "url", "value": "tcp://broker:1883"}),
            "differs from place to place",
        ),
    ],
)
def test_a_mistake_in_a_component_is_said_in_a_sentence(folder: str, file: str, change: Any, words: str) -> None:
    found = mutated(folder, file, change)
    assert any(words in fault for fault in found), found


def test_what_is_known_of_the_types_is_what_daprs_sources_say(tmp_path: Path) -> None:
    """Where the sources are: after a build of the runtime, that is."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "components" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    assert generate.used() == set(components.index(ROOT))
    go = shutil.which("go")
    cache = go and subprocess.run([go, "env", "GOMODCACHE"], capture_output=True, text=True, check=True).stdout.strip()
    folder = Path(cache or tmp_path) / generate.MODULE
    if not folder.exists():
        pytest.skip("the sources of Dapr's components are not here")
    assert generate.derived(folder) == components.index(ROOT)


@pytest.mark.parametrize("field", ["pubsub", "statestore", "secretstore", "components", "blobs"])
def test_a_project_cannot_choose_other_components(field: str) -> None:
    """Row 3.2: connections are a profile's, by name; a project has no way to another store or bus."""
    project = {"name": "p", "task": "image-classification", "labels": ["a", "b"]}
    project["input"] = InputSpec.image(8, 8, 1).model_dump(mode="json")  # type: ignore[assignment]
    ProjectSpec.model_validate(project)
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        ProjectSpec.model_validate({**project, field: "another"})
