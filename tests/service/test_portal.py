"""portal: one origin for the page and every service, with nothing else behind it; and the loop's events as a stream."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from conftest import SIDECAR_TOKEN, TOKENS, Running, started, wait_until
from crowd import project, selected
from listening import Listener, on_a_socket, parsed
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from services.contracts.events import LabelAccepted, ModelActivated, TaskQueued
from services.contracts.ids import task_id
from services.label_queue.app import create as label_queue
from services.portal import gateway
from services.portal.app import create
from services.portal.feed import RING
from services.runtime.memory import MemoryBlobs, MemoryBus, MemoryPeers, MemoryState, SystemClock
from services.runtime.memory_workflows import MemoryWorkflows
from services.runtime.ports import Ports

CONTENT: dict[str, Any] = {"uri": "blob:x", "sha256": "0" * 64, "bytes": 1, "media_type": "image/png"}


class Echo:
    """A service that answers what it was asked; `/v1/big` is a long body, `/v1/page` something harmful."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        self.calls.append(scope["raw_path"].decode())
        if request.url.path == "/v1/page":
            harm = {"set-cookie": "a=b", "connection": "x-inner", "x-inner": "1", "dapr-caller": "me"}
            return await Response("<script>1</script>", headers=harm, media_type="text/html")(scope, receive, send)
        said = {
            "method": request.method,
            "target": f"{scope['raw_path'].decode()}?{scope['query_string'].decode()}",
            "headers": dict(request.headers),
            "bytes": len(await request.body()),
        }
        await Response(orjson.dumps(said), 207, media_type="application/json")(scope, receive, send)


def with_peers(**apps: Any) -> Ports:
    clock = SystemClock()
    peers = MemoryPeers(apps={name.replace("_", "-"): app for name, app in apps.items()})
    return Ports(MemoryState(clock), MemoryBus(), MemoryBlobs(), clock, peers, MemoryWorkflows())


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
async def portal(tmp_path: Path, echo: Echo) -> AsyncIterator[Running]:
    async with started(create, tmp_path, with_peers(ingest=echo), max_body=1000) as running:
        yield running


# The gateway.


async def test_a_call_is_handed_on_as_it_came_with_the_callers_own_token(portal: Running) -> None:
    headers = {"if-match": '"3"', "cookie": "a=b", "dapr-api-token": "stolen", "connection": "x-mine", "x-mine": "1"}
    path = "/api/ingest/v1/samples/smp_a%C3%A9:retract?project=p%20q&a=b&a=c"
    answer = await portal.call("PUT", path, headers=headers, content=b"x" * 900)
    assert answer.status_code == 207
    said = answer.json()
    assert said["method"] == "PUT"
    assert said["target"] == "/v1/samples/smp_a%C3%A9:retract?project=p%20q&a=b&a=c"
    assert said["bytes"] == 900
    assert said["headers"]["authorization"] == f"Bearer {TOKENS['admin']}"
    assert said["headers"]["if-match"] == '"3"'
    assert not {"cookie", "dapr-api-token", "x-mine", "connection"} & set(said["headers"])


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer nonsense"}, {"dapr-api-token": "x"}])
async def test_without_a_token_nothing_is_handed_on(portal: Running, echo: Echo, headers: dict[str, str]) -> None:
    """Else the sidecar's own token would let anybody read."""
    answer = await portal.client.get("/api/ingest/v1/samples", headers=headers)
    assert answer.status_code == 401
    assert echo.calls == []


@pytest.mark.parametrize(
    "path",
    [
        "/api/portal/v1/me",
        "/api/dapr/v1/x",
        "/api/ingest/healthz",
        "/api/ingest/metrics",
        "/api/ingest/events/project",
        "/api/ingest/v1",
        "/api/ingest/v1/",
        "/api/ingest/v1//x",
        "/api/ingest/v2/x",
        "/api/ingest/v1/../metrics",
        "/api/ingest/v1/./x",
        "/api/ingest/v1/x/..",
        "/api/ingest/v1/%2e%2e/metrics",
        "/api/ingest/v1/x%2F..%2Fmetrics",
        "/api/ingest/v1/%252e%252e/metrics",
        "/api/ingest/v1/x%5C..%5Cmetrics",
        "/api/ingest/v1/x%00",
        "/api/ingest/v1/x%0d%0aa:b",
        "/api/ingest/../label-queue/v1/tasks",
        "/api//v1/x",
        "/api/ingest%2Fv1/v1/x",
    ],
)
async def test_no_path_leads_elsewhere(port: int, echo: Echo, path: str) -> None:
    status, head = await asked(port, path)
    assert status == 404
    assert "content-type: application/problem+json" in head
    assert echo.calls == []


