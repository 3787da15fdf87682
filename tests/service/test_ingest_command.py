"""`halfsure ingest` as its users run it, against ingest on memory ports behind a real HTTP server."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest_asyncio
import uvicorn
from conftest import TOKENS, Running, started, wait_until
from sources.feeding import real_time
from sources.processes import free_port
from typer.testing import CliRunner
from worlds import png, project

from services.cli.errors import EXPECTED
from services.cli.main import app
from services.contracts.ids import sample_id, sha256
from services.contracts.inputs import InputSpec, TabularColumn
from services.ingest.app import create

TOKEN = {"HALFSURE_TOKEN": TOKENS["operator"]}


class Site:
    """An ingest, and the command's runs against it."""

    def __init__(self, running: Running, port: int, folder: Path) -> None:
        self.running = running
        self._url = f"http://127.0.0.1:{port}"
        self._home = folder / "home"

    def _arguments(self, arguments: Sequence[str]) -> list[str]:
        return ["ingest", *arguments, "--url", self._url, "--home", str(self._home)]

    async def begin(self, *arguments: str) -> asyncio.subprocess.Process:
        """In a process of its own, to be killed."""
        command = (sys.executable, "-m", "services.cli.main", *self._arguments(arguments))
        return await asyncio.create_subprocess_exec(*command, stdout=-1, stderr=-1, env={**os.environ, **TOKEN})

    async def run(self, *arguments: str) -> tuple[int, str]:
        """The same command in this process, which saves it the start."""
        ended = await asyncio.to_thread(CliRunner().invoke, app, self._arguments(arguments), env=TOKEN)
        if ended.exception and not isinstance(ended.exception, (SystemExit, *EXPECTED)):
            raise ended.exception
        known = ended.exception if isinstance(ended.exception, EXPECTED) else ""
        return ended.exit_code, f"{ended.output}{known}"

    async def counts(self, name: str = "default") -> tuple[int, int]:
        """(stored, duplicates)"""
        stats = (await self.running.call("GET", f"/v1/stats?project={name}")).json()
        return stats["states"]["STORED"], stats["duplicates"]


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with started(create, tmp_path, ports=real_time(), max_body=200_000) as running:
        await running.deliver(await project(running.blobs), await project(running.blobs, "table", "tabular"))
        port = free_port()
        server = uvicorn.Server(uvicorn.Config(running.service.api, port=port, lifespan="off", log_level="error"))
        serving = asyncio.create_task(server._serve())  # without its signal handlers
        await wait_until(lambda: server.started)
        yield Site(running, port, tmp_path)
        server.should_exit = True
        await serving


