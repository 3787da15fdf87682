"""The pure parts of set-up and supervision."""

from pathlib import Path

import pytest

from services.cli.checks import locked_versions
from services.cli.gotoolchain import parse_version, wanted_version
from services.cli.process import last_lines
from services.cli.redis import find_redis_server, redis_command, split_host
from services.cli.settings import default_root
from services.cli.supervisor import next_delay
from services.cli.toolchain import fits


def test_restarts_back_off_and_forgive_after_half_a_minute() -> None:
    delays, previous = [], 0.0
    for _ in range(8):
        previous = next_delay(previous, lived=0.1)
        delays.append(round(previous, 2))
    assert delays == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    assert next_delay(5.0, lived=30.0) == 0.2


@pytest.mark.parametrize(
    ("version", "good"),
    [("1.18.0", True), ("v1.18.3", True), ("1.17.9", False), ("1.19.0", False), ("edge", False), ("", False)],
)
def test_only_the_measured_minor_version_fits(version: str, good: bool) -> None:
    assert fits(version) is good


def test_go_versions_compare_as_numbers() -> None:
    assert parse_version("go version go1.26.8 linux/amd64") == (1, 26, 8)
    assert parse_version("no go here") is None
    wanted = wanted_version(default_root() / "dapr" / "runtime" / "go.mod")
    assert (1, 9, 99) < wanted < (2,)


def test_redis_is_on_loopback_and_appends() -> None:
    command = " ".join(redis_command(find_redis_server(), 8179, Path("/data")))
    assert "--bind 127.0.0.1" in command
    assert "--appendonly yes --appendfsync everysec" in command


def test_a_redis_address_needs_a_port() -> None:
    assert split_host("cache.local:6379") == ("cache.local", 6379)
    with pytest.raises(ValueError, match="is not host:port"):
        split_host("cache.local")


def test_a_lock_may_pin_a_package_once_a_marker() -> None:
    lock = (
        "numpy==2.4.6 ; python_full_version < '3.12' \\\n    --hash=sha256:0\n"
        "numpy==2.5.0 ; python_full_version >= '3.12'\nPy_YAML[x]==6.0.3 \\\n"
    )
    assert locked_versions(lock) == {"numpy": {"2.4.6", "2.5.0"}, "py-yaml": {"6.0.3"}}


def test_the_last_words_of_a_process_are_its_errors(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    assert last_lines(log) == ""
    old = "level=fatal earlier life\n"
    log.write_text(old + "level=info msg=a\nlevel=fatal msg=b\nlevel=info msg=c\n")
    assert last_lines(log, start=len(old)) == "level=fatal msg=b"
    log.write_text("one\ntwo\nthree\n")
    assert last_lines(log, count=2) == "two\nthree"


def test_the_lock_holds_hashes_and_no_addresses() -> None:
    lock = (default_root() / "requirements" / "dev.txt").read_text()
    assert "--hash=sha256:" in lock
    assert "://" not in lock
    assert "index-url" not in lock
