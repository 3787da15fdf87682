"""The state folder: one supervisor at a time, secrets for the owner only."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from services.cli.home import AlreadyRunning, Home, same_process


@pytest.fixture
def home(tmp_path: Path) -> Home:
    folder = Home(tmp_path / "home")
    folder.create()
    return folder


def test_a_second_supervisor_is_refused_and_told_who_is_first(home: Home) -> None:
    with home.lock():
        assert home.is_locked()
        assert home.supervisor_pid() == os.getpid()
        with pytest.raises(AlreadyRunning, match=rf"already runs in .* \(pid {os.getpid()}\)"), home.lock():
            pass
    assert not home.is_locked()
    assert home.supervisor_pid() is None


def test_tokens_are_made_once_and_kept_private(home: Home) -> None:
    first = home.secrets()
    assert home.secrets() == first
    assert len({first.admin, first.app_api, first.dapr_api}) == 3
    for name in ("token", "tokens.json", "app-api-token", "dapr-api-token"):
        assert (home.path / name).stat().st_mode & 0o077 == 0
    [token] = json.loads(home.tokens_file.read_text())["tokens"]
    assert token["sha256"] == hashlib.sha256(first.admin.encode()).hexdigest()
    assert (token["role"], token["projects"]) == ("admin", ["*"])
    assert first.admin not in home.tokens_file.read_text()


def test_tokens_that_were_added_are_kept(home: Home) -> None:
    home.secrets()
    home.tokens_file.write_text('{"tokens": []}')
    home.secrets()
    assert home.tokens_file.read_text() == '{"tokens": []}'


def test_a_broken_record_is_no_record(home: Home) -> None:
    assert home.record() == {}
    home.record_file.write_text("{")
    assert home.record() == {}


def test_a_reused_pid_is_another_process() -> None:
    assert same_process(os.getpid(), 1.0) is None
