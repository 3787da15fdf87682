"""The shell: verdicts, idempotency, the outbox across restarts, problems, tokens, dead letters."""

import base64
import contextlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import Running, started, wait_until
from prometheus_client.metrics import MetricWrapperBase

from services.cli.settings import default_root
from services.contracts.envelope import Message
from services.contracts.events import SampleDiscarded, SampleWithdrawn, ServiceHeartbeat
from services.contracts.problem import Problem
from services.runtime import telemetry
from services.runtime.access import Project, needs
from services.runtime.errors import Drop, Retry
from services.runtime.ports import Outgoing, Ports
from services.runtime.service import Service
from services.runtime.unit import Unit


class Counter:
    """A service that counts each withdrawn sample once and says so."""

    def __init__(self) -> None:
        self.fail: dict[str, Exception] = {}

    def create(self, settings: Any, connect: Any) -> Service:
        service = Service("counter", settings, connect)
        service.on(SampleWithdrawn, emits=[SampleDiscarded])(self.count)

        @service.api.post("/v1/things", dependencies=[needs("operator")])
        async def things(project: Project, body: dict[str, Any]) -> dict[str, Any]:
            if body.get("explode"):
                raise ZeroDivisionError("secret detail")
            if body.get("refuse"):
                raise Problem(409, "refused", "no")
            return {"made": body, "project": project}

        return service

    async def count(self, batch: Sequence[Message[SampleWithdrawn]], unit: Unit) -> None:
        total = await unit.get("total") or {"n": 0}
        for message in batch:
            if error := self.fail.get(message.event.sample_id):
                raise error
            if await unit.get(f"seen:{message.event.sample_id}"):
                continue
            total = {"n": total["n"] + 1}
            unit.put("total", total, guard=True)
            unit.put(f"seen:{message.event.sample_id}", {"seen": True})
            unit.emit(
                SampleDiscarded(project="p", sample_id=message.event.sample_id, policy={"id": "x", "version": 1}),
                message,
            )


def withdrawn(name: str) -> SampleWithdrawn:
    return SampleWithdrawn(project="p", sample_id=name, who="w", why="privacy")


async def total(running: Running) -> int:
    return (await running.state.get(["total"]))["total"].value["n"]


async def test_same_message_a_thousand_times_changes_nothing(tmp_path: Path) -> None:
    async with started(Counter().create, tmp_path) as running:
        for _ in range(5):
            assert set(await running.deliver_batch([withdrawn("a")] * 200)) == {"SUCCESS"}
        assert await total(running) == 1
        assert len(await running.published()) == 1


async def test_an_event_follows_with_cause_and_correlation(tmp_path: Path) -> None:
    async with started(Counter().create, tmp_path) as running:
        await running.deliver(withdrawn("a"))
        ((topic, envelope),) = await running.published()
        assert topic == "sample-discarded"
        assert envelope["correlationid"] == "a"
        assert envelope["causationid"]
        assert envelope["source"] == "/halfsure/local/counter"


async def test_one_bad_message_costs_itself_alone(tmp_path: Path) -> None:
    counter = Counter()
    counter.fail = {"drop": Drop("never"), "retry": Retry("later"), "bug": ZeroDivisionError()}
    async with started(counter.create, tmp_path) as running:
        batch = [withdrawn(name) for name in ("a", "drop", "b", "retry", "bug", "c")]
        verdicts = await running.deliver_batch(batch)
        assert verdicts == ["SUCCESS", "DROP", "SUCCESS", "RETRY", "RETRY", "SUCCESS"]
        assert await total(running) == 3
        letters = (await running.call("GET", "/v1/deadletters")).json()["items"]
        assert [letter["dlq"]["reason"] for letter in letters] == ["never"]


async def test_garbage_is_dropped_and_shelved_with_its_reason(tmp_path: Path) -> None:
    async with started(Counter().create, tmp_path) as running:
        garbage = [None, 7, "x", {}, {"specversion": "1.0", "id": "1", "source": "s", "type": "unknown.v9"}]
        assert await running.deliver_raw("sample-withdrawn", garbage) == ["DROP"] * 5
        answer = await running.client.post(
            "/events/sample-withdrawn", content=b"\xff{", headers={"dapr-api-token": "sidecar-token"}
        )
        assert answer.json() == {"status": "DROP"}
        letters = (await running.call("GET", "/v1/deadletters?limit=500")).json()["items"]
        assert len(letters) == 6
        assert any("unknown event type 'unknown.v9'" in letter["dlq"]["reason"] for letter in letters)


async def test_replay_after_the_fix_gives_the_state_as_if_it_had_been_right(tmp_path: Path) -> None:
    counter = Counter()
    counter.fail = {"a": Drop("broken")}
    async with started(counter.create, tmp_path) as running:
        await running.deliver(withdrawn("a"))
        (letter,) = (await running.call("GET", "/v1/deadletters")).json()["items"]
        assert (await running.call("POST", f"/v1/deadletters/{letter['id']}/replay")).status_code == 409
        counter.fail = {}
        assert (await running.call("POST", f"/v1/deadletters/{letter['id']}/replay")).status_code == 200
        assert await total(running) == 1
        assert (await running.call("GET", "/v1/deadletters")).json()["items"] == []


