"""Defects of the systems this one descends from, each a test; the table says where those are that others hold."""

import ast
import re
from pathlib import Path
from typing import Any

import crowd
import pytest
from filled import APPS, filled, operations

pytestmark = pytest.mark.usefixtures("brisk")
ROOT = Path(__file__).parents[2]
STREAM = "/v1/events"

HELD = {
    "MLADE: an update of the duty cycle is lost": "tests/service/test_policies.py",
    "MLADE: a duty cycle divides by zero, and gives a third for 0.3": "tests/unit/test_rules.py",
    "MLADE: the confidence band is not there": "tests/unit/test_rules.py",
    "MLADE: the API key is printed": "tests/service/test_secrets.py",
    "MLADE: an exception in scoring leaves its answer undefined": "tests/service/test_infer.py",
    "KAN: training by GET": "tests/service/test_defects.py",
    "KAN: labels are evaluated": "tests/service/test_defects.py",
    "KAN: a quota is never given back": "tests/unit/test_budgets.py",
    "KAN: a failed training is waited for": "tests/service/test_retrain_trigger.py",
    "KAN: open to anyone by default": "tests/service/test_roles.py",
    "KAN: ids and times are 0": "tests/service/test_defects.py",
    "KAN: a changed range deletes what is queued": "tests/service/test_defects.py",
}


def test_every_defect_and_every_control_has_a_test() -> None:
    controls = re.findall(r"`(tests/[^`]+)`", (ROOT / "SECURITY.md").read_text())
    assert len(controls) > 20
    assert [path for path in [*HELD.values(), *controls] if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("app", APPS)
async def test_no_get_changes_state(app: str, tmp_path: Path, monkeypatch: Any) -> None:
    """KAN trained, retrained and reset by GET."""
    async with filled(app, tmp_path, monkeypatch) as one:
        running = one.running
        await running.published()
        before, blobs = _records(running), dict(running.blobs.contents)
        for method, path in operations(running.service):
            if method == "GET" and path != STREAM:
                answer = await running.call("GET", one.path(path))
                assert answer.status_code in (200, 404), answer.text
        assert (_records(running), running.blobs.contents) == (before, blobs)
        assert await running.published() == []


def _records(running: Any) -> dict[str, Any]:
    """Every record but the heartbeats of outboxes and sources."""
    return {key: row[0] for key, row in running.state._rows.items() if not key.startswith(("outbox", "src:"))}


def test_nothing_is_evaluated_and_no_handler_sleeps() -> None:
    """KAN evaluated the text of labels; MLADE slept in its event loop."""
    found = []
    for path in sorted((ROOT / "services").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec"):
                found.append((path.name, node.lineno, node.func.id))
            if isinstance(node, ast.AsyncFunctionDef):
                inside = [one for one in ast.walk(node) if isinstance(one, ast.Call)]
                found += [(path.name, one.lineno, "sleep") for one in inside if ast.unparse(one.func) == "time.sleep"]
    assert found == []


async def test_a_changed_policy_takes_no_task_away(tmp_path: Path, monkeypatch: Any) -> None:
    """KAN deleted every queued picture of a project when its confidence range changed."""
    async with filled("label-queue", tmp_path, monkeypatch) as one:
        running = one.running
        before = (await running.call("GET", "/v1/tasks")).json()["items"]
        for revision, more in ((2, {"policy": {"batch": 3}}), (3, {"policy": {"audit": 0, "control": 0}})):
            assert await running.deliver(crowd.project(revision=revision, **more)) == ["SUCCESS"]
        after = (await running.call("GET", "/v1/tasks")).json()["items"]
        assert {row["id"]: row["state"] for row in after} == {row["id"]: row["state"] for row in before}
        assert len(after) == 2


async def test_ids_and_times_are_never_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    """KAN said `0` for the time and the id of every inference."""
    async with filled("infer", tmp_path, monkeypatch) as one:
        told = [envelope for _, envelope in await one.running.published()]
        assert told
        for envelope in told:
            assert envelope["id"] not in ("", "0", 0)
            assert envelope["time"] >= "2026-01-01T00:00:00"
            assert envelope["subject"] not in ("", "0")
        assert len({envelope["id"] for envelope in told}) == len(told)
