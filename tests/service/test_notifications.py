"""Notifications: from the loop's events to a webhook and a real mail server, once each, whatever fails on the way."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from email.message import Message
from pathlib import Path
from typing import Any

import orjson
import pytest
from conftest import Running, started, wait_until
from crowd import project, selected
from receiving import PASSWORD, SECRET, USER, Hook, hooked, mail_server

from services.contracts.events import (
    Event,
    ModelActivated,
    ModelRejected,
    ModelRolledBack,
    ServiceHeartbeat,
    TaskQueued,
    TrainingFailed,
    TrainingSucceeded,
)
from services.contracts.signatures import key_of, verified
from services.label_queue.app import create as label_queue
from services.portal.app import create
from services.runtime.memory import MemoryPeers
from services.runtime.ports import Ports

CONTENT: dict[str, Any] = {"uri": "blob:x", "sha256": "0" * 64, "bytes": 1, "media_type": "image/png"}
ALL = ["labels.waiting", "run.failed", "gate.refused", "model.promoted", "model.rolled_back"]
OVER = ["dead_letters.over", "buffer.over"]
SERVING: dict[str, Any] = {"project": "p", "artefact": CONTENT, "manifest": CONTENT}
TOLD: Mapping[str, Event] = {
    "run.failed": TrainingFailed(project="p", run_id="run_1", error="out of memory"),
    "gate.refused": ModelRejected(project="p", version="mdl_2", gate={"metric": "accuracy", "candidate": 0.5}),
    "model.promoted": ModelActivated(version="mdl_3", activation_epoch=3, previous="mdl_1", **SERVING),
    "model.rolled_back": ModelRolledBack(version="mdl_1", activation_epoch=4, reason="audit error", **SERVING),
}


def failed(run: str, name: str = "p") -> TrainingFailed:
    return TrainingFailed(project=name, run_id=run, error="out of memory")


def beat(number: int, dead: int | None = None, waiting: int | None = None, instance: str = "i-0") -> ServiceHeartbeat:
    said = {"service": "infer", "instance": instance, "site": "s", "sequence": number, "project": "*"}
    return ServiceHeartbeat.model_validate({**said, "dead_letters": dead, "waiting": waiting})


def rule(name: str, on: list[str], **more: Any) -> str:
    lines = [f"{key} = {orjson.dumps(value).decode()}" for key, value in {"name": name, "on": on, **more}.items()]
    return "\n".join(["[[rules]]", *lines])


def hook_rule(name: str, on: list[str], url: str, folder: Path, **more: Any) -> str:
    secret = folder / "secret"
    secret.write_text(SECRET)
    return f'{rule(name, on, **more)}\nwebhook = {{url = "{url}", secret_file = "{secret}"}}'


@pytest.fixture
async def hook() -> AsyncIterator[Hook]:
    async with hooked() as hook:
        yield hook


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write the file, with loops that turn quickly."""
    monkeypatch.setenv("HALFSURE_PORTAL_SEND_SECONDS", "0.02")
    monkeypatch.setenv("HALFSURE_PORTAL_WAITING_SECONDS", "0.02")

    def write(*parts: str) -> None:
        path = tmp_path / "notifications.toml"
        path.write_text("\n".join(parts))
        monkeypatch.setenv("HALFSURE_PORTAL_NOTIFICATIONS", str(path))

    return write


def messages(hook: Hook, running: Running) -> list[dict[str, Any]]:
    """The bodies, all of which must be signed for now."""
    now, key = running.clock.now(), key_of(SECRET)
    names = [verified(key, headers, body, now) for headers, body in hook.calls]
    return [{"webhook-id": name, **orjson.loads(body)} for name, (_, body) in zip(names, hook.calls, strict=True)]


async def book(running: Running) -> dict[str, Any]:
    return (await running.call("GET", "/v1/notifications")).json()


async def until_sent(running: Running) -> None:
    async def nothing_waits() -> bool:
        return not (await book(running))["waiting"]

    await wait_until(nothing_waits)


async def test_what_was_asked_for_is_told_once_however_often_it_is_heard(
    tmp_path: Path, hook: Hook, configured: Any
) -> None:
    configured(hook_rule("ops", ALL, hook.url, tmp_path))
    async with started(create, tmp_path) as running:
        for _ in range(2):
            for event in TOLD.values():
                assert await running.deliver(event) == ["SUCCESS"]
        await running.deliver(TrainingSucceeded(project="p", run_id="run_2"))
        await until_sent(running)
        await running.deliver(*TOLD.values())
        await until_sent(running)
        found = messages(hook, running)
        assert sorted(one["type"] for one in found) == sorted(TOLD)
        assert len({one["webhook-id"] for one in found}) == len(TOLD)
        by_kind = {one["type"]: one["data"] for one in found}
        assert by_kind["run.failed"] == {
            "title": "p: a training has failed",
            "project": "p",
            "run_id": "run_1",
            "error": "out of memory",
        }
        assert by_kind["gate.refused"]["gate"] == {"metric": "accuracy", "candidate": 0.5}
        assert by_kind["model.promoted"]["version"] == "mdl_3"
        assert by_kind["model.rolled_back"]["reason"] == "audit error"


