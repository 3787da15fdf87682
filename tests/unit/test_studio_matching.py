"""What the connector of Label Studio does about how a task stands on both sides, and what its webhooks say."""

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from services.cli.studio.hook import named
from services.cli.studio.matching import Give, Revise, Skip, Undo, moves, wishes

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = {1: "anna@x.org", 2: "bert@x.org"}
ANNA, BERT = "label-studio:anna@x.org", "label-studio:bert@x.org"


def annotation(number: int, who: int, value: str | None, minutes: float = 0.0) -> dict[str, Any]:
    result = [] if value is None else [{"type": "choices", "value": {"choices": [value]}}]
    at = (NOW + timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")
    more = {"updated_at": at, "was_cancelled": value is None, "lead_time": 3.0}
    return {"id": number, "completed_by": who, "result": result, **more}


def answer(who: str, value: str, minutes: float = 1.0, kind: str = "counted") -> dict[str, Any]:
    at = (NOW + timedelta(minutes=minutes)).isoformat()
    return {"id": f"ann_{who}_{value}", "annotator": who, "value": value, "epoch": 4, "at": at, "kind": kind}


def record(*answers: dict[str, Any], state: str = "QUEUED", round_id: str = "r1") -> dict[str, Any]:
    return {"id": "tsk_1", "state": state, "answers": list(answers), "round_id": round_id}


def told(annotations: list[dict[str, Any]], ours: dict[str, Any]) -> list[tuple[str, str]]:
    """The moves, in short."""
    short: list[tuple[str, str]] = []
    for move in moves(wishes(annotations, NAMES), ours, "r1"):
        match move:
            case Undo(name):
                short.append(("undo", name))
            case Give(wish) | Revise(wish, _, _):
                short.append((type(move).__name__.lower(), f"{wish.annotator} {wish.value}"))
            case Skip(wish):
                short.append(("skip", wish.annotator))
    return short


@pytest.mark.parametrize(
    ("annotations", "ours", "wanted"),
    [
        ([], record(), []),
        ([annotation(1, 1, "cat")], record(), [("give", f"{ANNA} cat")]),
        ([annotation(1, 1, "cat")], record(answer(ANNA, "cat"), state="ACCEPTED"), []),
        ([annotation(1, 1, "dog")], record(answer(ANNA, "cat"), state="ACCEPTED"), [("revise", f"{ANNA} dog")]),
        ([], record(answer(ANNA, "cat"), state="ACCEPTED"), [("undo", f"ann_{ANNA}_cat")]),
        ([], record(answer("page", "cat"), state="ACCEPTED"), []),
        (
            [annotation(1, 2, "dog")],
            record(answer(ANNA, "cat"), state="LABELED"),
            [("undo", f"ann_{ANNA}_cat"), ("give", f"{BERT} dog")],
        ),
        ([annotation(1, 1, "cat"), annotation(2, 1, "dog", 5)], record(), [("give", f"{ANNA} dog")]),
        ([annotation(2, 1, "dog", 5), annotation(1, 1, "cat", 9)], record(), [("give", f"{ANNA} cat")]),
        ([annotation(1, 1, None)], record(), [("skip", ANNA)]),
        ([annotation(1, 1, None)], record(state="SKIPPED"), []),
        ([annotation(1, 1, None)], record(round_id="r2"), []),
        (
            [annotation(1, 1, None, 5)],
            record(answer(ANNA, "cat"), state="ACCEPTED"),
            [("undo", f"ann_{ANNA}_cat"), ("skip", ANNA)],
        ),
        ([annotation(1, 1, "cat")], record(answer(ANNA, "cat", kind="void")), []),
        ([annotation(1, 1, "cat", 5)], record(answer(ANNA, "cat", kind="void")), [("give", f"{ANNA} cat")]),
        ([{**annotation(1, 1, "cat"), "result": []}], record(), []),
        (
            [{**annotation(1, 7, "cat"), "completed_by": {"id": 7, "email": "c@d"}}],
            record(),
            [("give", "label-studio:c@d cat")],
        ),
    ],
)
def test_the_moves_make_our_side_theirs(
    annotations: list[dict[str, Any]], ours: dict[str, Any], wanted: list[tuple[str, str]]
) -> None:
    assert told(annotations, ours) == wanted


@pytest.mark.parametrize(
    ("said", "tasks"),
    [
        ({"action": "ANNOTATION_CREATED", "annotation": {"id": 1, "task": 7}, "task": {"id": 7}}, {7}),
        ({"action": "ANNOTATIONS_CREATED", "annotation": [{"id": 1, "task": 7}, {"id": 2, "task": 8}]}, {7, 8}),
        ({"action": "ANNOTATIONS_CREATED", "task": [{"id": 7}, {"id": 9}]}, {7, 9}),
        ({"action": "ANNOTATION_UPDATED", "annotation": {"id": 1, "task": 7}}, {7}),
        ({"action": "ANNOTATION_DELETED", "annotation": {"id": 1}}, None),
        ({"action": "ANNOTATIONS_DELETED", "annotations": [{"id": 1}]}, None),
        ({"action": "ANNOTATION_CREATED"}, None),
        ({"action": "PROJECT_UPDATED"}, set()),
        ({"action": ["x"]}, set()),
        ([], None),
        ("x", None),
    ],
)
def test_a_message_says_where_to_look(said: Any, tasks: set[int] | None) -> None:
    assert named(orjson.dumps(said)) == tasks


def test_a_message_that_is_no_json_has_everything_looked_at() -> None:
    assert named(b"\xff{") is None
