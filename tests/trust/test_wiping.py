"""A running stack is backed up and wiped; what is made of the backup goes on where that was."""

import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import redis
from conftest import wait_until
from following import follow
from report import note
from trust.playing import OFFSET, Command, Played, facts

from services.cli import backup as backups
from services.cli.home import Home
from services.cli.player import ENDED, Plan, Player, Progress
from services.cli.redis import find_redis_server, redis_command
from services.cli.rest import Rest
from services.cli.settings import StackSettings
from services.cli.stack import Stack

PORT = OFFSET + 8179  # of Redis


@pytest.mark.loop
@pytest.mark.timeout(900)
@pytest.mark.asyncio(loop_scope="session")
async def test_a_backup_of_a_running_stack_goes_on_where_it_was(
    played: Played, tmp_path: Path, halfsure: Command
) -> None:
    await played.stop()
    shutil.rmtree(played.home)
    before, after, plan, second = played.before, played.after, played.plan, tmp_path / "second"
    done = halfsure("restore", str(played.file), "--home", str(second))
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    async with Stack(StackSettings(home=second, port_offset=OFFSET)).running() as stack:
        assert stack.token == played.token
        rest = Rest(stack.url, stack.token, plan.project)
        found = await facts(rest)
        _between(before, found, after)
        await _contents_are_there(rest, found)
        progress = await _go_on(rest, stack, plan)
        assert not (wrong := await follow(rest, plan, progress, Counter(dict.fromkeys(found["samples"], 1)))), wrong
        ended = await facts(rest)
        _between(found, ended, ended)
        assert all(ended["labels"][sample] == value for sample, value in found["labels"].items())
        assert not [letter for app in stack.app_ids for letter in (await rest.get(app, "/v1/deadletters"))["items"]]
        await rest.close()
    note("restored", {kind: len(rows) for kind, rows in found.items()})


def _between(least: dict[str, Any], found: dict[str, Any], most: dict[str, Any]) -> None:
    """All that was there when the backup began, as it was, and nothing that never was."""
    for kind, rows in found.items():
        assert least[kind].items() <= rows.items() if kind != "snapshots" else least[kind].keys() <= rows.keys(), kind
        assert all(row == most[kind].get(name, row) for name, row in rows.items()), kind
    assert found["samples"].keys() == most["samples"].keys()
    assert all(found["snapshots"][name] == row for name, row in least["snapshots"].items())


async def _contents_are_there(rest: Rest, found: dict[str, Any]) -> None:
    for name in found["samples"]:
        shown = await rest.get("ingest", f"/v1/samples/{name}")
        assert shown["state"] == "STORED", shown

    async def serves() -> bool:
        return any(model["active"] for model in (await rest.get("infer", "/v1/loaded-models"))["items"])

    await wait_until(serves, 60)


async def _go_on(rest: Rest, stack: Stack, plan: Plan) -> Progress:
    """The same play again: what was brought is known, what was asked is not asked again."""
    player = Player(rest, plan, stack.app_ids)
    runs = await rest.everything("retrain-trigger", "/v1/runs")
    player._judged |= {run["run_id"] for run in runs if run["state"] in ENDED}
    return await player.play()


@pytest.fixture
def running_redis(tmp_path: Path) -> Any:
    """A server with a value, a stream and what is pending of it."""
    folder = tmp_path / "from"
    folder.mkdir()
    child, client = _redis(folder), redis.Redis(port=PORT)
    try:
        yield child, client
    finally:
        client.close()
        child.terminate()
        child.wait()


def _redis(folder: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(redis_command(find_redis_server(), PORT, folder), stdout=subprocess.DEVNULL)


def _ready(client: Any) -> bool:
    try:
        return client.ping()
    except redis.ConnectionError:
        return False


async def test_what_is_pending_is_kept_and_a_damaged_file_is_refused(tmp_path: Path, running_redis: Any) -> None:
    child, client = running_redis
    await wait_until(lambda: _ready(client))
    client.hset("ingest||smp:a", mapping={"data": "{}", "version": "1"})
    client.hset("retrain-trigger||dapr.internal.default.retrain-trigger.workflow||run_a||metadata", "data", "x")
    client.xgroup_create("sample-scored", "select-uncertain", mkstream=True)
    client.xadd("sample-scored", {"data": "an event"})
    client.xreadgroup("select-uncertain", "one", {"sample-scored": ">"})
    home, file = Home(tmp_path / "home"), tmp_path / "file"
    home.create()
    (home.path / "blobs" / "samples").mkdir()
    (home.path / "blobs" / "samples" / "a").write_bytes(b"content")
    (home.path / "blobs" / "samples" / ".draft").write_bytes(b"half")
    home.secrets()
    assert backups.write(home, ("127.0.0.1", PORT), file)["blobs"] == 1
    assert file.stat().st_mode & 0o077 == 0

    raw = file.read_bytes()
    for name, bad in {
        "cut": raw[: raw.index(b'"sha256"')],
        "changed": raw.replace(b"content", b"CONTENT"),
        "climbing": raw.replace(b"blobs/samples/a", b"blobs/../../a\0\0"),
        "empty": b"",
    }.items():
        (tmp_path / name).write_bytes(bad)
        with pytest.raises(backups.NoBackup):
            backups.restore(Home(tmp_path / f"home-{name}"), tmp_path / name)
        assert [path.name for path in (tmp_path / f"home-{name}").iterdir()] == ["lock"], name
    with pytest.raises(backups.NoBackup, match="already"):
        backups.restore(home, file)

    restored = Home(tmp_path / "restored")
    assert backups.restore(restored, file)["keys"] == 2
    child.terminate()
    child.wait()
    again = _redis(restored.path / "redis")
    try:
        await wait_until(lambda: _ready(client))
        assert sorted(client.keys()) == [b"ingest||smp:a", b"sample-scored"]
        assert client.xpending("sample-scored", "select-uncertain")["pending"] == 1
    finally:
        again.terminate()
        again.wait()
    assert (restored.path / "blobs" / "samples" / "a").read_bytes() == b"content"
    assert restored.secrets().admin == home.secrets().admin