async def asked(port: int, path: str) -> tuple[int, str]:
    """Status and head of the answer to a GET of just these bytes, which a client would tidy up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [f"GET {path} HTTP/1.1", "host: x", f"authorization: Bearer {TOKENS['admin']}", "connection: close"]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    head, _, _ = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    return int(head.split()[1]), head


def test_a_fragment_or_a_raw_byte_in_the_query_is_refused() -> None:
    assert gateway.target_of(b"/api/a/v1/x", b"q=1", "a") == "/v1/x?q=1"
    assert gateway.target_of(b"/api/a/v1/x", b"q=#", "a") is None
    assert gateway.target_of(b"/api/a/v1/x", b"q=\xff", "a") is None
    assert gateway.target_of(b"/api/b/v1/x", b"", "a") is None


async def test_a_body_over_the_limit_is_refused_with_and_without_a_length(portal: Running) -> None:
    async def drip() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b"x" * 100

    for content in (b"x" * 1001, drip()):
        answer = await portal.call("POST", "/api/ingest/v1/samples", content=content)
        assert answer.status_code == 413


async def test_what_a_service_stores_is_never_a_page_of_this_origin(portal: Running) -> None:
    answer = await portal.call("GET", "/api/ingest/v1/page")
    assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert not {"set-cookie", "x-inner", "dapr-caller", "connection"} & set(answer.headers)


async def test_a_service_that_is_away_is_said_to_be(portal: Running) -> None:
    answer = await portal.call("GET", "/api/label-queue/v1/stats")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert "label-queue does not answer" in answer.json()["detail"]


async def test_people_label_through_it(tmp_path: Path) -> None:
    """The queue's own rules, through the portal: leases, problems, idempotency keys, retries after a restart."""
    folder = tmp_path / "queue"
    folder.mkdir()
    async with started(label_queue, folder) as queue:
        await queue.deliver(project(), selected("smp_a"))
        async with started(create, tmp_path, with_peers(label_queue=queue.service.api)) as portal:
            (task,) = (await portal.call("POST", "/api/label-queue/v1/tasks:claim", json={"n": 1})).json()["tasks"]
            assert task["id"] == task_id("default", "smp_a")
            body = {"epoch": task["lease"]["epoch"], "value": "cat"}
            path = f"/api/label-queue/v1/tasks/{task['id']}/annotations"
            wrong = await portal.call("POST", path, json={**body, "value": "cow"})
            assert wrong.status_code == 422
            assert wrong.json()["errors"][0]["code"] == "unknown-label"
            for _ in range(2):
                answer = await portal.call("POST", path, json=body, headers={"idempotency-key": "k"})
                assert answer.status_code == 201
            assert (await portal.call("POST", "/api/label-queue/v1/tasks:claim", json={"n": 1})).status_code == 204
            denied = await portal.call("POST", "/api/label-queue/v1/tasks:claim", "viewer", json={"n": 1})
            assert denied.status_code == 403


# The page.


@pytest.mark.parametrize("path", ["/", "/label", "/dashboard", "/samples/smp_x", "/static/index.html"])
async def test_the_page_may_talk_to_this_origin_and_nobody_else(portal: Running, path: str) -> None:
    answer = await portal.client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy.pop("default-src") == "'none'"
    assert policy.pop("require-trusted-types-for") == "'script'"
    assert set(policy.values()) == {"'self'", "'none'"}
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert (await portal.client.head(path)).status_code == 200


