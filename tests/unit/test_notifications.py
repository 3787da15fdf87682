"""What is told, when a limit is passed, how often it is tried, and what a file may say. Hypothesis prints its seed."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.portal.notifications.book import KEPT, MOST, PATIENCE, Book
from services.portal.notifications.channels import letter
from services.portal.notifications.config import NotificationsUnusable, load
from services.portal.notifications.levels import Level, judged

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLjSw"


def walk(values: list[int], limit: int, quiet: float = 0.0, step: float = 10.0) -> list[int]:
    """The positions at which a walk of values is told."""
    level, told = Level(), list[int]()
    for at, value in enumerate(values):
        level, tell = judged(level, value, limit, NOW + timedelta(seconds=at * step), timedelta(seconds=quiet))
        told += [at] * tell
    return told


@pytest.mark.parametrize(
    ("values", "limit", "told"),
    [
        ([0, 1, 2, 3], 1, [1]),
        ([0, 1, 0, 1], 1, [1, 3]),
        ([9, 10, 9, 10, 11, 6, 10], 10, [1]),
        ([10, 4, 10], 10, [0, 2]),
        ([3, 3, 3], 4, []),
    ],
)
def test_a_limit_is_told_as_it_is_passed_and_not_while_it_swings(
    values: list[int], limit: int, told: list[int]
) -> None:
    assert walk(values, limit) == told


def test_after_a_notice_there_is_quiet_and_what_still_holds_then_is_told() -> None:
    assert walk([5, 0, 5, 5, 5], 5, quiet=35.0) == [0, 4]


@given(st.lists(st.integers(0, 30), max_size=60), st.integers(1, 20))
def test_between_two_notices_the_number_was_at_half_or_less(values: list[int], limit: int) -> None:
    told = walk(values, limit)
    assert all(values[at] >= limit for at in told)
    for first, second in pairwise(told):
        assert min(values[first:second]) <= (limit - 1) // 2


def test_a_look_from_before_the_last_change_says_nothing() -> None:
    level, _ = judged(Level(), 5, 5, NOW, timedelta())
    late = judged(level, 0, 5, NOW - timedelta(seconds=1), timedelta())
    assert late == (level, False)


def row(name: str) -> dict[str, Any]:
    told = {"rule": "ops", "kind": "run.failed", "project": "p", "time": NOW.isoformat(), "title": "t", "data": {}}
    return {"id": name, **told, "tries": 0, "next": NOW.isoformat(), "error": None}


def test_what_fails_is_tried_later_and_later_and_then_given_up() -> None:
    book, now, tries = Book(), NOW, list[float]()
    book.add([row("a")])
    while book.waiting:
        assert len(tries) <= len(PATIENCE)
        now = max(now, datetime.fromisoformat(book.waiting[0]["next"]))
        (taken,) = book.take(now)
        assert not book.due(now), "whoever looks meanwhile leaves it alone"
        tries.append((now - NOW).total_seconds())
        book.settle(set(), {taken["id"]: "it answered 500"}, set())
    assert [after - before for before, after in pairwise(tries)] == list(PATIENCE)
    (gone,) = book.given_up
    assert (gone["id"], gone["tries"], gone["error"]) == ("a", len(PATIENCE) + 1, "it answered 500")


def test_neither_what_waits_nor_what_was_given_up_grows_for_ever() -> None:
    book = Book()
    book.add([row(str(number)) for number in range(MOST + KEPT + 5)])
    stored = Book.of_record(book.record())
    assert [len(stored.waiting), len(stored.given_up)] == [MOST, KEPT]
    assert stored.waiting[-1]["id"] == str(MOST + KEPT + 4)
    assert {gone["error"] for gone in stored.given_up} == {"too many others waited"}


def test_a_letter_is_one_line_of_subject_and_the_same_each_time() -> None:
    notice = {**row("ntc_1"), "title": "a\r\nBcc: everybody@example.org", "data": {"run_id": "run_1", "error": ""}}
    first, second = (letter(notice, "half@example.org", ["a@b.c"], "https://x.org") for _ in range(2))
    assert first.as_bytes() == second.as_bytes()
    assert first["Subject"] == "[halfsure] a Bcc: everybody@example.org"
    assert first["Bcc"] is None
    assert first["Message-ID"] == "<ntc_1@example.org>"
    assert "run_id: run_1" in first.get_content()
    assert "error" not in first.get_content()


HOOK = 'name = "a"\non = ["run.failed"]\nwebhook = {url = "https://x.org/h", secret_file = "%s"}\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[rules]]\n" + HOOK.replace("https", "file"), "webhook.url"),
        ("[[rules]]\n" + HOOK.replace("https://", "https://me:secret@"), "webhook.url"),
        ("[[rules]]\n" + HOOK.replace("run.failed", "run.fails"), "rules.0.on"),
        (
            "[[rules]]\n" + HOOK.replace('webhook = {url = "https://x.org/h", secret_file = "%s"}', ""),
            "webhook or email",
        ),
        ("[[rules]]\n" + HOOK + "[[rules]]\n" + HOOK, "name of its own"),
        ('[[rules]]\nname = "a"\non = ["run.failed"]\nemail = ["a@b.c"]\n', "smtp"),
        ('[[rules]]\nname = "a"\non = ["run.failed"]\nemail = ["a@b.c\\nBcc: d@e.f"]\n', "email"),
        ('[smtp]\nhost = "h"\nsender = "a@b.c"\nsecurity = "none"\nuser = "u"\npassword_file = "%s"\n', "in the clear"),
        ("page = 3", "page"),
        ("rules = 1 1", "line 1"),
        ("[[rules]]\n" + HOOK.replace("%s", "/nowhere"), "/nowhere"),
    ],
)
def test_a_file_that_cannot_be_meant_ends_the_start_with_a_sentence(tmp_path: Path, text: str, said: str) -> None:
    secret, path = tmp_path / "secret", tmp_path / "notifications.toml"
    secret.write_text(SECRET + "\n")
    path.write_text(text.replace("%s", str(secret)))
    with pytest.raises(NotificationsUnusable, match=said):
        load(path)


def test_a_short_secret_is_refused_and_a_good_file_read(tmp_path: Path) -> None:
    secret, path = tmp_path / "secret", tmp_path / "notifications.toml"
    path.write_text("[[rules]]\n" + HOOK.replace("%s", str(secret)))
    secret.write_text("whsec_c2hvcnQ=")
    with pytest.raises(NotificationsUnusable, match="24 to 64"):
        load(path)
    secret.write_text(SECRET + "\n")
    (rule,) = load(path).rules
    assert (rule.wants("run.failed", "any"), rule.wants("gate.refused", "any")) == (True, False)
