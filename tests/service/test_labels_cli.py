"""`halfsure tasks`, `export`, `import` and `annotators` against a label-queue that answers on a port."""

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from conftest import TOKENS, Running, started
from crowd import LABELS, claim, project, selected, submit
from PIL import Image
from sources.processes import free_port
from typer.testing import CliRunner

from services.cli import terminal
from services.cli.errors import EXPECTED
from services.cli.main import app
from services.label_queue.app import create


@dataclass
class Finished:
    """What a command has left behind."""

    stdout: bytes
    stderr: bytes


class Cli:
    """The command's own code, in a thread of this process beside the queue."""

    def __init__(self, queue: Running, port: int, folder: Path) -> None:
        self.queue = queue
        self._port = port
        self.folder = folder

    async def __call__(self, *arguments: str, role: str = "operator", code: int = 0) -> Finished:
        environment = {
            "HALFSURE_PORTS__LABEL_QUEUE": str(self._port),
            "HALFSURE_TOKEN": TOKENS[role],
            "HALFSURE_HOME": str(self.folder / "home"),
        }
        done = await asyncio.to_thread(CliRunner().invoke, app, arguments, env=environment)
        told = done.stderr_bytes or b""
        if isinstance(done.exception, EXPECTED):  # which `main` says in a sentence
            told += str(done.exception).encode()
        elif done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == code, done.output
        return Finished(done.stdout_bytes, told)

    async def json(self, *arguments: str, **more: Any) -> Any:
        return json.loads((await self(*arguments, "--json", **more)).stdout)


@pytest.fixture
async def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cli]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(terminal.out, "_width", 200)
    async with started(create, tmp_path) as running:
        await running.deliver(project())
        port = free_port()
        server = uvicorn.Server(uvicorn.Config(running.service.api, port=port, lifespan="off", log_level="warning"))
        serving = asyncio.create_task(server.serve())
        try:
            yield Cli(running, port, tmp_path)
        finally:
            server.should_exit = True
            await serving


def line(shade: int, value: str) -> str:
    file = io.BytesIO()
    Image.new("L", (4, 4), shade).save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    return json.dumps({"data": data, "media_type": "image/png", "value": value}) + "\n"


def _folder(parent: Path, name: str) -> Path:
    folder = parent / f"other-{name}"
    folder.mkdir()
    return folder


async def test_labels_drained_by_the_api_and_by_a_file_end_alike(cli: Cli) -> None:
    """Row 0.3: the same samples, labelled over REST here, exported, imported there: the same end."""
    source = cli.folder / "source.jsonl"
    source.write_text("".join(line(shade, LABELS[shade % 3]) for shade in range(30)))
    told = await cli.json("import", str(source))
    assert told == {"new": 30, "known": 0, "refused": 0, "results": []}
    for form in ("jsonl", "csv", "coco", "yolo", "parquet"):
        name = f"a.{form}"
        told = await cli.json("export", name, "--format", form)
        assert (told["labels"], told["format"]) == (30, form)
        assert (cli.folder / name).stat().st_size == told["bytes"]
        other = _folder(cli.folder, form)
        async with started(create, other, peers={}) as empty:
            await empty.deliver(project())
            empty.blobs.contents |= cli.queue.blobs.contents
            raw = (cli.folder / name).read_bytes()
            answer = await empty.call("POST", f"/v1/import?format={form}", "operator", content=raw)
            assert {row["status"] for row in answer.json()["results"]} == {201}, answer.text
            there = (await empty.call("GET", "/v1/stats")).json()
            here = (await cli.queue.call("GET", "/v1/stats")).json()
            assert there == here
    assert (await cli.json("import", "a.csv"))["known"] == 30


async def test_an_export_is_whole_or_not_there(cli: Cli) -> None:
    (cli.folder / "source.jsonl").write_text(line(1, "cat"))
    await cli("import", "source.jsonl")
    told = await cli.json("export", "one.jsonl")
    (cli.folder / "more.jsonl").write_text(line(2, "dog"))
    await cli("import", "more.jsonl")
    refused = await cli("export", "two.jsonl", "--revision", told["etag"], code=1)
    assert b"by now" in refused.stderr
    assert not list(cli.folder.glob("*two*"))
    refused = await cli("export", "two.voc", "--format", "voc", code=1)
    assert b"jsonl, csv" in refused.stderr
    whole = await cli("export", "-")
    assert len(whole.stdout.splitlines()) == 2


