"""Admission: identity, media types, times, names; as pure functions."""

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from worlds import SPECS, png

from services.contracts.ids import sample_id, sha256
from services.contracts.preprocessing import FORMATS
from services.contracts.problem import Problem
from services.ingest import admission
from services.ingest.admission import Gate, Inline, Meta

NOW = datetime(2026, 1, 1, tzinfo=UTC)

INT64 = st.integers(min_value=0, max_value=2**63 - 1)


def gate(kind: str = "image", siteid: str = "local", project: str = "p") -> Gate:
    return Gate(project, siteid, SPECS[kind], NOW)


def picture(name: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, name)
    return file.getvalue()


@pytest.mark.parametrize(("media_type", "name"), FORMATS.items())
def test_every_format_is_known_by_its_magic(media_type: str, name: str) -> None:
    content = picture(name)
    assert admission.sniffed(content) == media_type
    for declared in (media_type, media_type.upper() + "; q=1", "", "application/octet-stream"):
        assert admission.accepted(declared, content, SPECS["image"]) == media_type
    other = next(kind for kind in FORMATS if kind != media_type)
    with pytest.raises(Problem, match="content says"):
        admission.accepted(other, content, SPECS["image"])


@given(st.binary(min_size=1, max_size=64))
def test_any_bytes_are_a_draft_or_a_problem(content: bytes) -> None:
    for media_type in ("image/png", "", "text/plain"):
        if admission.sniffed(content) is None or media_type == "text/plain":
            with pytest.raises(Problem) as caught:
                gate().draft(content, media_type, Meta())
            assert caught.value.status == 415
            continue
        refused = admission.unfit(gate().draft(content, "", Meta()), SPECS["image"])
        assert refused is None or refused.status == 422


@given(st.text(min_size=1, max_size=20), INT64, INT64)
def test_a_point_of_a_stream_is_itself_and_nothing_else(stream: str, one: int, two: int) -> None:
    first, second = (gate().draft(png(1), "image/png", Meta(stream_id=stream, sequence=n)) for n in (one, two))
    assert (first.sample_id == second.sample_id) == (one == two)
    assert first.sample_id == sample_id("p", f"local/{stream}/{one}")
    elsewhere = gate(siteid="other").draft(png(1), "image/png", Meta(stream_id=stream, sequence=one))
    assert elsewhere.sample_id != first.sample_id


def test_a_file_is_its_content_from_any_site_and_another_in_another_project() -> None:
    here, there = (gate(siteid=site).draft(png(1), "image/png", Meta(stream_id="s")) for site in ("a", "b"))
    assert here.sample_id == there.sample_id == sample_id("p", sha256(png(1)))
    assert gate(project="q").draft(png(1), "image/png", Meta()).sample_id != here.sample_id


@given(st.dictionaries(st.text(max_size=5), st.integers(-(2**53), 2**53) | st.text(max_size=5) | st.none(), max_size=6))
def test_rows_are_equal_whatever_their_order(row: dict[str, Any]) -> None:
    backwards = dict(reversed(row.items()))
    assert admission.canonical(row) == admission.canonical(backwards)


def test_captured_at_may_be_five_minutes_ahead() -> None:
    limit = NOW + timedelta(minutes=5)
    assert gate().draft(png(1), "image/png", Meta(captured_at=limit)).captured_at == limit
    assert gate().draft(png(1), "image/png", Meta()).captured_at == NOW
    with pytest.raises(Problem, match="future"):
        gate().draft(png(1), "image/png", Meta(captured_at=limit + timedelta(microseconds=1)))


def test_equal_content_shares_a_blob_only_where_it_is_one_sample() -> None:
    rows = [gate("tabular").inline(Inline(row={"a": 1, "b": 2}, key=key)) for key in (None, "x", "y")]
    names = {admission.blob_name("p", row) for row in rows}
    assert len(names) == 3
    assert f"samples/p/{rows[0].sha256[:2]}/{rows[0].sha256}" in names


@pytest.mark.parametrize(
    ("uri", "own"),
    [
        ("blob:samples/p/aa/x", True),
        ("blob:uploads/p/x.png", True),
        ("blob:samples/p", False),
        ("blob:samples/q/aa/x", False),
        ("blob:models/p/x.onnx", False),
        ("blob:samples/p/../q/x", False),
        ("blob:samples/p//x", False),
        ("blob:samples/p/./x", False),
        ("blob:samples/p\\..\\q/x", False),
        ("blob:/samples/p/x", False),
        ("file:///etc/passwd", False),
        ("https://elsewhere.example/samples/p/x", False),
        ("samples/p/x", False),
        ("", False),
    ],
)
def test_only_this_projects_content_may_be_claimed(uri: str, own: bool) -> None:
    assert admission.own_blob(uri, "p") is own


def test_what_is_not_finite_is_found_at_any_depth() -> None:
    assert admission.finite({"a": [1, {"b": 2.5, "c": None}]})
    assert not admission.finite({"a": [1, {"b": float("nan")}]})
    assert not admission.finite([[float("-inf")]])


def test_a_problem_points_at_every_fault() -> None:
    with pytest.raises(Problem) as caught:
        admission.parsed(Meta, {"tags": ["", "x" * 65], "sequence": -1, "colour": "red"})
    assert {fault.pointer for fault in caught.value.errors} == {"/tags/0", "/tags/1", "/sequence", "/colour"}
