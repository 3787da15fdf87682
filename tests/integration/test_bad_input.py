"""Bad requests and bad events on the real stack: refused with a reason, and nothing is the worse for it."""

import asyncio
import base64
import hashlib
import json
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from conftest import wait_until
from refusals import DEEP, OTHERS, PROJECT, TABLE, Bad
from worlds import LABELS, SPECS, classifier, png

from services.cli.settings import StackSettings, default_root
from services.cli.stack import Stack
from services.cli.toolchain import NoRuntime, find_runtime
from services.contracts.problem import MEDIA_TYPE
from services.runtime.settings import RuntimeSettings

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

PORT_OFFSET = 7000
APPS = tuple(TABLE)
FIELDS = {"type", "title", "status", "detail", "instance", "errors", "trace_id"}
LEAKS = ("Traceback", 'File "', "site-packages", ".py", "pydantic", "redis", "0x7f")
READS_BY_POST = {("infer", "post", "/v1/predict")}
SIGNED = ("retrain-trigger", "post", "/v1/runs/{run}:callback")  # no token is of use there


@dataclass
class World:
    """The running stack, with a project that has a model, a task on lease, and a neighbour."""

    stack: Stack
    http: httpx2.AsyncClient
    tokens: dict[str, str]
    names: dict[str, str]

    async def call(self, app: str, method: str, path: str, role: str = "admin", **how: Any) -> httpx2.Response:
        headers = {"authorization": f"Bearer {self.tokens[role]}"} if role else {}
        return await self.http.request(
            method, self.stack.url(app) + path, headers={**headers, **how.pop("headers", {})}, **how
        )

    async def good(self, app: str, method: str, path: str, **how: Any) -> Any:
        how["params"] = {"project": PROJECT, **how.get("params", {})}
        answer = await self.call(app, method, path, **how)
        assert answer.status_code < 300, (app, method, path, answer.text)
        return answer.json() if answer.content else None

    async def refused(self, app: str, bad: Bad) -> httpx2.Response:
        filled = json.dumps([bad.path, bad.how.get("json")])
        for name, value in self.names.items():
            filled = filled.replace("{" + name + "}", value)
        path, body = json.loads(filled)
        how = {**bad.how, "json": body} if "json" in bad.how else dict(bad.how)
        mark = "&" if "?" in path else "?"
        return await self.call(app, bad.method, f"{path}{mark}project={bad.project}", bad.role, **how)

    async def publish(self, topic: str, body: bytes, media_type: str, *, raw: bool) -> None:
        """Through the sidecar, as any publisher would."""
        port = self.stack.ports["ingest_http"]
        answer = await self.http.post(
            f"http://127.0.0.1:{port}/v1.0/publish/pubsub/{topic}",
            params={"metadata.rawPayload": "true"} if raw else {},
            content=body,
            headers={"dapr-api-token": self.stack.secrets.dapr_api, "content-type": media_type},
        )
        assert answer.status_code == 204, answer.text

    async def letters(self, app: str) -> list[dict[str, Any]]:
        return (await self.good(app, "GET", "/v1/deadletters", params={"limit": 500}))["items"]


def write_tokens(stack: Stack) -> dict[str, str]:
    """A token for each role, one for a single project; `nobody` has one that is not known."""
    tokens = {role: f"{role}-of-the-test" for role in ("viewer", "annotator", "reviewer", "operator", "only-shapes")}
    rows = [
        {
            "sha256": hashlib.sha256(token.encode()).hexdigest(),
            "subject": name,
            "role": "admin" if name == "only-shapes" else name,
            "projects": [PROJECT] if name == "only-shapes" else ["*"],
        }
        for name, token in tokens.items()
    ]
    known = json.loads(stack.home.tokens_file.read_text())["tokens"]
    stack.home.tokens_file.write_text(json.dumps({"tokens": known + rows}))
    return {**tokens, "admin": stack.token, "nobody": "guessed"}


def document(name: str) -> dict[str, Any]:
    policy = {"batch": 2, "min_pool": 1, "settle_seconds": 0, "control": 0, "audit": 0, "low_water": 1}
    return {
        "name": name,
        "task": "image-classification",
        "labels": LABELS,
        "input": SPECS["image"].model_dump(mode="json"),
        "policy": policy,
    }


