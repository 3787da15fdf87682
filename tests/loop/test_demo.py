"""The loop closes: one command, real images, the real runtime; and nothing is left behind."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.loop, pytest.mark.timeout(600)]

KEYS = {
    "dataset",
    "strategy",
    "seed",
    "rounds",
    "labels_used",
    "evaluation_labels",
    "final_accuracy",
    "full_supervised_accuracy",
    "labels_to_97_percent",
    "baseline_random",
    "events",
    "dapr",
    "wall_seconds",
}
LOOP = ("sample.ingested", "sample.scored", "sample.selected", "label.accepted", "model.activated")


def test_demo_reaches_a_model_as_good_as_all_labels_with_a_fraction_of_them(
    halfsure: Callable[..., Any], tmp_path: Path
) -> None:
    """Rows 1.5, 4.1 and D1: one command, from no label to better and better models, only labels from outside."""
    done = halfsure("demo")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "out" / "demo" / "report.json").read_text())
    assert set(report) >= KEYS
    assert report["final_accuracy"] >= 0.97 * report["full_supervised_accuracy"]
    assert report["labels_to_97_percent"] <= 130
    assert report["labels_used"] <= 130
    assert report["evaluation_labels"] <= 200
    promoted = [row["model_version"] for row in report["rounds"] if row["promoted"]]
    assert len(set(promoted)) == len(promoted) >= 3
    assert len(report["rounds"]) > 1, "a candidate was judged against a champion"
    assert report["labels_used"] == report["labels_accepted"] == report["labels_in_last_snapshot"]
    assert all(report["events"][f"io.halfsure.{kind}.v1"] > 0 for kind in LOOP)
    assert report["events"]["io.halfsure.sample.ingested.v1"] == report["ingested"]
    assert report["dapr"]["runtime_version"].startswith("1.18")
    assert len(report["dapr"]["app_ids"]) == 6
    page = (tmp_path / "out" / "demo" / "report.html").read_text()
    assert "<svg" in page
    assert "src=" not in page
    assert "http" not in page.replace("http-equiv", ""), "the page needs nothing from elsewhere"


def test_smoke_follows_a_sample_all_the_way(halfsure: Callable[..., Any]) -> None:
    """Row 2.20; the other profiles' are in tests/profiles."""
    done = halfsure("smoke")
    assert done.returncode == 0, done.stdout + done.stderr
    stations = ("sample.ingested", "sample.scored", "sample.selected", "label.accepted", "which infer serves")
    assert [any(station in line for line in done.stdout.splitlines()) for station in stations] == [True] * 5


def test_simulate_plays_a_users_table(halfsure: Callable[..., Any], tmp_path: Path) -> None:
    from sklearn.datasets import load_wine

    wine = load_wine()
    with (tmp_path / "wine.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*wine.feature_names, "cultivar"])
        writer.writerows([*row, f"c{label}"] for row, label in zip(wine.data, wine.target, strict=True))
    done = halfsure(
        *("simulate", "--data", "wine.csv", "--label-column", "cultivar"),
        *("--budget", "30", "--batch", "10", "--strategy", "margin", "--seed", "1", "--json", "wine.json"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "wine.json").read_text())
    assert (report["dataset"], report["strategy"], report["labels_used"]) == ("wine", "margin", 30)
    assert report["final_accuracy"] > 0.8


def test_simulate_says_what_is_wrong_with_the_data(halfsure: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    for arguments, words in (
        (["--data", "nowhere"], "neither a folder"),
        (["--data", "bad.csv", "--label-column", "c"], "no column 'c'"),
        (["--data", "bad.csv"], "too few"),
    ):
        done = halfsure("simulate", *arguments)
        assert done.returncode == 2
        assert words in " ".join(done.stderr.split())
        assert "Traceback" not in done.stderr