async def test_a_run_that_is_killed_goes_on_and_another_sends_nothing(tmp_path: Path, site: Site) -> None:
    photos = tmp_path / "photos"
    for n in range(1200):
        (photos / f"{n % 7}").mkdir(parents=True, exist_ok=True)
        (photos / f"{n % 7}" / f"{n}.png").write_bytes(png(n % 250, n // 250))
    child = await site.begin(str(photos), "--tag", "night", "--stream", "gate", "--trigger", "manual")

    async def some() -> bool:
        return (await site.counts())[0] > 0

    await wait_until(some, 30)
    child.send_signal(signal.SIGKILL)
    await child.communicate()
    stored, _ = await site.counts()
    status, said = await site.run(str(photos), "--json")
    row = json.loads(said)
    assert status == 0
    assert (row["refused"], row["skipped"] + row["files"]) == ([], 1200)
    stored_now, duplicates = await site.counts()
    assert stored_now == 1200
    # The batch that the killed run had sent may have been stored after the count.
    assert row["new"] <= 1200 - stored
    assert row["new"] + row["known"] + row["skipped"] == 1200
    # At most the batch whose answer the killed run did not hear came twice, and was known.
    assert row["known"] == duplicates <= 500
    status, said = await site.run(str(photos), "--json")
    nothing = {"new": 0, "known": 0, "gathering": 0, "files": 0}
    assert (status, json.loads(said)) == (0, {**nothing, "skipped": 1200, "refused": []})
    assert await site.counts() == (1200, duplicates)
    sample = sample_id("default", sha256(png(0, 0)))
    record = (await site.running.call("GET", f"/v1/samples/{sample}")).json()
    assert (record["stream_id"], record["tags"], record["trigger"]) == ("gate", ["night"], "manual")
    assert record["attributes"] == {"file": "0/0.png"}


async def test_what_is_refused_is_named_and_not_sent_again(tmp_path: Path, site: Site) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "good.png").write_bytes(png(1))
    (photos / "half.png").write_bytes(png(2)[:30])
    (photos / "liar.png").write_bytes(b"\xff\xd8\xff no png")
    (photos / "large.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(300_000))
    (photos / "note.txt").write_text("x")
    status, said = await site.run(str(photos))
    assert status == 1
    assert "1 new samples" in said
    assert "3 were refused" in said
    assert "liar.png: The content says image/jpeg" in said
    assert "large.png: " in said
    status, said = await site.run(str(photos))
    assert status == 0
    assert "4 files were sent before, 3 of them refused then" in said
    status, said = await site.run(str(photos), "--again", "--json")
    assert status == 1
    assert {row["place"] for row in json.loads(said)["refused"]} == {"half.png", "liar.png", "large.png"}


async def test_rows_of_tables_and_their_keys(tmp_path: Path, site: Site) -> None:
    content = "a,b\n1,2\n1,2\nx,3\n"
    table = tmp_path / "rows.csv"
    table.write_text(content)
    status, said = await site.run(str(table), "--project", "table")
    assert status == 1
    assert "rows.csv, row 3: " in said
    assert await site.counts("table") == (2, 0)
    keyed = tmp_path / "keyed.jsonl"
    keyed.write_text('{"id": "k1", "a": 1, "b": 2}\n{"id": "k1", "a": 1, "b": 2}\n{"a": 1, "b": 2}\n')
    status, said = await site.run(str(keyed), "--project", "table", "--key-column", "id")
    assert status == 1
    assert "row 3 has no id" in said
    found = await site.running.call("GET", f"/v1/samples/{sample_id('table', 'k1')}?project=table")
    assert found.status_code == 200


async def test_texts_and_the_points_of_a_stream(tmp_path: Path, site: Site) -> None:
    specs = {"words": InputSpec.text(64), "press": InputSpec.series(3, [TabularColumn(name="t")])}
    for name, spec in specs.items():
        event = await project(site.running.blobs, name)
        changes = {"task": f"{spec.kind}-classification", "input": spec.model_dump(mode="json")}
        await site.running.deliver(event.model_copy(update={"document": {**event.document, **changes}}))
    letters = tmp_path / "letters"
    letters.mkdir()
    (letters / "a.txt").write_text("Dear Sir")
    (letters / "b.md").write_text("Dear Madam")
    (letters / "c.png").write_bytes(png(1))
    status, said = await site.run(str(letters), "--project", "words", "--texts", "--json")
    assert (status, json.loads(said)["new"]) == (0, 2)
    table = tmp_path / "press.csv"
    table.write_text("n,t\n7,1\n6,2\n8,3\n9,4\n")
    arguments = ("--project", "press", "--points", "--stream", "p1", "--sequence-column", "n", "--json")
    status, said = await site.run(str(table), *arguments)
    assert (status, json.loads(said)["new"], json.loads(said)["gathering"]) == (0, 2, 2)
    found = await site.running.call("GET", f"/v1/samples/{sample_id('press', 'local/p1/9')}?project=press")
    assert found.json()["sequence"] == 9
    table.write_text("n,t\nx,1\n")
    status, said = await site.run(str(table), *arguments)
    assert (status, json.loads(said)["refused"][0]["why"]) == (1, "row 1: n is 'x', not a number from 0 on")


async def test_what_cannot_be_sent_is_said(tmp_path: Path, site: Site) -> None:
    for arguments, words in (
        ((str(tmp_path / "none"),), "there is no"),
        ((str(tmp_path / "home"),), "there is no"),
    ):
        status, said = await site.run(*arguments)
        assert (status, words in said) == (2, True)
    (tmp_path / "a.png").write_bytes(png(1))
    status, said = await site.run(str(tmp_path / "a.png"), "--project", "nowhere")
    assert status == 1
    assert "There is no project 'nowhere' here." in " ".join(said.split())
