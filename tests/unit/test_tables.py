"""Labelled data as users have it: folders, rows, texts and streams, with one label or several."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from services.cli.datasets import DataProblem, agreement
from services.cli.reading import load
from services.cli.tables import Columns
from services.contracts.preprocessing import decode
from services.contracts.values import checked


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows))
        return path
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def readable(data: Any) -> None:
    """Every sample is one of the project that would be made, and every answer an answer."""
    for item in data.items:
        assert np.isfinite(decode(item.content, item.media_type, data.input)).all()
        assert checked(item.label, data.task, data.labels) == item.label


def test_rows_with_one_label(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"x": at, "c": "uv"[at % 2], "kind": "ab"[at % 2]} for at in range(80)]
    data = load(written(tmp_path / "rows.csv", [*rows, {"x": "", "c": "u", "kind": "a"}]), Columns())
    assert (data.task, data.labels, len(data.items)) == ("tabular-classification", ("a", "b"), 80)
    readable(data)
    assert data.metric == "accuracy"


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_texts_with_several_labels(tmp_path: Path, ending: str) -> None:
    sets = [[], ["a"], ["b"], ["a", "b"]]
    rows = [{"text": f"text number {at}", "tags": sets[at % 4]} for at in range(80)]
    if ending == "csv":
        rows = [{**row, "tags": " ; ".join(row["tags"])} for row in rows]
    columns = Columns(text="text", separator=";" if ending == "csv" else None)
    data = load(written(tmp_path / f"texts.{ending}", rows), columns)
    assert (data.task, data.labels, data.metric) == ("text-multi-label", ("a", "b"), "jaccard")
    assert [item.label for item in data.items] == sets * 20
    readable(data)


def test_windows_of_streams_have_the_answer_of_their_last_point(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"machine": f"m{at % 2}", "x": at, "note": f"n{at}", "state": "on" if at % 20 >= 10 else "off"}
        for at in range(1210)
    ]
    rows[30]["x"] = ""
    data = load(written(tmp_path / "streams.csv", rows), Columns(label="state", stream="machine", window=5))
    assert (data.task, data.labels) == ("series-classification", ("off", "on"))
    assert len(data.items) == 120 + 121, "a hole ends a window"
    assert json.loads(data.items[0].content) == [{"x": float(at)} for at in (0, 2, 4, 6, 8)]
    assert data.items[0].label == "off"
    assert data.input.length == 5
    readable(data)


def test_folders_of_texts_and_of_images(tmp_path: Path) -> None:
    for name in ("one", "two"):
        for kind in ("texts", "images", "both"):
            (tmp_path / kind / name).mkdir(parents=True)
        for at in range(40):
            (tmp_path / "texts" / name / f"{at}.txt").write_text(f"{name} {at}")
            (tmp_path / "both" / name / f"{at}.txt").write_text(f"{name} {at}")
            shade = np.full((9, 9), 2 * at + (name == "two"), np.uint8)
            Image.fromarray(shade).save(tmp_path / "images" / name / f"{at}.png")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "both" / "one" / "x.png")
    texts, images = (load(tmp_path / kind, Columns()) for kind in ("texts", "images"))
    assert (texts.task, images.task) == ("text-classification", "image-classification")
    readable(texts)
    readable(images)
    with pytest.raises(DataProblem, match="one kind"):
        load(tmp_path / "both", Columns())


@pytest.mark.parametrize(
    ("name", "content", "columns", "says"),
    [
        ("x.csv", "a,b\n", Columns(), "no rows"),
        ("x.csv", "a,b\n1,2\n", Columns(label="c"), "no column 'c'"),
        ("x.csv", "a,b\n1,2\n", Columns(text="t"), "no column 't'"),
        ("x.csv", "a,b\n1,2\n", Columns(), "too few"),
        ("x.csv", "a\n1\n", Columns(), "no usable column"),
        ("x.jsonl", "[1]", Columns(), "line 1: a row is a JSON object"),
        ("x.jsonl", '{"a": 1}\n{', Columns(), "line 2"),
        ("x.xlsx", "", Columns(), "neither"),
    ],
)
def test_what_cannot_be_played_says_why(tmp_path: Path, name: str, content: str, columns: Columns, says: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataProblem, match=says):
        load(tmp_path / name, columns)


@pytest.mark.parametrize(
    ("said", "true", "share"),
    [("a", "a", 1), ("a", "b", 0), (["a"], ["a", "b"], 0.5), ([], [], 1), (["a"], [], 0), (["a", "b"], ["b", "a"], 1)],
)
def test_agreement_is_of_labels(said: Any, true: Any, share: float) -> None:
    assert agreement(said, true) == share
