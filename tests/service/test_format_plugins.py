"""A format of labels of somebody's own, installed beside halfsure, is one more format."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from conftest import Running, started
from crowd import project

from services.contracts.inputs import InputSpec
from services.contracts.tasks import Task
from services.label_queue.app import create
from services.label_queue.interchange import FORMATS, plugins
from services.label_queue.interchange.tables import Csv

EXAMPLE = Path(__file__).parents[2] / "examples" / "format"
LABELS = ["a bill", "a%20b", "plain"]
OWN = """
from services.label_queue.interchange.label import Format

def careless(bundle):
    yield {"value": "plain"}

def failing(bundle):
    yield 1 / 0

OTHER = Format("another-name", "text/plain", "txt", None, failing)
CARELESS = Format("careless", "text/plain", "txt", None, careless)
FAILING = Format("failing", "text/plain", "txt", None, failing)
CSV = Format("csv", "text/plain", "txt", None, failing)
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example as pip would install it, and a package whose formats keep no promise."""
    site = tmp_path / "site"
    site.mkdir()
    shutil.copy(EXAMPLE / "fasttext.py", site)
    (site / "own_formats.py").write_text(OWN)
    names = ("other = own_formats:OTHER", "careless = own_formats:CARELESS", "failing = own_formats:FAILING")
    _distribution(site, "example-format", "fasttext = fasttext:FORMAT")
    _distribution(site, "own-formats", *names, "csv = own_formats:CSV", "missing = own_formats:MISSING")
    monkeypatch.syspath_prepend(site)
    yield
    for name in ("fasttext", "own_formats"):
        sys.modules.pop(name, None)


def _distribution(site: Path, name: str, *points: str) -> None:
    info = site / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join([f"[{plugins.GROUP}]", *points]) + "\n")


def texts(task: Task = "text-classification") -> Any:
    return project(task=task, labels=LABELS, input=InputSpec.text(64).model_dump(mode="json"))


async def put(running: Running, content: bytes, form: str) -> list[dict[str, Any]]:
    answer = await running.call("POST", "/v1/import", "operator", params={"format": form}, content=content)
    assert answer.status_code == 207, answer.text
    return answer.json()["results"]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("task", "values"),
    [("text-classification", [[one] for one in LABELS]), ("text-multi-label", [LABELS[:2], [], LABELS[2:]])],
)
async def test_labels_go_out_and_come_in_by_an_installed_format(
    tmp_path: Path, task: Task, values: list[list[str]]
) -> None:
    """Row 1.7, for label adapters: no service is edited."""
    single = task == "text-classification"
    rows = [{"text": f"sample {n}", "value": value[0] if single else value} for n, value in enumerate(values)]
    async with started(create, tmp_path) as here:
        await here.deliver(texts(task))
        await put(here, b"\n".join(map(orjson.dumps, rows)), "jsonl")
        answer = await here.call("GET", "/v1/export?format=fasttext", "viewer")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")
        assert 'filename="default-fasttext.txt"' in answer.headers["content-disposition"]
        assert "__label__a%20bill" in answer.text
        assert "__label__a%2520b" in answer.text
    there = tmp_path / "there"
    there.mkdir()
    async with started(create, there) as other:
        await other.deliver(texts(task))
        assert {row["status"] for row in await put(other, answer.content, "fasttext")} == {201}
        again = await other.call("GET", "/v1/export?format=fasttext", "viewer")
        assert again.content == answer.content


@pytest.mark.usefixtures("installed")
async def test_a_line_without_a_label_costs_itself_alone(tmp_path: Path) -> None:
    async with started(create, tmp_path) as running:
        await running.deliver(texts())
        told = await put(running, b"__label__plain one\nno label\n__label__plain two\n", "fasttext")
        assert [row["status"] for row in told] == [201, 422, 201]
        assert told[1]["problem"]["detail"] == "Line 2 has 0 labels; this project wants one."


@pytest.mark.usefixtures("installed")
async def test_an_installed_format_is_named_where_it_fits_and_a_broken_one_is_not(tmp_path: Path) -> None:
    async with started(create, tmp_path) as running:
        await running.deliver(texts(), project("pictures"))
        answer = await running.call("GET", "/v1/export?format=nonsense", "viewer")
        assert answer.status_code == 406
        assert answer.json()["detail"].endswith("there is jsonl, csv, parquet, fasttext, careless, failing.")
        answer = await running.call("GET", "/v1/export?format=fasttext&project=pictures", "viewer")
        assert (answer.status_code, "fasttext cannot carry" in answer.json()["detail"]) == (406, True)
        for name, why in (("other", "no Format of the name 'other'"), ("missing", "cannot be imported")):
            answer = await running.call("GET", f"/v1/export?format={name}", "viewer")
            assert (answer.status_code, answer.json()["type"]) == (500, "urn:halfsure:problem:broken-format")
            assert why in answer.json()["detail"]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("name", "why"), [("careless", "a label came as dict"), ("failing", "division by zero")])
async def test_a_reader_that_breaks_is_said_to_whoever_sent_the_file(tmp_path: Path, name: str, why: str) -> None:
    async with started(create, tmp_path) as running:
        await running.deliver(texts())
        answer = await running.call("POST", f"/v1/import?format={name}", "operator", content=b"x")
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
        assert why in answer.json()["detail"]


@pytest.mark.usefixtures("installed")
def test_a_built_in_name_cannot_be_taken_over() -> None:
    assert FORMATS["csv"].writer is Csv
    assert list(FORMATS).count("csv") == 1


def test_without_the_package_the_name_is_unknown() -> None:
    assert "fasttext" not in FORMATS