async def settle(world: World) -> None:
    """A sample in each project, a task on lease, a model in service."""
    for name in (PROJECT, OTHERS):
        await world.good("retrain-trigger", "POST", "/v1/projects", json=document(name))
    for key, name in (("sample", PROJECT), ("foreign", OTHERS)):
        how = {"content": png(100), "headers": {"content-type": "image/png"}, "params": {"project": name}}
        world.names[key] = (await world.good("ingest", "POST", "/v1/samples", **how))["sample_id"]

    async def claimed() -> Any:
        return await world.good("label-queue", "POST", "/v1/tasks:claim", json={"n": 1})

    task = (await wait_until(claimed, 30))["tasks"][0]
    world.names["task"] = task["id"]
    world.names["round"] = (await world.good("label-queue", "GET", f"/v1/tasks/{task['id']}"))["round_id"]
    content, manifest = classifier()
    brought = {"artefact": base64.b64encode(content).decode(), "manifest": manifest.model_dump(mode="json")}
    world.names["model"] = (await world.good("retrain-trigger", "POST", "/v1/models", json=brought))["version"]

    async def serving() -> bool:
        items = (await world.good("infer", "GET", "/v1/loaded-models"))["items"]
        return any(item["active"] for item in items)

    await wait_until(serving, 30)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    try:
        find_runtime()
    except NoRuntime as error:
        if os.environ.get("CI") or os.environ.get("HALFSURE_REQUIRE_DAPR"):
            raise
        pytest.skip(str(error))
    home = tmp_path_factory.mktemp("bad-input") / "home"
    async with (
        Stack(StackSettings(home=home, port_offset=PORT_OFFSET)).running() as stack,
        httpx2.AsyncClient(timeout=30, trust_env=False) as client,
    ):
        world = World(stack, client, write_tokens(stack), {})
        await settle(world)
        yield world


def check_problem(world: World, answer: httpx2.Response, status: int) -> None:
    """RFC 9457 with all fields of the contract, and nothing that is nobody's business."""
    assert answer.status_code == status, answer.text[:500]
    assert answer.headers["content-type"] == MEDIA_TYPE
    body = answer.json()
    assert set(body) == FIELDS
    assert body["status"] == status
    assert body["type"].startswith("urn:halfsure:problem:")
    assert all((body["title"], body["detail"], body["instance"]))
    assert len(body["trace_id"]) == 32
    assert len(answer.content) < 20_000
    for fault in body["errors"]:
        assert set(fault) == {"pointer", "code", "message"}
        assert fault["pointer"] == "" or fault["pointer"].startswith("/")
    if status == 405:
        assert answer.headers["allow"]
    if status == 401 and not body["instance"].startswith("/events/"):
        wanted = "Signature" if body["instance"].endswith(":callback") else "Bearer"
        assert answer.headers["www-authenticate"] == wanted
    secrets = [world.stack.token, world.stack.secrets.app_api, world.stack.secrets.dapr_api, str(world.stack.home.path)]
    assert not [leak for leak in (*LEAKS, *secrets) if leak in answer.text]


