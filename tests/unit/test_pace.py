"""How the work goes, by the answers that there are."""

from datetime import UTC, datetime, timedelta

from services.label_queue.pace import HOURS, pace
from services.label_queue.tasks import Answer, State, Task

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)


def task(state: State, *answers: Answer, reason: str | None = None) -> Task:
    fields = {"id": "t", "project": "p", "sample_id": "s", "created_at": NOW, "changed_at": NOW}
    return Task(**fields, state=state, answers=answers, skip_reason=reason)


def answer(hours_ago: float, seconds: float | None, **more: str) -> Answer:
    at = NOW - timedelta(hours=hours_ago)
    return Answer.model_validate(
        {"id": "a", "annotator": "ada", "epoch": 1, "value": "x", "at": at, "seconds": seconds, **more}
    )


def test_answers_are_counted_by_the_hour_that_they_came_in() -> None:
    tasks = [
        task(State.ACCEPTED, answer(0.5, 1.0), answer(0.2, 9.0, revises="a")),
        task(State.ACCEPTED, answer(0.1, 3.0), answer(23.5, None), answer(25, 2.0)),
        task(State.ACCEPTED, answer(0.3, 50.0, kind="draft")),
    ]
    found = pace(tasks, [task(State.SKIPPED, reason="unclear")] * 2 + [task(State.SKIPPED, reason="other")], NOW)
    assert len(found["by_hour"]) == HOURS
    assert (found["by_hour"][0], found["by_hour"][-1], sum(found["by_hour"])) == (1, 2, 3)
    assert found["seconds"] == {"n": 3, "p50": 2.0, "p90": 2.8}
    assert found["skipped"] == {"unclear": 2, "other": 1}


def test_where_nobody_has_answered_there_is_no_pace() -> None:
    assert pace([], [], NOW) == {
        "by_hour": [0] * HOURS,
        "seconds": {"n": 0, "p50": None, "p90": None},
        "skipped": {},
    }