async def test_what_the_broker_gave_up_on_merges_with_our_own_letter(tmp_path: Path) -> None:
    counter = Counter()
    counter.fail = {"a": Drop("broken")}
    async with started(counter.create, tmp_path) as running:
        await running.deliver(withdrawn("a"))
        (letter,) = (await running.call("GET", "/v1/deadletters")).json()["items"]
        copy = {"entries": [{"entryId": "1", "event": letter["event"]}]}
        await running.client.post("/events/dlq", json=copy, headers={"dapr-api-token": "sidecar-token"})
        (merged,) = (await running.call("GET", "/v1/deadletters")).json()["items"]
        assert merged["dlq"]["attempts"] == 2
        assert merged["dlq"]["reason"] == "broken"


async def test_what_the_broker_gave_up_on_is_shelved_even_if_it_is_no_json(tmp_path: Path) -> None:
    async with started(Counter().create, tmp_path) as running:
        garbage = [b"\x00\xff garbage", b"[1]", b"null", b'{"id": "e1", "topic": "task"}']
        entries = [{"entryId": str(i), "event": base64.b64encode(raw).decode()} for i, raw in enumerate(garbage)]
        answer = await running.client.post(
            "/events/dlq", json={"entries": entries}, headers={"dapr-api-token": "sidecar-token"}
        )
        assert [row["status"] for row in answer.json()["statuses"]] == ["SUCCESS"] * 4
        letters = (await running.call("GET", "/v1/deadletters")).json()["items"]
        assert [letter["topic"] for letter in letters] == ["task", "dlq", "dlq", "dlq"]
        assert ["not a JSON object" in letter["dlq"]["reason"] for letter in letters] == [False, True, True, True]
        assert [letter["raw"] for letter in letters] == [None, "null", "[1]", "\x00\ufffd garbage"]
        answer = await running.call("POST", f"/v1/deadletters/{letters[3]['id']}/replay")
        assert answer.status_code == 409


async def test_the_sidecar_never_hears_of_a_dropped_entry_of_a_bulk(tmp_path: Path) -> None:
    async with started(Counter().create, tmp_path) as running:
        answer = await running.client.post(
            "/events/sample-withdrawn",
            json={"entries": [{"entryId": "1", "event": {}}]},
            headers={"dapr-api-token": "sidecar-token"},
        )
        assert answer.json() == {"statuses": [{"entryId": "1", "status": "SUCCESS", "verdict": "DROP"}]}