class Numbers:
    """Pictures that nobody has sent yet."""

    def __init__(self) -> None:
        self.last = 0

    def png(self) -> bytes:
        self.last += 1
        return png(self.last % 256, self.last // 256)


FRESH = Numbers()


async def good_request(world: World, app: str) -> None:
    """What the service is for still works."""
    if app == "ingest":
        how = {"content": FRESH.png(), "headers": {"content-type": "image/png"}}
        assert (await world.good(app, "POST", "/v1/samples", **how))["state"] == "STORED"
    elif app == "infer":
        inputs = [{"data": base64.b64encode(png(0)).decode(), "media_type": "image/png"}]
        answer = await world.good(app, "POST", "/v1/predict", json={"inputs": inputs})
        assert [row["label"] for row in answer["predictions"]] == ["dark"]
    elif app == "select-uncertain":
        assert (await world.good(app, "POST", "/v1/policies/default:test", json={}))["considered"] >= 0
    elif app == "label-queue":
        beat = await world.good(app, "POST", f"/v1/tasks/{world.names['task']}:heartbeat", json={"epoch": 1})
        assert beat["state"] == "LEASED"
    else:
        rule = await world.good(app, "GET", f"/v1/triggers/{PROJECT}")
        await world.good(app, "PUT", f"/v1/triggers/{PROJECT}", json=rule["rule"], headers={"if-match": "*"})


async def check_health(world: World, app: str) -> None:
    for path in ("/healthz", "/readyz"):
        answer = await world.call(app, "GET", path, role="")
        assert answer.status_code == 200, answer.text
    for name in (app, f"{app}-sidecar"):
        assert world.stack.processes[name].restarts == 0, name


@pytest.mark.parametrize("app", APPS)
async def test_every_bad_request_is_refused_and_the_next_good_one_served(world: World, app: str) -> None:
    wrong: list[str] = []
    for bad in TABLE[app]:
        answer = await world.refused(app, bad)
        try:
            check_problem(world, answer, bad.status)
        except AssertionError as error:
            wrong.append(f"{bad.name}: {bad.method} {bad.path[:80]}: {answer.status_code} {str(error)[:300]}")
        await good_request(world, app)
    assert not wrong, "\n".join(wrong)
    await check_health(world, app)


@pytest.mark.parametrize("app", ["ingest", "label-queue"])
async def test_a_bad_line_does_not_fail_the_others(world: World, app: str) -> None:
    path = {"ingest": "/v1/samples:batch", "label-queue": "/v1/import"}[app]
    fine = {"data": base64.b64encode(FRESH.png()).decode(), "media_type": "image/png"}
    if app == "label-queue":
        fine["value"] = LABELS[0]
    line = json.dumps(fine).encode()
    bad = {
        b"{": 400,
        b"\xff": 400,
        DEEP: 400,
        line[:-1] + b',"x":NaN}': 422,
        line[:-1] + b',"x":1}': 422,
        b"[1]": 422,
        json.dumps({**fine, "data": "AAAA"}).encode(): 415 if app == "ingest" else 422,
        json.dumps({**fine, "data": base64.b64encode(png(7)[:-30]).decode()}).encode(): 422,
    }
    if app == "label-queue":
        bad[json.dumps({**fine, "value": "purple"}).encode()] = 422
    answer = await world.good(app, "POST", path, content=b"\n".join([*bad, line]))
    assert [row["status"] for row in answer["results"]] == [*bad.values(), 201]
    assert all(row["problem"]["detail"] for row in answer["results"][:-1])
    await check_health(world, app)


# Bodies that are too large: said before they are read, and when nobody says how large they will be.


async def speak(world: World, app: str, head: str, body: Iterator[bytes]) -> httpx2.Response:
    """Send by hand until the service answers, be it in the middle of the body."""
    port = int(world.stack.url(app).rsplit(":", 1)[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    token = world.tokens["admin"]
    writer.write(f"{head}host: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\r\n".encode())
    answered = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
    for part in body:
        if answered.done():
            break
        writer.write(part)
        await asyncio.wait({asyncio.create_task(writer.drain()), answered}, return_when="FIRST_COMPLETED")
    lines = (await asyncio.wait_for(answered, 20)).decode().splitlines()
    headers = dict(line.split(": ", 1) for line in lines[1:] if line)
    content = await reader.readexactly(int(headers["content-length"]))
    writer.close()
    return httpx2.Response(int(lines[0].split()[1]), headers=headers, content=content)


@pytest.mark.parametrize("app", APPS)
async def test_too_large_a_body_is_refused(world: World, app: str) -> None:
    limit = RuntimeSettings(app_port=1).max_body
    target = next(bad for bad in TABLE[app] if bad.name == "unknown field")
    head = f"{target.method} {target.path}?project={PROJECT} HTTP/1.1\r\n"
    said = await speak(world, app, f"{head}content-length: {limit + 1}\r\n", iter(()))
    check_problem(world, said, 413)
    part = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    unsaid = await speak(world, app, f"{head}transfer-encoding: chunked\r\n", iter([part] * 40))
    check_problem(world, unsaid, 413)
    await good_request(world, app)
    await check_health(world, app)


# Who may do what, for every route that there is.


async def operations(world: World, app: str) -> list[tuple[str, str]]:
    """(method, path) of everything in the service's own description, with a word for each parameter."""
    described = (await world.good(app, "GET", "/v1/openapi.json"))["paths"]
    assert len(described) > 5
    return [(method, path) for path, item in described.items() for method in item]


@pytest.mark.parametrize("app", APPS)
async def test_no_route_answers_without_a_token(world: World, app: str) -> None:
    for method, path in await operations(world, app):
        for role in ("", "nobody"):
            answer = await world.call(app, method.upper(), path.replace("{", "").replace("}", ""), role)
            assert answer.status_code == 401, (method, path, role, answer.text)
            check_problem(world, answer, 401)


@pytest.mark.parametrize("app", APPS)
async def test_a_viewer_writes_nothing(world: World, app: str) -> None:
    before = await picture_of(world, app)
    for method, path in await operations(world, app):
        if method == "get" or (app, method, path) in READS_BY_POST:
            continue
        route = path.replace("{", "").replace("}", "") + f"?project={PROJECT}"
        answer = await world.call(app, method.upper(), route, "viewer", json={})
        refusal = 401 if (app, method, path) == SIGNED else 403
        assert answer.status_code == refusal, (method, path, answer.text)
        check_problem(world, answer, refusal)
    assert await picture_of(world, app) == before


async def picture_of(world: World, app: str) -> list[Any]:
    """What a write would change."""
    paths = {
        "ingest": ["/v1/samples"],
        "infer": ["/v1/loaded-models"],
        "select-uncertain": ["/v1/policies/default/versions"],
        "label-queue": ["/v1/stats", f"/v1/schemas/{PROJECT}"],
        "retrain-trigger": ["/v1/projects", "/v1/runs", "/v1/models"],
    }
    seen = [await world.good(app, "GET", path) for path in paths[app]]
    for one in seen:
        one.pop("rss_bytes", None)
    return seen


# Events.

HEARERS = {
    "project": ["ingest", "infer", "select-uncertain", "label-queue"],
    "sample-ingested": ["infer"],
    "sample-scored": ["ingest", "select-uncertain"],
    "sample-selected": ["ingest", "label-queue"],
    "label-accepted": ["ingest", "select-uncertain", "retrain-trigger"],
    "model": ["ingest", "infer", "select-uncertain", "label-queue"],
    "model-status": ["retrain-trigger"],
}
KINDS = {
    "project": "project.updated",
    "sample-ingested": "sample.ingested",
    "sample-scored": "sample.scored",
    "sample-selected": "sample.selected",
    "label-accepted": "label.accepted",
    "model": "model.activated",
    "model-status": "model.loaded",
}
CLOUD, BINARY = "application/cloudevents+json", "application/octet-stream"


def bad_events(topic: str) -> Iterator[tuple[str, bytes, str, bool, str]]:
    """(mark that its letter holds, body, media type, raw, part of the reason)."""

    def event(name: str, **attributes: Any) -> bytes:
        base = {"specversion": "1.0", "id": f"{name}-{topic}", "source": "/test", "data": {"project": PROJECT}}
        time = datetime.now(UTC).isoformat()
        return json.dumps({**base, "time": time, "type": f"io.halfsure.{KINDS[topic]}.v1", **attributes}).encode()

    no_object = "not a JSON object"
    yield f"unknown-{topic}", event("unknown", type="io.halfsure.sample.sung.v1"), CLOUD, False, "unknown event type"
    yield f"major-{topic}", event("major", type=f"io.halfsure.{KINDS[topic]}.v9"), CLOUD, False, "unknown event type"
    yield f"unfit-{topic}", event("unfit", data={"project": PROJECT, "sample_id": 7}), CLOUD, False, "does not fit"
    yield f"empty-{topic}", event("empty", data=None), CLOUD, False, "does not fit"
    yield f"traced-{topic}", event("traced", type="x", traceid=5), CLOUD, False, "unknown event type"
    yield f"broken-{topic}", b"{broken-%s" % topic.encode(), CLOUD, True, no_object
    yield f"list-{topic}", b'["list-%s"]' % topic.encode(), CLOUD, True, no_object
    yield f"deep-{topic}", b'{"x":"deep-%s",' % topic.encode() + DEEP[1:], CLOUD, True, no_object
    yield f"binary-{topic}", b"\x00\xff\xfe binary-%s" % topic.encode(), BINARY, True, no_object
    yield f"nameless-{topic}", b'{"x":"nameless-%s"}' % topic.encode(), CLOUD, True, "not a CloudEvent"
    if topic in ("sample-ingested", "sample-scored", "sample-selected", "label-accepted"):
        content = {"uri": "blob:x", "sha256": "0" * 64, "bytes": 1, "media_type": "image/png"}
        data = {**FITTING[topic], "project": "nowhere", "sample_id": "smp_x", "content": content}
        yield f"stranger-{topic}", event("stranger", data=data), CLOUD, False, "no project 'nowhere'"


FITTING: dict[str, dict[str, Any]] = {
    "sample-ingested": {"captured_at": "2026-01-01T00:00:00Z"},
    "sample-scored": {"model_version": "none", "task": "image-classification", "latency_ms": 1, "provider": "x"},
    "sample-selected": {
        "round_id": "rnd_x",
        "priority": 0.5,
        "reasons": [],
        "policy": {"id": "default", "version": 1},
        "strategy": "random",
        "seed": 0,
    },
    "label-accepted": {
        "task_id": "tsk_x",
        "label_revision": 1,
        "value": "dark",
        "agreement": 1.0,
        "annotators": 1,
        "schema_version": 1,
    },
}


async def close_the_loop(world: World, project: str) -> None:
    """From a new project to its label's count, over every topic on which garbage lies."""
    await world.good("retrain-trigger", "POST", "/v1/projects", json=document(project))
    how: dict[str, Any] = {"params": {"project": project}}
    picture = {"content": FRESH.png(), "headers": {"content-type": "image/png"}}
    sample = (await world.good("ingest", "POST", "/v1/samples", **picture, **how))["sample_id"]

    async def claimed() -> Any:
        return await world.good("label-queue", "POST", "/v1/tasks:claim", json={"n": 1}, **how)

    (task,) = (await wait_until(claimed, 30))["tasks"]
    assert task["sample_id"] == sample
    await world.good(
        "label-queue", "POST", f"/v1/tasks/{task['id']}/annotations", json={"epoch": 1, "value": "dark"}, **how
    )

    async def counted() -> bool:
        return (await world.good("retrain-trigger", "GET", f"/v1/triggers/{project}"))["counters"]["new"] == 1

    await wait_until(counted, 30)


async def test_every_bad_event_is_one_dead_letter_and_good_ones_behind_it_go_through(world: World) -> None:
    wanted: dict[str, dict[str, str]] = {app: {} for app in APPS}
    for topic, hearers in HEARERS.items():
        for mark, body, media_type, raw, reason in bad_events(topic):
            await world.publish(topic, body, media_type, raw=raw)
            for app in hearers:
                wanted[app][mark] = reason
    await close_the_loop(world, "behind")

    async def all_there() -> bool:
        return all([len(await world.letters(app)) >= len(wanted[app]) for app in APPS])

    await wait_until(all_there, 20)
    for app in APPS:
        letters = await world.letters(app)
        for mark, reason in wanted[app].items():
            found = [letter for letter in letters if f'{mark}"' in json.dumps(letter).replace('\\"', '"')]
            found = found or [letter for letter in letters if mark in (letter["raw"] or "")]
            assert len(found) == 1, (app, mark, [letter["dlq"]["reason"] for letter in found])
            assert reason in found[0]["dlq"]["reason"], (app, mark, found[0]["dlq"])
            assert found[0]["dlq"]["attempts"] == 1, (app, mark)
        assert len(letters) == len(wanted[app]), (app, [letter["dlq"] for letter in letters])
        await check_health(world, app)


async def test_a_dead_letter_is_refused_again_and_can_be_discarded(world: World) -> None:
    letters = await world.letters("infer")
    for letter in letters[:3]:
        answer = await world.call("infer", "POST", f"/v1/deadletters/{letter['id']}/replay")
        check_problem(world, answer, 409)
    for letter in letters:
        await world.good("infer", "POST", f"/v1/deadletters/{letter['id']}/discard")
    assert await world.letters("infer") == []


async def test_nothing_unforeseen_has_happened(world: World) -> None:
    """No traceback in any log, no panic of a sidecar: every refusal above was meant."""
    for app in APPS:
        said = (world.stack.home.logs / f"{app}.log").read_text()
        assert "Traceback" not in said, said[said.index("Traceback") :][:2000]
        said = (world.stack.home.logs / f"{app}-sidecar.log").read_text()
        assert "panic:" not in said
    assert (default_root() / "dapr" / "subscriptions.yaml").read_text().count("rawPayload") >= len(HEARERS)
