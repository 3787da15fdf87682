"""`halfsure new`: what it sees in data, and that what it writes is a project."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from services.cli.datasets import DataProblem
from services.cli.main import app
from services.cli.starting import Wanted, document, look
from services.contracts.projects import ProjectSpec


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of each kind; `look` opens no picture."""
    for name in ("photos/a.jpg", "photos/deep/b.PNG", "sorted/cat/a.jpg", "sorted/dog/b.jpg", "letters/1.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    rows = [f"r{n},{n / 2},{'on' if n % 2 else 'off'},m{n % 3},{'good' if n % 4 else 'bad'}" for n in range(60)]
    (tmp_path / "readings.csv").write_text("\n".join(["id,temperature,state,machine,verdict", *rows]) + "\n")
    return tmp_path


BOTH = ("good", "bad")


@pytest.mark.parametrize(
    ("path", "wanted", "task", "labels", "shape"),
    [
        ("photos", Wanted(labels=BOTH), "image-classification", BOTH, (None, 3, 32, 32)),
        ("photos", Wanted("detection", ("crate",)), "image-detection", ("crate",), (None, 3, 96, 96)),
        ("photos", Wanted("multi-label", ("wet",)), "image-multi-label", ("wet",), (None, 3, 32, 32)),
        ("sorted", Wanted(), "image-classification", ("cat", "dog"), (None, 3, 32, 32)),
        ("letters", Wanted(labels=BOTH), "text-classification", BOTH, (None, 4096)),
        (
            "readings.csv",
            Wanted(label_column="verdict", key_column="id"),
            "tabular-classification",
            ("bad", "good"),
            (None, 6),
        ),
        (
            "readings.csv",
            Wanted(labels=BOTH, stream_column="machine", key_column="id", window=8),
            "series-classification",
            BOTH,
            (None, 8, 1),
        ),
    ],
)
def test_each_kind_is_seen_and_what_is_written_is_a_project(
    data: Path, path: str, wanted: Wanted, task: str, labels: tuple[str, ...], shape: tuple[int | None, ...]
) -> None:
    seen = look(data / path, wanted)
    assert (seen.task, seen.labels, seen.input.shape) == (task, labels, shape)
    spec = ProjectSpec.model_validate(yaml.safe_load(document("yard", "yard.yaml", seen)))
    assert (spec.task, tuple(spec.labels), spec.input) == (task, labels, seen.input)
    assert json.loads(spec.model_dump_json())["policy"]["batch"] == 20


@pytest.mark.parametrize(
    ("path", "wanted", "word"),
    [
        ("photos", Wanted(), "--labels"),
        ("nowhere", Wanted(labels=BOTH), "nothing"),
        ("letters", Wanted("detection", ("a",)), "pictures"),
        ("photos", Wanted("segmentation", BOTH), "detection"),
        ("readings.csv", Wanted(labels=BOTH, key_column="ID"), "temperature"),
    ],
)
def test_what_is_missing_is_said_with_what_to_do(data: Path, path: str, wanted: Wanted, word: str) -> None:
    with pytest.raises(DataProblem, match=word):
        look(data / path, wanted)


def test_the_command_writes_a_trainer_for_boxes_and_overwrites_nothing(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data)
    words = ["new", "dock", "--data", "photos", "--labels", "crate", "--answer", "detection"]
    assert CliRunner().invoke(app, words).exit_code == 0
    compile((data / "dock-train.py").read_text(), "dock-train.py", "exec")
    (data / "dock.yaml").write_text("mine")
    assert CliRunner().invoke(app, words).exit_code == 1
    assert (data / "dock.yaml").read_text() == "mine"


def test_the_shell_completes_commands_and_options() -> None:
    """Typer's own completion: `halfsure --install-completion` puts it into the shell."""
    for words, wanted in (("halfsure ne", "new"), ("halfsure token cr", "create"), ("halfsure new --lab", "--labels")):
        given = {"_HALFSURE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
        told = CliRunner().invoke(app, [], env=given, prog_name="halfsure")
        assert wanted in told.output.split(), told.output
