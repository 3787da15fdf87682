"""deploy/azure as far as it can be checked without Azure, and `halfsure check` against answers of Azure's shapes."""

import importlib.util
import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from services.cli import azure
from services.cli.commands.check import OWN, unset
from services.cli.components import documents, environment
from services.cli.profiles import PROFILES
from services.cli.settings import default_root

ROOT = default_root()
FOLDER = ROOT / "deploy" / "azure"
TOPICS = json.loads((FOLDER / "topics.json").read_text())
BICEP = sorted(FOLDER.glob("*.bicep"))
GROUP = "/subscriptions/s1/resourceGroups/g1"


def test_the_list_of_topics_is_that_of_daprs_subscriptions() -> None:
    spec = importlib.util.spec_from_file_location("generate", FOLDER / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    assert generate.topics() == TOPICS, "python deploy/azure/generate.py"
    listed = {(topic["name"], name) for topic in TOPICS["topics"] for name in topic["subscriptions"]}
    for one in documents(ROOT / "dapr" / "subscriptions.yaml"):
        [app_id], spec = one["scopes"], one["spec"]
        if spec["pubsubname"] == "cloud":
            assert spec["topic"] in TOPICS["siteTopics"]
        else:
            assert ((spec["topic"], app_id) in listed) == (app_id != "uplink")


@pytest.mark.parametrize("path", BICEP, ids=lambda path: path.name)
def test_bicep_is_whole(path: Path) -> None:
    """No compiler: brackets that close, files and parameters that exist, and names that are declared."""
    text = re.sub(r"//[^\n]*", "", re.sub(r"'[^'\n]*'", lambda quoted: quoted[0].replace("//", ""), path.read_text()))
    for opening, closing in ("{}", "[]", "()"):
        assert text.count(opening) == text.count(closing)
    for name, arguments in modules(text):
        declared = (FOLDER / name).read_text()
        parameters = set(re.findall(r"^param (\w+)", declared, re.MULTILINE))
        needed = set(re.findall(r"^param (\w+) \w+$", declared, re.MULTILINE))
        assert needed <= arguments <= parameters, name
    symbols = set(re.findall(r"^(?:param|var|resource|module) (\w+)", text, re.MULTILINE))
    loops = set(re.findall(r"for (\w+) in", text)) | set(re.findall(r"(\w+) =>", text))
    used = set(re.findall(r"(?<![\w.'])(\w+)\.(?:id|name|outputs|properties|identity)\b", text))
    assert used <= symbols | loops


def modules(text: str) -> list[tuple[str, set[str]]]:
    found = re.findall(r"module \w+ '([^']+)'.*?params: \{(.*?)\n  \}", text, re.DOTALL)
    return [(name, set(re.findall(r"^    (\w+):", body, re.MULTILINE))) for name, body in found]


def test_keys_and_passwords_are_switched_off_and_roles_are_the_least() -> None:
    text = "\n".join(path.read_text() for path in BICEP)
    for switch in ("disableLocalAuth: true", "allowSharedKeyAccess: false", "passwordAuth: 'Disabled'"):
        assert switch in text
    for switch in ("allowBlobPublicAccess: false", "enableRbacAuthorization: true", "requiresDuplicateDetection: true"):
        assert switch in text
    assert "CloudEventSchemaV1_0" in text
    assert "listKeys" not in text
    given = set(re.findall(r"'([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})'", text))
    assert set(azure.ROLES) <= given
    assert len(given) == len(azure.ROLES) + 1, "and that of Azure ML"
    needed = {kind.lower() for kind in azure.RESOURCES}
    assert needed <= {kind.lower() for kind in re.findall(r"'(Microsoft\.\w+/\w+)@", text)}


class Azure:
    """Answers as Azure's management would, from what a test puts in."""

    def __init__(self) -> None:
        self.paths: dict[str, list[Any]] = {}
        self.status = 200
        rows = [
            {"type": kind, "name": kind.rpartition("/")[2], "id": f"{GROUP}/providers/{kind}/x"}
            for kind in azure.RESOURCES
        ]
        bus, account, identity = (rows[at]["id"] for at in (0, 2, 4))
        self.identity = identity
        self.paths[f"{GROUP}/resources"] = rows
        self.paths[f"{bus}/topics"] = [
            {"name": topic["name"], "properties": {"requiresDuplicateDetection": True}} for topic in TOPICS["topics"]
        ]
        for topic in TOPICS["topics"]:
            self.paths[f"{bus}/topics/{topic['name']}/subscriptions"] = [
                {"name": name, "properties": {"lockDuration": "PT15S", "maxDeliveryCount": 10}}
                for name in topic["subscriptions"]
            ]
        self.paths[f"{account}/blobServices/default/containers"] = [{"name": "halfsure"}]
        roles = f"{GROUP}/providers/Microsoft.Authorization/roleAssignments"
        self.paths[roles] = [{"properties": {"roleDefinitionId": f"/x/roleDefinitions/{role}"}} for role in azure.ROLES]
        self.bus, self.account, self.roles = bus, account, roles

    def answer(self, url: str) -> tuple[int, Any]:
        path, query = urlsplit(url).path, parse_qs(urlsplit(url).query)
        assert "api-version" in query
        if self.status != 200:
            return self.status, {"error": {"code": "AuthorizationFailed", "message": "you may not look"}}
        if path == self.identity:
            return 200, {"properties": {"principalId": "p1"}}
        if path == self.roles:
            assert query["$filter"] == ["principalId eq 'p1'"]
        rows, at = self.paths[path], int(query.get("at", ["0"])[0])
        page: dict[str, Any] = {"value": rows[at : at + 4]}
        if at + 4 < len(rows):
            page["nextLink"] = f"{self.base}{path}?api-version=1&at={at + 4}"
        return 200, page

    base = ""


@pytest.fixture
def cloud() -> Iterator[Azure]:
    made = Azure()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.headers["authorization"] == "Bearer t1"
            if "$filter" in self.path and "at=" in self.path:
                raise AssertionError("a next page is asked for as it is given")
            status, body = made.answer(self.path.replace("&$", "&%24"))
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.base = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield made
    server.shutdown()
    server.server_close()


def looked(cloud: Azure) -> list[str]:
    found = azure.inventory("t1", "s1", "g1", cloud.base)
    topics = {topic["name"]: topic["subscriptions"] for topic in TOPICS["topics"]}
    return list(azure.lacking(found, topics, "halfsure", 15.0, 10))


def test_nothing_is_missing_where_all_is_there_on_several_pages(cloud: Azure) -> None:
    assert looked(cloud) == []


def drop(path: Callable[[Azure], str], at: int) -> Callable[[Azure], Any]:
    return lambda cloud: cloud.paths[path(cloud)].pop(at)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        *((drop(lambda _: f"{GROUP}/resources", at), kind) for at, kind in enumerate(azure.RESOURCES)),
        *((drop(lambda c: c.roles, at), f"is not {role}") for at, role in enumerate(azure.ROLES.values())),
        (drop(lambda c: f"{c.bus}/topics", 0), f"no topic {TOPICS['topics'][0]['name']}"),
        (drop(lambda c: f"{c.bus}/topics/dlq-infer/subscriptions", 0), "dlq-infer has no subscription infer"),
        (drop(lambda c: f"{c.account}/blobServices/default/containers", 0), "no container 'halfsure'"),
        (
            lambda c: c.paths[f"{c.bus}/topics"][0]["properties"].update(requiresDuplicateDetection=False),
            "does not detect duplicates",
        ),
        (
            lambda c: c.paths[f"{c.bus}/topics/dlq-infer/subscriptions"][0]["properties"].update(lockDuration="PT1M"),
            "locks for PT1M, and needs PT15S",
        ),
        (
            lambda c: c.paths[f"{c.bus}/topics/dlq-infer/subscriptions"][0]["properties"].update(maxDeliveryCount=3),
            "gives up after 3 deliveries",
        ),
    ],
)
def test_each_missing_thing_is_said_in_words(cloud: Azure, change: Callable[[Azure], Any], words: str) -> None:
    """Row 0.14."""
    change(cloud)
    found = looked(cloud)
    assert len(found) == 1, found
    assert words in found[0]


