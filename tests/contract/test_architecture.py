"""ARCHITECTURE.md says what the code does."""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import dapr
import pytest
import yaml

from services.contracts.events import EVENT_TYPES
from services.runtime import dapr_ports, errors, inbox, outbox, projects
from services.runtime.errors import Refusal
from services.runtime.service import Service
from services.runtime.settings import RuntimeSettings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "ARCHITECTURE.md").read_text()
APPS = ["ingest", "infer", "select-uncertain", "label-queue", "retrain-trigger", "uplink", "portal"]


def rows(heading: str) -> Iterator[list[str]]:
    """The cells of the table below a heading."""
    section = TEXT.split(f"## {heading}", 1)[1].split("\n## ", 1)[0]
    for line in section.splitlines():
        if line.startswith("|") and not line.startswith("|---"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def build(app_id: str, folder: Path) -> Service:
    async def connect(_: RuntimeSettings):
        raise RuntimeError("not started")

    module = importlib.import_module(f"services.{app_id.replace('-', '_')}.app")
    return module.create(RuntimeSettings(state_dir=folder), connect)


def names(cell: str) -> set[str]:
    return set(re.findall(r"[A-Z]\w+", cell))


@pytest.mark.parametrize("app_id", APPS)
def test_the_services_hear_and_say_what_the_table_says(app_id: str, tmp_path: Path) -> None:
    (row,) = [row for row in rows("3. Services") if row[0] == app_id]
    service = build(app_id, tmp_path)
    heard = {kind.__name__ for kind in service.inbox.subscriptions}
    assert names(row[2]) == heard
    assert names(row[3]) == {event.__name__ for event in service.said}


@pytest.mark.parametrize("app_id", APPS)
def test_a_service_is_subscribed_to_the_topics_of_what_it_hears(app_id: str, tmp_path: Path) -> None:
    documents = yaml.safe_load_all((ROOT / "dapr" / "subscriptions.yaml").read_text())
    mine = {doc["spec"]["topic"]: doc["spec"] for doc in documents if doc["scopes"] == [app_id]}
    wanted = {kind.topic for kind in build(app_id, tmp_path).inbox.subscriptions}
    assert set(mine) == wanted | {f"dlq-{app_id}"}
    for topic, spec in mine.items():
        route = "dlq" if topic.startswith("dlq-") else topic
        assert spec["routes"]["default"] == f"/events/{route}"
        assert spec["bulkSubscribe"]["enabled"]
        assert topic.startswith("dlq-") or spec["deadLetterTopic"] == f"dlq-{app_id}"


def test_the_event_table_is_the_code() -> None:
    table = {row[0].strip("`"): names(row[1]) for row in rows("4. Events") if row[0] != "topic"}
    code: dict[str, set[str]] = {}
    for event in EVENT_TYPES.values():
        code.setdefault(event.topic, set()).add(event.__name__)
    assert table == code


def test_every_refusal_of_the_shared_ground_has_a_verdict() -> None:
    shared = (errors, outbox, projects, dapr_ports, inbox)
    found = {
        name
        for module in shared
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Refusal) and value is not Refusal
    }
    listed = {match for row in rows("6. Verdicts") for match in re.findall(r"`(\w+)`", row[1])}
    assert found <= listed


def test_dapr_is_the_sdk_and_the_folder_holds_no_python() -> None:
    assert len(dapr.__path__) == 1
    assert "site-packages" in dapr.__path__[0]
    assert not list((ROOT / "dapr").rglob("*.py"))


def test_what_is_in_the_local_profile_is_in_every_profile() -> None:
    profiles = {
        folder.name: {
            component["metadata"]["name"]: component["spec"]["type"]
            for file in folder.glob("*.yaml")
            if (component := yaml.safe_load(file.read_text()))["kind"] == "Component"
        }
        for folder in (file.parent for file in ROOT.glob("components/*/kustomization.yaml"))
    }
    for profile, components in profiles.items():
        assert profiles["local"].keys() <= components.keys(), profile
    (heading, *table) = rows("9. Environments")
    for profile in profiles:
        column = heading.index(profile)
        said = {row[0]: row[column] for row in table if row[column] and row[0] != "blobs"}
        assert said == profiles[profile], profile


def test_modules_stay_small() -> None:
    """All but the vocabulary, which is read as one list, and the client's routes, which are generated."""
    long = {
        str(path.relative_to(ROOT)): lines
        for path in (ROOT / "services").rglob("*.py")
        if str(path.relative_to(ROOT / "services")) not in ("contracts/events.py", "client/routes.py")
        and (lines := len(path.read_text().splitlines())) > 340
    }
    assert not long


def test_the_readme_names_the_two_commands_first_and_ci_runs_the_second() -> None:
    readme = (ROOT / "README.md").read_text()
    block = re.search(r"```sh make\n(.*?)```", readme, re.DOTALL)
    assert block
    assert "make demo" in block[1]
    assert "make test" in block[1]
    assert "make test" in (ROOT / ".ci" / "run").read_text()
