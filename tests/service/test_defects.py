"""Defects of the systems this one descends from, each a test; the table says where those are that others hold."""

import ast
import asyncio
import re
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

import crowd
import pytest
from filled import APPS, filled, operations

from services.runtime.access import Tokens

pytestmark = pytest.mark.usefixtures("brisk")
ROOT = Path(__file__).parents[2]
STREAM = "/v1/events"

# ruff: noqa: E501
HELD = {
    "MLADE: an update of the duty cycle is lost": "tests/service/test_policies.py::test_a_change_is_in_force_on_every_replica_within_five_seconds_and_deletes_nothing",
    "MLADE: a duty cycle divides by zero, and gives a third for 0.3": "tests/unit/test_rules.py::test_a_random_share_is_a_share_and_always_the_same",
    "MLADE: the confidence band is not there": "tests/unit/test_rules.py::test_a_confidence_band_has_its_ends_and_nothing_beyond",
    "MLADE: what is kept is the opposite of what is said": "tests/service/test_policies.py::test_only_what_the_rules_let_pass_is_asked_and_each_decision_says_why",
    "MLADE: the event loop sleeps": "tests/service/test_defects.py::test_nothing_is_evaluated_and_no_handler_sleeps",
    "MLADE: the API key is printed": "tests/service/test_secrets.py::test_no_secret_is_in_a_log",
    "MLADE: an exception in scoring leaves its answer undefined": "tests/service/test_infer.py::test_unreadable_content_goes_to_a_person",
    "MLADE: tests import what does not exist": "tests/service/test_defects.py::test_no_test_imports_what_does_not_exist",
    "KAN: training by GET": "tests/service/test_defects.py::test_no_get_changes_state",
    "KAN: labels are evaluated": "tests/service/test_defects.py::test_nothing_is_evaluated_and_no_handler_sleeps",
    "KAN: a quota is never given back": "tests/service/test_policies.py::test_a_quota_gives_its_places_back",
    "KAN: a failed training is waited for": "tests/service/test_retrain_trigger.py::test_a_failed_training_says_why_and_keeps_its_labels_new",
    "KAN: a look at a task locks all, and looks for another": "tests/service/test_defects.py::test_a_task_is_looked_up_by_its_id_and_a_look_holds_up_nobody",
    "KAN: open to anyone by default": "tests/service/test_defects.py::test_nobody_is_let_in_where_no_tokens_are_named",
    "KAN: one provider's models alone take part": "tests/service/test_retrain_trigger.py::test_a_model_of_ones_own",
    "KAN: ids and times are 0": "tests/service/test_defects.py::test_ids_and_times_are_never_nothing",
    "KAN: a changed range deletes what is queued": "tests/service/test_defects.py::test_a_changed_policy_takes_no_task_away",
}


def test_every_defect_and_every_control_has_a_test() -> None:
    controls = re.findall(r"`(tests/[^`]+)`", (ROOT / "SECURITY.md").read_text())
    assert len(controls) > 20
    assert [path for path in controls if not (ROOT / path).exists()] == []
    missing = []
    for defect, test in HELD.items():
        path, _, name = test.partition("::")
        if not re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE):
            missing.append(defect)
    assert missing == []


def test_no_test_imports_what_does_not_exist() -> None:
    """MLADE's one test imported functions that were not there, and so had never run."""
    missing = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("services"):
                known = _names(str(node.module))
                missing += [f"{path.name}: {node.module}.{one.name}" for one in node.names if one.name not in known]
    assert missing == []


@cache
def _names(module: str) -> set[str]:
    """What a module of ours has at its top, and the modules below it."""
    place = ROOT / module.replace(".", "/")
    below = {path.stem for path in place.iterdir()} if place.is_dir() else set()
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())) if file.exists() else ():
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case ast.alias(name=name, asname=other):
                names.add(other or name)
    return names | below


async def test_a_task_is_looked_up_by_its_id_and_a_look_holds_up_nobody(tmp_path: Path, monkeypatch: Any) -> None:
    """KAN looked a literal key up, and left the mutex of all tasks locked when it was not there."""
    async with filled("label-queue", tmp_path, monkeypatch) as one, asyncio.timeout(20):
        running = one.running
        rows = (await running.call("GET", "/v1/tasks")).json()["items"]
        for row in rows:
            for wrong in ("tsk_none", "task_id"):
                answer = await running.call("GET", f"/v1/tasks/{wrong}")
                assert answer.status_code == 404
                beat = await running.call("POST", f"/v1/tasks/{wrong}:heartbeat", json={"epoch": 1})
                assert beat.status_code == 404
            assert (await running.call("GET", f"/v1/tasks/{row['id']}")).json()["id"] == row["id"]
        claimed = await running.call("POST", "/v1/tasks:claim", json={"annotator": "late", "n": 1})
        assert claimed.status_code in (200, 204), claimed.text


@pytest.mark.parametrize("app", APPS)
async def test_nobody_is_let_in_where_no_tokens_are_named(app: str, tmp_path: Path, monkeypatch: Any) -> None:
    """KAN's portal was open to whoever had its address."""
    async with filled(app, tmp_path, monkeypatch) as one:
        service = one.running.service
        service.api.state.tokens = Tokens(None, lambda: service.clock.now())
        for method, path in operations(service):
            if path == STREAM or path.endswith(":callback"):
                continue
            answer = await one.running.call(method, one.path(path))
            assert answer.status_code == 401, (method, path, answer.status_code)


ASKED: ContextVar[str] = ContextVar("the path that is asked for", default="")
WRITING = {"state": ("commit",), "blobs": ("put", "put_all", "replace", "delete"), "bus": ("publish",)}


@pytest.mark.parametrize("app", APPS)
async def test_no_get_changes_state(app: str, tmp_path: Path, monkeypatch: Any) -> None:
    """KAN trained, retrained and reset by GET. What the service does meanwhile of its own accord is no GET's doing."""
    async with filled(app, tmp_path, monkeypatch) as one:
        running, written = one.running, []
        for port, names in WRITING.items():
            for name in names:
                _noted(getattr(running, port), name, written, monkeypatch)
        for method, path in operations(running.service):
            if method == "GET" and path != STREAM:
                ASKED.set(path)
                answer = await running.call("GET", one.path(path))
                assert answer.status_code in (200, 404), answer.text
        assert written == []


def _noted(port: Any, name: str, written: list[tuple[str, str]], monkeypatch: Any) -> None:
    """Have what is written on behalf of a request go into `written`."""
    write = getattr(port, name)

    async def noting(*arguments: Any) -> Any:
        if ASKED.get():
            written.append((ASKED.get(), name))
        return await write(*arguments)

    monkeypatch.setattr(port, name, noting)


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