async def test_a_relay_that_stumbles_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong once, what waits is published: a relay that has ended would keep it for ever."""
    counter = Counter()
    async with started(counter.create, tmp_path) as running:
        publish, fails = running.bus.publish, [OSError(28, "No space left on device"), ZeroDivisionError()]

        async def stumbling(events: Sequence[Outgoing]) -> list[Outgoing]:
            if fails:
                raise fails.pop()
            return await publish(events)

        monkeypatch.setattr(running.bus, "publish", stumbling)
        await running.deliver(withdrawn("a"))
        await wait_until(lambda: running.service.outbox.published == 1)
        assert fails == []


def test_a_full_disk_takes_the_log_and_not_the_work() -> None:
    full = open("/dev/full", "w", buffering=1)  # noqa: SIM115
    telemetry.Lines(full).warning("there is no room for this line")
    with contextlib.suppress(OSError):
        full.close()


async def test_events_wait_in_the_outbox_while_the_broker_is_down_and_over_a_restart(
    tmp_path: Path, ports: Ports
) -> None:
    ports.publisher.down = True  # type: ignore[attr-defined]
    crashed = Counter()
    running_once = started(crashed.create, tmp_path, ports=ports)
    running = await running_once.__aenter__()
    assert await running.deliver(withdrawn("a")) == ["SUCCESS"]
    for task in running.service.outbox._tasks:  # the crash: nothing is drained, no slot is freed
        task.cancel()
    ports.publisher.down = False  # type: ignore[attr-defined]
    async with started(Counter().create, tmp_path, ports=ports) as again:
        assert [envelope["data"]["sample_id"] for _, envelope in await again.published()] == ["a"]
        assert not [key for key in again.state.rows() if key.startswith("outbox:0:")]


async def test_every_refusal_is_a_problem_and_no_trace_leaks(tmp_path: Path) -> None:
    async with started(Counter().create, tmp_path) as running:
        cases = [
            (await running.client.post("/v1/things", json={}), 401),
            (await running.call("POST", "/v1/things", role="viewer", json={}), 403),
            (await running.call("POST", "/v1/things?project=default", content=b"{", headers=JSON), 400),
            (await running.call("POST", "/v1/things", content=b'{"a": NaN}', headers=JSON), 422),
            (await running.call("POST", "/v1/things", json=[1]), 422),
            (await running.call("POST", "/v1/things", json={"refuse": 1}), 409),
            (await running.call("POST", "/v1/things", json={"explode": 1}), 500),
            (await running.call("GET", "/v1/nothing"), 404),
            (await running.call("PUT", "/v1/things"), 405),
            (await running.call("GET", "/v1/deadletters?limit=0"), 422),
            (await running.call("GET", "/v1/deadletters?cursor=%20"), 400),
            (await running.client.post("/events/x", json={}), 401),
        ]
        for answer, status in cases:
            assert answer.status_code == status, answer.text
            assert answer.headers["content-type"] == "application/problem+json"
            assert {"type", "title", "status", "detail", "instance", "errors", "trace_id"} == set(answer.json())
            assert "secret" not in answer.text
            assert "Traceback" not in answer.text


JSON = {"content-type": "application/json"}


async def test_another_projects_token_finds_nothing(tmp_path: Path) -> None:
    async with started(Counter().create, tmp_path) as running:
        headers = {"authorization": "Bearer other-token"}
        answer = await running.client.post("/v1/things?project=mine", json={}, headers=headers)
        assert answer.status_code == 404
        answer = await running.client.post("/v1/things", json={}, headers=headers)
        assert answer.json()["project"] == "other"


async def test_a_body_over_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    async with started(Counter().create, tmp_path, max_body=100) as running:

        async def endless() -> Any:
            for _ in range(10_000):
                yield b"x" * 100

        assert (await running.call("POST", "/v1/things", content=b"x" * 101)).status_code == 413
        assert (await running.call("POST", "/v1/things", content=endless())).status_code == 413


async def test_an_idempotency_key_gives_the_first_answer_again(tmp_path: Path) -> None:
    async with started(Counter().create, tmp_path) as running:
        headers = {"idempotency-key": "k"}
        first = await running.call("POST", "/v1/things", json={"a": 1}, headers=headers)
        again = await running.call("POST", "/v1/things", json={"a": 1}, headers=headers)
        other = await running.call("POST", "/v1/things", json={"a": 2}, headers=headers)
        assert (first.status_code, again.json()) == (200, first.json())
        assert again.headers["idempotent-replay"] == "true"
        assert "idempotent-replay" not in first.headers
        assert other.status_code == 409


async def test_a_replica_says_at_a_set_interval_that_it_is_alive(tmp_path: Path) -> None:
    """Row 2.16: off unless an interval is set; no two beats have the same id, a restart between them or not."""
    async with started(Counter().create, tmp_path) as running:
        assert ServiceHeartbeat not in running.service.said
        asked = [await running.client.get(path) for path in ("/healthz", "/readyz")]
        assert [answer.status_code for answer in asked] == [200, 200], "without a token"
    beats: dict[str, Any] = {}
    for _ in range(2):
        async with started(Counter().create, tmp_path, heartbeat_seconds=0.05) as running:

            async def two(running: Running = running, before: int = len(beats)) -> bool:
                running.clock.step(1)
                for topic, envelope in await running.published():
                    assert topic == "service-heartbeat"
                    beats[envelope["id"]] = envelope
                return len(beats) >= before + 2

            running.clock.step(1000 * len(beats))
            await wait_until(two)
    assert {beat["data"]["service"] for beat in beats.values()} == {"counter"}
    assert len({beat["data"]["sequence"] for beat in beats.values()}) == len(beats) >= 4


async def test_metrics_have_the_names_that_the_docs_promise(tmp_path: Path) -> None:
    """Row 2.17: dashboards and alerts are built upon them."""
    page = (default_root() / "docs" / "observability.md").read_text()
    promised = set(re.findall(r"^\| `(halfsure_\w+)` \|", page, re.MULTILINE))
    async with started(Counter().create, tmp_path) as running:
        text = (await running.call("GET", "/metrics")).text
    exposed = set(re.findall(r"^# TYPE (halfsure_\w+) ", text, re.MULTILINE))
    own = [one for one in vars(telemetry).values() if isinstance(one, MetricWrapperBase)]
    assert promised <= exposed
    assert len(promised) == len(own)  # each that every service has; a service's own are its own page's


class Hopeful(Counter):
    """The same, but it takes what comes to be new, and counts nothing in all."""

    async def count(self, batch: Sequence[Message[SampleWithdrawn]], unit: Unit) -> None:
        known = await unit.get_new(f"seen:{message.event.sample_id}" for message in batch)
        for message in batch:
            key = f"seen:{message.event.sample_id}"
            if key not in known:
                unit.put(key, {"seen": True}, guard=True)
                event = SampleDiscarded(
                    project="p", sample_id=message.event.sample_id, policy={"id": "x", "version": 1}
                )
                unit.emit(event, message, guard=key)


async def test_a_bulk_that_is_taken_to_be_new_and_is_not_says_only_what_is(tmp_path: Path) -> None:
    """As when a service has written and was killed before it could tell its sidecar."""
    async with started(Hopeful().create, tmp_path) as running:
        first = [withdrawn(f"smp_{number}") for number in range(100)]
        again = [withdrawn(f"smp_{number}") for number in range(50, 150)]
        told: list[str] = []
        for batch in (first, again, again):
            assert set(await running.deliver_batch(batch)) == {"SUCCESS"}
            told += [row["sample_id"] for row in await running.data(SampleDiscarded)]
        assert sorted(told) == sorted(f"smp_{number}" for number in range(150))