async def test_a_rule_hears_of_its_projects_and_its_kinds_alone(tmp_path: Path, hook: Hook, configured: Any) -> None:
    configured(hook_rule("ops", ["run.failed"], hook.url, tmp_path, projects=["p"]))
    async with started(create, tmp_path) as running:
        await running.deliver(failed("run_1"), failed("run_2", "q"), *TOLD.values())
        await until_sent(running)
        assert [one["data"]["run_id"] for one in messages(hook, running)] == ["run_1"]


async def test_a_hook_that_fails_is_tried_again_with_the_same_id_also_after_a_restart(
    tmp_path: Path, hook: Hook, configured: Any, ports: Ports
) -> None:
    configured(hook_rule("ops", ["run.failed"], hook.url, tmp_path))
    hook.answers = [500, 302]
    async with started(create, tmp_path, ports) as running:
        await running.deliver(failed("run_1"))
        await wait_until(lambda: len(hook.calls) == 1)
        await wait_until(lambda: told(running, "it answered 500"))
        running.clock.step(5)
        await wait_until(lambda: told(running, "it answered 302"))
    async with started(create, tmp_path, ports) as running:
        running.clock.step(60)
        await until_sent(running)
        assert len(hook.calls) == 3, "a redirect is not followed"
        assert len({headers["webhook-id"] for headers, _ in hook.calls}) == 1
        assert (await book(running))["given_up"] == []


async def told(running: Running, error: str) -> bool:
    return [row["error"] for row in (await book(running))["waiting"]] == [error]


async def test_what_nobody_wants_or_nobody_takes_is_given_up_and_said_so(
    tmp_path: Path, hook: Hook, configured: Any
) -> None:
    dead = hook_rule("dead", ["run.failed"], "http://127.0.0.1:9/", tmp_path)
    configured(hook_rule("gone", ["run.failed"], hook.url, tmp_path), dead)
    hook.answers = [410]
    async with started(create, tmp_path) as running:
        await running.deliver(failed("run_1"))

        async def given_up() -> list[dict[str, Any]]:
            running.clock.step(36_000)
            rows = (await book(running))["given_up"]
            return rows if len(rows) == 2 else []

        rows = {row["rule"]: row for row in await wait_until(given_up)}
        assert (rows["gone"]["tries"], rows["dead"]["tries"]) == (1, 8)
        assert "410" in rows["gone"]["error"]
        assert "Connect" in rows["dead"]["error"]


async def test_limits_are_told_as_they_are_passed(tmp_path: Path, hook: Hook, configured: Any) -> None:
    configured(hook_rule("ops", OVER, hook.url, tmp_path, dead_letters=2, buffer=100, quiet_seconds=0))
    async with started(create, tmp_path) as running:
        for number, (dead, waiting) in enumerate([(0, 0), (2, 0), (3, 150), (3, 90), (0, 0), (None, None), (2, 0)]):
            running.clock.step(30)
            await running.deliver(beat(number, dead, waiting), beat(number, dead, waiting))
        await running.deliver(beat(99, 2, 200, "i-1"))
        await until_sent(running)
        found = [(one["type"], one["data"]["of"], one["data"]["value"]) for one in messages(hook, running)]
        shelf = ("dead_letters.over", "s/infer", 2)
        assert sorted(found) == [
            ("buffer.over", "s/infer/i-0", 150),
            ("buffer.over", "s/infer/i-1", 200),
            shelf,
            shelf,
        ]


