"""The workflows of `.github`: nothing in them moves by itself, and what they run is what the Makefile has."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}")


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in yaml.safe_load(path.read_text())["jobs"].values() for step in job["steps"]]


def loose(found: list[dict[str, Any]]) -> list[str]:
    """The actions that are not pinned by a whole commit."""
    return [step["uses"] for step in found if "uses" in step and not PINNED.fullmatch(step["uses"])]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_pinned_by_its_commit_and_says_which_version_that_is(path: Path) -> None:
    assert any("uses" in step for step in steps(path))
    assert not loose(steps(path))
    for line in path.read_text().splitlines():
        assert "uses:" not in line or re.search(r"@[0-9a-f]{40}  # v\d+\.\d+\.\d+$", line), line


def test_a_tag_a_branch_and_a_short_commit_are_found() -> None:
    names = [f"actions/checkout@{one}" for one in ("v7", "main", "3d3c42e", "3d3c42e5aac5ba805825da76410c181273ba90b1")]
    assert loose([{"uses": name} for name in names]) == names[:3]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_only_read_and_types_targets_that_exist(path: Path) -> None:
    assert yaml.safe_load(path.read_text())["permissions"] == {"contents": "read"}
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    runs = [step["run"] for step in steps(path) if "run" in step]
    assert {run.split()[0] for run in runs} == {"make"}
    assert {run.split()[1] for run in runs} <= targets


def test_ci_tests_plays_chaos_audits_and_writes_the_bills_of_materials() -> None:
    (path,) = WORKFLOWS
    assert {"make test", "make chaos RUNS=10", "make audit", "make sbom"} <= {step.get("run") for step in steps(path)}