async def test_files_are_packed_and_known_again(portal: Running) -> None:
    answer = await portal.client.get("/static/index.html", headers={"accept-encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    again = await portal.client.get("/static/index.html", headers={"if-none-match": answer.headers["etag"]})
    assert again.status_code == 304
    assert again.content == b""
    plain = await portal.client.get("/static/index.html", headers={"accept-encoding": "identity"})
    assert plain.content == answer.content
    assert len(gzip.compress(plain.content)) > 0


@pytest.mark.parametrize("path", ["/static/../app.py", "/static/%2e%2e/app.py", "/static/", "/static/app.py", "/etc"])
async def test_only_the_page_is_served(port: int, path: str) -> None:
    assert (await asked(port, path))[0] == 404


async def test_it_says_who_one_is(portal: Running) -> None:
    answer = await portal.call("GET", "/v1/me", "annotator")
    assert answer.json()["subject"] == answer.json()["role"] == "annotator"
    assert answer.json()["projects"] == ["*"]
    assert (await portal.client.get("/v1/me")).status_code == 401


# The stream.


def queued(name: str, project_: str = "default", epoch: int = 0) -> TaskQueued:
    return TaskQueued(project=project_, sample_id=name, task_id=task_id(project_, name), lease_epoch=epoch)


def accepted(name: str) -> LabelAccepted:
    return LabelAccepted(project="default", sample_id=name, label_revision=1, value="cat", content=CONTENT)  # pyright: ignore[reportArgumentType]


@pytest.fixture
async def port(portal: Running) -> AsyncIterator[int]:
    async with on_a_socket(portal) as port:
        yield port


async def test_listeners_hear_what_happens_without_what_could_sway_them(portal: Running, port: int) -> None:
    async with Listener(port) as listener:
        assert listener.events()[0]["event"] == "hello"
        await portal.deliver(queued("smp_a"), accepted("smp_a"))
        (task,) = await listener.heard("task.queued")
        assert task["data"] == {"task_id": task_id("default", "smp_a"), "sample_id": "smp_a", "lease_epoch": 0}
        (label,) = await listener.heard("label.accepted")
        assert label["data"] == {"sample_id": "smp_a", "label_revision": 1, "annotators": 1}


async def test_a_listener_hears_of_its_own_projects_only(portal: Running, port: int) -> None:
    async with Listener(port, "other-token") as other, Listener(port, query="?project=default") as one:
        await portal.deliver(queued("smp_a"), queued("smp_b", "other"))
        assert [row["project"] for row in await other.heard("task.queued")] == ["other"]
        assert [row["project"] for row in await one.heard("task.queued")] == ["default"]
    answer = await portal.client.get("/v1/events?project=default", headers={"authorization": "Bearer other-token"})
    assert answer.status_code == 404


async def test_it_resumes_where_a_listener_was_also_after_a_restart(tmp_path: Path) -> None:
    ports = with_peers()
    async with started(create, tmp_path, ports) as portal:
        await portal.deliver(*(queued(f"smp_{n}") for n in range(3)))
    async with started(create, tmp_path, ports) as portal:
        await portal.service.state.get([])
        feed = _feed(portal)
        begun = [await _first(feed.follow(after, lambda _: True, 60)) for after in (None, 1, 3, 99)]
        assert [frame[0]["event"] for frame in begun] == ["hello", "hello", "hello", "reset"]
        stream = feed.follow(1, lambda _: True, 60)
        await anext(stream)
        names = [orjson.loads(parsed((await anext(stream)).decode())[0]["data"])["data"]["sample_id"] for _ in "12"]
        assert names == ["smp_1", "smp_2"]


async def test_whoever_missed_too_much_is_told_to_read_everything_again(tmp_path: Path) -> None:
    async with started(create, tmp_path, with_peers()) as portal:
        for n in range(RING + 5):
            await portal.deliver(queued(f"smp_{n}"))
        feed = _feed(portal)
        await feed.look()
        assert (await _first(feed.follow(2, lambda _: True, 60)))[0]["event"] == "reset"
        assert (await _first(feed.follow(RING, lambda _: True, 60)))[0]["event"] == "hello"


async def test_two_replicas_tell_the_same(tmp_path: Path) -> None:
    """Each hears a part of the events from the broker; the ring in the store has them all, each number once."""
    ports = with_peers()
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    async with (
        started(create, folders[0], ports, replica=0) as one,
        started(create, folders[1], ports, replica=1) as two,
    ):
        events = [queued(f"smp_{n}") for n in range(20)]
        await asyncio.gather(*((one, two)[n % 2].deliver(event) for n, event in enumerate(events)))
        told = []
        for portal in (one, two):
            feed = _feed(portal)
            await feed.look()
            told.append([row["data"]["sample_id"] for part in feed._segments for row in part.lines])
        assert told[0] == told[1]
        assert sorted(told[0]) == sorted(event.sample_id for event in events)


async def test_a_stream_ends_with_its_token(portal: Running, port: int, tmp_path: Path) -> None:
    async with Listener(port) as listener:
        (tmp_path / "tokens.json").write_text('{"tokens": []}')
        await portal.deliver(queued("smp_a"))
        await wait_until(lambda: listener.ended)
        assert "smp_a" not in listener.text


async def test_a_foreign_event_id_is_refused(portal: Running) -> None:
    for name in ("x", "-1", "1" * 30, "²"):
        headers = {"last-event-id": name.encode()}
        answer = await portal.call("GET", "/v1/events", headers=headers)
        assert answer.status_code == 400, name


async def test_only_its_own_sidecar_may_tell_it_of_events(portal: Running) -> None:
    answer = await portal.call("POST", "/events/task", json={})
    assert answer.status_code == 401
    assert SIDECAR_TOKEN


async def test_models_are_told_by_their_version(portal: Running, port: int) -> None:
    activated = ModelActivated(
        project="default",
        version="mdl_1",
        activation_epoch=2,
        artefact=CONTENT,  # pyright: ignore[reportArgumentType]
        manifest=CONTENT,  # pyright: ignore[reportArgumentType]
        reason="better",
    )
    async with Listener(port) as listener:
        await portal.deliver(activated)
        (row,) = await listener.heard("model.activated")
        assert row["data"] == {"version": "mdl_1", "activation_epoch": 2, "reason": "better"}


def _feed(portal: Running) -> Any:
    return portal.service._loops[0][1].__self__  # type: ignore[attr-defined]


async def _first(stream: AsyncIterator[bytes]) -> list[dict[str, str]]:
    return parsed((await anext(stream)).decode())