async def test_labels_that_wait_are_told_by_e_mail_over_tls(
    tmp_path: Path, configured: Any, ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the label-queue counts, to a real SMTP server that wants STARTTLS and a login."""
    with mail_server(tmp_path) as (mailbox, port, certificate):
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        configured(*mail(port, tmp_path), rule("team", ["labels.waiting"], email=["a@b.c", "d@e.f"], labels_waiting=3))
        async with started(label_queue, tmp_path) as queue:
            await queue.deliver(project())
            counts, looks = [{"queued": 0}], list[str]()

            def stats(path: str, params: Mapping[str, str]) -> Any:
                looks.append(path)
                return counts[-1]

            ports.peers = MemoryPeers({"label-queue": stats})

            async def ask(portal: Running, *samples: str) -> None:
                await queue.deliver(*(selected(sample) for sample in samples))
                counts.append((await queue.call("GET", "/v1/stats")).json())
                await portal.deliver(*map(TaskQueued.model_validate, await queue.data(TaskQueued)))

            async with started(create, tmp_path, ports) as portal:
                await ask(portal, "smp_a", "smp_b")
                await wait_until(lambda: len(looks) > 3)
                assert mailbox.letters == []
                assert (await book(portal))["waiting"] == []
                mailbox.refusals = 1
                await ask(portal, "smp_c")
                await wait_until(lambda: told(portal, f"127.0.0.1: {(451, b'Try again later')}"))
                portal.clock.step(5)
                await until_sent(portal)
        ((to, letter, private),) = mailbox.letters
        assert (to, private) == (["a@b.c", "d@e.f"], True)
        assert letter["subject"] == "[halfsure] default: 3 samples wait for a label"
        assert "https://halfsure.example/" in text(letter)


def text(letter: Message) -> str:
    return letter.get_payload(decode=True).decode()  # type: ignore[union-attr]


def mail(port: int, folder: Path) -> list[str]:
    secret = folder / "password"
    secret.write_text(PASSWORD)
    smtp = {"host": "127.0.0.1", "port": port, "sender": "half@sure.example", "user": USER, "password_file": secret}
    lines = [
        f"{name} = {value if isinstance(value, int) else orjson.dumps(str(value)).decode()}"
        for name, value in smtp.items()
    ]
    return ['page = "https://halfsure.example/"', "[smtp]", *lines]


async def test_a_mail_server_without_its_certificate_or_password_gets_nothing(
    tmp_path: Path, configured: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mail_server(tmp_path) as (mailbox, port, certificate):
        configured(*mail(port, tmp_path), rule("team", ["run.failed"], email=["a@b.c"]))
        async with started(create, tmp_path) as portal:
            await portal.deliver(failed("run_1"))

            async def said(word: str) -> bool:
                portal.clock.step(1)
                return any(word in (row["error"] or "") for row in (await book(portal))["waiting"])

            await wait_until(lambda: said("certificate verify failed"))
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            (tmp_path / "password").write_text("wrong")
            portal.clock.step(60)
            await wait_until(lambda: said("535"))
            assert mailbox.letters == []


async def test_a_test_goes_the_same_way_and_operators_alone_may_look(
    tmp_path: Path, hook: Hook, configured: Any
) -> None:
    configured(hook_rule("ops", OVER, hook.url, tmp_path, buffer=7))
    async with started(create, tmp_path) as running:
        for role, status in (("reviewer", 403), ("operator", 202)):
            answer = await running.call("POST", "/v1/notifications:test?rule=ops", role)
            assert answer.status_code == status
        await until_sent(running)
        (one,) = messages(hook, running)
        assert (one["type"], one["webhook-id"]) == ("test", answer.json()["id"])
        assert (await running.call("POST", "/v1/notifications:test?rule=no")).status_code == 404
        assert (await running.call("GET", "/v1/notifications", "reviewer")).status_code == 403
        shown = await book(running)
        assert shown["rules"] == [
            {"name": "ops", "on": OVER, "projects": [], "via": "webhook", "limits": {OVER[0]: 1, OVER[1]: 7}}
        ]
        assert hook.url not in str(shown)


async def test_replicas_share_the_work(tmp_path: Path, hook: Hook, configured: Any, ports: Ports) -> None:
    configured(hook_rule("ops", ["run.failed"], hook.url, tmp_path))
    async with started(create, tmp_path, ports) as one, started(create, tmp_path, ports, replica=1) as two:
        names = [f"run_{number}" for number in range(30)]
        await asyncio.gather(
            *(replica.deliver(failed(name)) for name in names for replica in (one, two)),
        )
        await until_sent(one)
        assert sorted(row["data"]["run_id"] for row in messages(hook, one)) == sorted(names)


async def test_the_time_of_a_notice_is_when_it_happened(tmp_path: Path, hook: Hook, configured: Any) -> None:
    configured(hook_rule("ops", ["run.failed"], hook.url, tmp_path))
    hook.answers = [503]
    async with started(create, tmp_path) as running:
        happened = running.clock.now()
        await running.deliver(failed("run_1"))
        await wait_until(lambda: told(running, "it answered 503"))
        running.clock.step(5)
        await until_sent(running)
        stamps = [int(headers["webhook-timestamp"]) for headers, _ in hook.calls]
        assert stamps[1] - stamps[0] == 5, "signed anew for each try"
        assert {orjson.loads(body)["timestamp"] for _, body in hook.calls} == {happened.isoformat()}
        assert running.clock.now() - happened == timedelta(seconds=5)
