"""The loop closes: one command, real images, the real runtime; and nothing is left behind."""

import csv
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
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
    assert all(row["unlabelled"] == report["pool"] - row["labels"] for row in report["rounds"])
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


def paragraphs(module: Any, count: int) -> list[str]:
    """Paragraphs of what a package says of its functions and classes."""
    found = set()
    for _, thing in inspect.getmembers(module, lambda one: inspect.isclass(one) or inspect.isroutine(one)):
        for part in (inspect.getdoc(thing) or "").split("\n\n"):
            words = " ".join(part.split())
            if 60 <= len(words) <= 400 and not words.startswith(">>>"):
                found.add(words)
    return sorted(found)[:count]


def test_simulate_plays_texts(halfsure: Callable[..., Any], tmp_path: Path) -> None:
    """The loop of a text classification: what two packages are documented with, told apart."""
    import scipy.signal
    import sklearn.linear_model

    for module in (scipy.signal, sklearn.linear_model):
        folder = tmp_path / "packages" / module.__name__
        folder.mkdir(parents=True)
        for at, words in enumerate(paragraphs(module, 250)):
            (folder / f"{at}.txt").write_text(words)
    done = halfsure("simulate", "--data", "packages", "--budget", "60", "--batch", "20", "--json", "texts.json")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "texts.json").read_text())
    assert (report["metric"], report["labels_used"]) == ("accuracy", 60)
    assert sum(row["promoted"] for row in report["rounds"]) >= 1
    assert report["final_accuracy"] > 0.7
    assert report["full_supervised_accuracy"] > 0.8
    assert all(report["events"][f"io.halfsure.{kind}.v1"] > 0 for kind in LOOP)


FAULTS = {
    "electrical": ["the fuse has blown", "a breaker tripped", "no voltage on the panel", "the cable is burnt"],
    "hydraulic": ["oil leaks at the valve", "pressure drops in line two", "the pump is dry", "a hose is torn"],
    "urgent": ["stop the line now", "somebody is hurt", "it smokes", "the guard is open"],
}
PLACES = ["press one", "press two", "the mill", "hall three", "the crane", "the furnace", "the belt", "the robot"]


def test_simulate_plays_several_labels(halfsure: Callable[..., Any], tmp_path: Path) -> None:
    """The loop of a multi-label project: notes of a plant, each with any number of faults."""
    rng = np.random.default_rng(5)
    rows = []
    for number in range(420):
        faults = [name for name in FAULTS if rng.random() < 0.35]
        parts = [str(rng.choice(FAULTS[name])) for name in faults] + [f"seen at {rng.choice(PLACES)}, note {number}"]
        rows.append({"note": ", ".join(map(str, rng.permutation(parts))), "faults": faults})
    (tmp_path / "notes.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    done = halfsure(
        *("simulate", "--data", "notes.jsonl", "--text-column", "note", "--label-column", "faults"),
        *("--budget", "60", "--batch", "20", "--json", "notes.json"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "notes.json").read_text())
    assert (report["metric"], report["labels_used"]) == ("jaccard", 60)
    assert sum(row["promoted"] for row in report["rounds"]) >= 1
    assert report["rounds"][-1]["accuracy"] > report["rounds"][0]["accuracy"] - 0.05
    assert report["final_accuracy"] > 0.8
    assert report["full_supervised_accuracy"] > 0.95
    assert all(report["events"][f"io.halfsure.{kind}.v1"] > 0 for kind in LOOP)
