"""The pure parts of the sources: rate cap, back-off, files at rest, rows of tags, ONVIF's messages, configuration."""

import itertools
import random
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contracts import files
from services.ingest.sources import config, discovery, lease, xml
from services.ingest.sources.config import SourcesProblem
from services.ingest.sources.pacing import Backoff, RateCap
from services.ingest.sources.rows import Change, Rows
from services.ingest.sources.settling import Settling
from services.runtime.ledger import WHOLE, Ledger, Line


@given(st.floats(0.1, 100), st.lists(st.floats(0, 2), max_size=60), st.floats(1, 5))
def test_a_cap_lets_through_its_rate_and_its_burst_at_most(rate: float, gaps: list[float], burst: float) -> None:
    cap, now, taken = RateCap(rate, burst), 0.0, 0
    for gap in gaps:
        now += gap
        taken += cap.take(now)
    assert taken <= burst + rate * now + 0.01


def test_a_stream_of_25_frames_a_second_gives_one_a_second() -> None:
    cap = RateCap(1.0)
    times = [n / 25 for n in range(250) if cap.take(n / 25)]
    assert len(times) in (9, 10)
    assert min(b - a for a, b in itertools.pairwise(times)) >= 0.99


def test_who_waits_for_its_turn_goes_at_the_rate() -> None:
    cap, now = RateCap(10.0, burst=10.0), 0.0
    for _ in range(20):
        now += cap.wait(5, now)
    assert now == pytest.approx((100 - 10) / 10, abs=0.01)


@given(st.floats(0.01, 60), st.floats(0.01, 600), st.integers(0, 2**32))
def test_back_off_grows_is_bounded_and_begins_again(first: float, longest: float, seed: int) -> None:
    rng, backoff = random.Random(seed), Backoff(first, longest)
    waits = [backoff.wait(rng.random()) for _ in range(30)]
    assert all(min(first, longest) / 2 <= wait <= longest for wait in waits)
    assert waits[-1] >= longest / 2
    backoff.reset()
    assert backoff.wait(0.0) == min(first, longest)


def test_a_file_is_whole_when_it_has_rested() -> None:
    settling = Settling(rest=1.0)
    settling.look("a", "1:1", 0.0)
    settling.look("a", "2:2", 0.9)  # it grows
    assert settling.rested(1.5) == []
    settling.look("a", "2:2", 1.6)  # seen again, unchanged
    assert settling.rested(2.0) == ["a"]
    settling.look("a", None, 3.0)
    assert settling.rested(9.0) == []


def test_changes_of_one_moment_are_one_row_and_a_row_waits_for_all_columns() -> None:
    rows = Rows(("a", "b"))
    assert list(rows.add([Change("a", 1.0, 10)])) == []
    assert list(rows.add([Change("b", 2.0, 20)])) == [(20, {"a": 1.0, "b": 2.0})]
    both = [Change("b", 4.0, 30), Change("a", 3.0, 30), Change("a", 5.0, 40)]
    assert list(rows.add(both)) == [(30, {"a": 3.0, "b": 4.0}), (40, {"a": 5.0, "b": 4.0})]
    # After a reconnect the server says again what it has: the same moment, the same row.
    assert list(Rows(("a", "b")).add([Change("a", 5.0, 40), Change("b", 4.0, 30)]))[-1] == (40, {"a": 5.0, "b": 4.0})
    # What comes late does not turn back what is newer.
    assert list(rows.add([Change("a", 0.0, 35)])) == [(40, {"a": 5.0, "b": 4.0})]


def test_a_lease_is_free_for_its_holder_and_after_silence() -> None:
    from datetime import UTC, datetime, timedelta

    now = datetime(2026, 1, 1, tzinfo=UTC)
    record = {"holder": "0", "until": (now + timedelta(seconds=15)).isoformat()}
    assert lease.free(None, "1", now)
    assert lease.free(record, "0", now)
    assert not lease.free(record, "1", now)
    assert lease.free(record, "1", now + timedelta(seconds=15))


def test_a_ledger_knows_a_file_as_it_was_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "notes.sqlite"
    ledger = Ledger(path)
    ledger.put([Line("a", "1:1"), Line("b", "2:2", 7, "half")])
    ledger.close()
    again = Ledger(path)
    assert again.get("a", "1:1") == Line("a", "1:1", WHOLE)
    assert again.get("a", "1:2") is None
    assert again.get("b", "2:2") == Line("b", "2:2", 7, "half")
    again.forget(["b"])
    assert again.get("b", "2:2") is None
    again.close()


def test_a_ledger_is_not_closed_under_a_thread_that_is_at_work(tmp_path: Path) -> None:
    """SQLite ended the whole process when a service stopped while a thread of a cancelled task still wrote."""
    ledger = Ledger(tmp_path / "notes.sqlite")
    closing = threading.Thread(target=ledger.close)

    def lines() -> Iterator[Line]:
        closing.start()
        closing.join(0.1)
        yield Line("a", "1:1")

    ledger.put(lines())
    closing.join()
    with pytest.raises(sqlite3.ProgrammingError):
        ledger.forget(["a"])
    again = Ledger(tmp_path / "notes.sqlite")
    assert again.get("a", "1:1") == Line("a", "1:1")
    again.close()