def test_who_may_not_look_is_told_so(cloud: Azure) -> None:
    cloud.status = 403
    with pytest.raises(azure.NotAllowed, match=r"403.*you may not look"):
        looked(cloud)


def test_settings_that_are_missing_or_cannot_be_right_are_said_without_their_values() -> None:
    (place,) = PROFILES["azure"]
    read = environment(ROOT, place)
    right = {
        "HALFSURE_SERVICEBUS_NAMESPACE": "halfsure.servicebus.windows.net",
        "HALFSURE_POSTGRES_CONNECTION": "host=h user=u dbname=d sslmode=require",
        "HALFSURE_BLOBS": "https://a.blob.core.windows.net/halfsure",
        "HALFSURE_KEY_VAULT": "vault",
        "HALFSURE_TOKENS": "/etc/halfsure/tokens.json",
    }
    assert list(unset(read, OWN["azure"], right, place)) == []
    for name in right:
        (fault,) = unset(read, OWN["azure"], {**right, name: ""}, place)
        assert fault.startswith(name)
    by_string = right | {"HALFSURE_SERVICEBUS_NAMESPACE": "", "HALFSURE_SERVICEBUS_CONNECTION": "Endpoint=sb://x/;a=b"}
    assert list(unset(read, OWN["azure"], by_string, place)) == []
    (fault,) = unset(read, OWN["azure"], right | {"HALFSURE_BLOBS": "secret-thing"}, place)
    assert "cannot be right" in fault
    assert "secret-thing" not in fault