async def test_a_bad_row_is_told_with_its_number_and_its_reason(cli: Cli) -> None:
    rows = [line(shade % 256, "cat") for shade in range(1100)]
    rows[1050] = line(3, "cow")
    (cli.folder / "rows.jsonl").write_text("".join(rows))
    done = await cli("import", "rows.jsonl", code=1)
    assert b"row 1051: 'cow' is none of the labels" in done.stderr.replace(b"\n", b" ")
    told = await cli.json("import", "rows.jsonl", "--split", "train", code=1)
    assert (told["refused"], told["results"][0]["line"]) == (1, 1050)
    assert (await cli("import", "rows.jsonl", role="reviewer", code=1)).stderr


async def test_tasks_and_annotators_show_what_the_api_says(cli: Cli) -> None:
    await cli.queue.deliver_batch([selected(f"smp_{number}", required_labels=2) for number in range(4)])
    for who, value in (("ann", "cat"), ("bob", "dog"), ("[red]cyd", "owl")):
        for task in await claim(cli.queue, 3, who):
            await submit(cli.queue, task, value, who, seconds=1.5)
    told = await cli.json("tasks", "--state", "disputed", "--limit", "2", role="reviewer")
    assert told["stats"]["disputed"] == 3
    assert [row["state"] for row in told["tasks"]] == ["DISPUTED"] * 2
    assert set(told["tasks"][0]["suggested_answer"]) == {"value", "confidence"}
    text = (await cli("tasks", "--state", "disputed", role="reviewer")).stdout.decode()
    assert "disputed 3" in text
    assert "cat, dog, owl" in text
    told = await cli.json("annotators", role="reviewer")
    assert [row["annotator"] for row in told["annotators"]] == ["[red]cyd", "ann", "bob"]
    assert told["agreement"]["tasks"] == 3
    text = (await cli("annotators", role="reviewer")).stdout.decode()
    assert "[red]cyd" in text
    assert "Krippendorff" in text


async def test_a_long_table_goes_in_pieces_of_whole_rows(cli: Cli) -> None:
    (cli.folder / "rows.jsonl").write_text("".join(line(shade, LABELS[shade % 3]) for shade in range(200)))
    await cli("import", "rows.jsonl")
    await cli("export", "rows.csv")
    head, *rows = (cli.folder / "rows.csv").read_bytes().splitlines(keepends=True)
    # A cell over two lines, at the border of two pieces, and a row that is wrong behind it.
    note = b',"over\r\ntwo ""lines"""\r\n'
    wide = [row.rstrip() + note for row in rows] * 8
    wide[1400] = wide[1400].replace(b"cat", b"cow").replace(b"dog", b"cow").replace(b"owl", b"cow")
    (cli.folder / "wide.csv").write_bytes(head.rstrip() + b",note\r\n" + b"".join(wide))
    told = await cli.json("import", "wide.csv", code=1)
    assert (told["known"], told["refused"]) == (1599, 1)
    assert told["results"][0]["line"] == 1400


@pytest.mark.parametrize("arguments", [["tasks"], ["annotators"], ["export"], ["import", "there.jsonl"]])
def test_without_a_stack_a_command_says_so_and_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.jsonl").write_text("")
    done = CliRunner().invoke(app, arguments, env={"HALFSURE_HOME": str(tmp_path / "home")})
    assert isinstance(done.exception, EXPECTED)
    assert "`halfsure up`" in str(done.exception)
    elsewhere = CliRunner().invoke(app, [*arguments, "--url", "http://127.0.0.1:9"])
    assert "HALFSURE_TOKEN" in str(elsewhere.exception), "the token of this machine goes nowhere else"
    assert {path.name for path in tmp_path.iterdir()} == {"there.jsonl"}


async def test_dead_letters_are_listed_replayed_and_discarded(cli: Cli) -> None:
    """What came before its project is handled once the project is there; what never fits is thrown away."""
    assert await cli.queue.deliver(selected("smp_early", project="later")) == ["DROP"]
    await cli.queue.deliver_raw("project", [{"id": "broken"}])
    rows = await cli.json("deadletters", "list", "label-queue", role="admin")
    letters = {row["topic"]: row["id"] for row in rows}
    assert set(letters) == {"sample-selected", "project"}
    await cli("deadletters", "replay", "label-queue", "--all", role="admin", code=1)
    await cli.queue.deliver(project("later"))
    await cli("deadletters", "replay", "label-queue", letters["sample-selected"], role="admin")
    tasks = (await cli.queue.call("GET", "/v1/tasks?project=later")).json()["items"]
    assert [row["sample_id"] for row in tasks] == ["smp_early"]
    await cli("deadletters", "discard", "label-queue", letters["project"], role="admin")
    assert await cli.json("deadletters", "list", "label-queue", role="admin") == []