def test_tables_row_by_row() -> None:
    assert list(files.rows(".csv", ["a,b\n", "1,x\n", "2,y\n"])) == [{"a": "1", "b": "x"}, {"a": "2", "b": "y"}]
    assert list(files.rows(".JSONL", ['{"a": 1}\n', "\n", '{"a": 2}\n'])) == [{"a": 1}, {"a": 2}]
    with pytest.raises(ValueError, match="line 2 is not JSON"):
        list(files.rows(".ndjson", ["{}", "{"]))
    named = ["a.png", "b.JPG", "c.csv", ".hidden.png", "d.png.part", "e.txt", "f.png~"]
    assert [name for name in named if files.holds_samples(Path(name))] == ["a.png", "b.JPG", "c.csv"]
    assert [name for name in named if files.holds_samples(Path(name), texts=True)] == ["e.txt"]


# ONVIF.

ANSWER = """<e:Envelope xmlns:e="http://www.w3.org/2003/05/soap-envelope" xmlns:w="w" xmlns:x="x"><e:Header>
<w:RelatesTo>{relates}</w:RelatesTo></e:Header><e:Body><x:ProbeMatches><x:ProbeMatch><w:EndpointReference>
<w:Address>urn:uuid:cam</w:Address></w:EndpointReference><x:Scopes>onvif://www.onvif.org/name/Gate%201 onvif://b</x:Scopes>
<x:XAddrs>http://10.0.0.5/onvif/device_service https://10.0.0.5/x file:///etc</x:XAddrs>
</x:ProbeMatch></x:ProbeMatches></e:Body></e:Envelope>"""


def test_an_answer_counts_for_its_own_question_only() -> None:
    (device,) = discovery.matches(ANSWER.format(relates="urn:uuid:q").encode(), "urn:uuid:q")
    assert device.endpoint == "urn:uuid:cam"
    assert device.addresses == ("http://10.0.0.5/onvif/device_service", "https://10.0.0.5/x")
    assert "Gate 1" in str(device)
    assert discovery.matches(ANSWER.format(relates="urn:uuid:other").encode(), "urn:uuid:q") == []
    assert discovery.matches(b"\xff noise", "urn:uuid:q") == []
    assert xml.text(xml.parsed(discovery.probe_message("urn:uuid:q")), "MessageID") == "urn:uuid:q"


@pytest.mark.parametrize(
    "raw", [b"", b"<a>", b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', b"<a>" + b" " * xml.LARGEST + b"</a>"]
)
def test_hostile_xml_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="XML"):
        xml.parsed(raw)


# Configuration.

GATE = {"name": "gate", "kind": "rtsp", "url": "rtsp://10.0.0.5/1"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rate": 0}, "source 1 (gate): rate: Input should be greater than 0"),
        ({"url": "http://x/"}, "source 1 (gate): url: this must be an address like rtsp://"),
        ({"url": "rtsp://me:secret@x/"}, "url: leave user and password out of the address"),
        ({"username": "me"}, "source 1 (gate): username and password_file go together"),
        ({"kind": "usb"}, "source 1 (gate): Input tag 'usb'"),
        ({"fps": 3}, "source 1 (gate): fps: Extra inputs are not permitted"),
        ({"project": "Yard 1"}, "source 1 (gate): project: String should match pattern"),
        ({"name": "The Gate"}, "source 1 (The Gate): name: String should match pattern"),
        ({"reconnect": {"first": -1}}, "source 1 (gate): reconnect.first: Input should be greater than 0"),
        ({"kind": "folder"}, "source 1 (gate): path: Field required"),
        ({"url": "rtsp://${CAMERA}/"}, "${CAMERA}: CAMERA is not a variable of the environment"),
        (
            {"url": "rtsp://${A*}/"},
            "A is not the beginning of exactly one variable of the environment; there are A_1, A_2",
        ),
    ],
)
def test_a_mistake_in_the_file_is_said_with_its_field(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    import yaml

    path = tmp_path / "sources.yaml"
    path.write_text(yaml.safe_dump({"sources": [{**GATE, **change}]}))
    with pytest.raises(SourcesProblem) as caught:
        config.read(path, {"A_1": "x", "A_2": "y"})
    assert str(caught.value).startswith(str(path))
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.yaml", "sources: [", "neither YAML nor TOML"),
        ("a.toml", "sources = [", "neither YAML nor TOML"),
        ("a.yaml", "", "must have a list `sources`"),
        ("a.yaml", "sorces: []", "sources: Field required"),
        ("a.yaml", "sources: [{name: a, kind: binding, component: v1}]", "a path of ingest's own"),
        (
            "a.yaml",
            "sources: [{name: a, kind: binding, component: b}, {name: a, kind: binding, component: c}]",
            "two sources have the name 'a'",
        ),
    ],
)
def test_a_file_that_is_none_is_said(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(SourcesProblem) as caught:
        config.read(tmp_path / name, {})
    assert words in str(caught.value)


def test_yaml_and_toml_say_the_same_and_take_what_a_platform_sets(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "sources: [{name: plc, kind: opcua, url: 'opc.tcp://${PLC_*}', nodes: {a: 'ns=2;i=1'}}]"
    )
    (tmp_path / "a.toml").write_text(
        '[[sources]]\nname = "plc"\nkind = "opcua"\nurl = "opc.tcp://${PLC_7F}"\nnodes = {a = "ns=2;i=1"}\n'
    )
    found = [config.read(tmp_path / name, {"PLC_7F": "10.0.0.9:4840/x"}) for name in ("a.yaml", "a.toml")]
    assert found[0] == found[1]
    assert found[0][0].place == "opc.tcp://10.0.0.9:4840/x"
    with pytest.raises(SourcesProblem, match="cannot be read"):
        config.read(tmp_path / "none.yaml", {})
