"""Readers of what strangers send: whatever the bytes, an answer or the reader's own refusal, and nothing else."""

import io
import zipfile
from datetime import UTC, datetime
from functools import cache
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from worlds import SPECS, classifier, png

from services.contracts.envelope import InvalidEnvelope, read, wrap
from services.contracts.events import EVENT_TYPES, SampleWithdrawn
from services.contracts.inputs import InputSpec, TabularColumn
from services.contracts.manifest import ModelManifest
from services.contracts.preprocessing import UnreadableSample, decode
from services.contracts.problem import Problem
from services.contracts.projects import ProjectDocument, SelectionPolicy
from services.infer.onnx_bytes import NotOnnx, has_external_data
from services.label_queue.interchange import FORMATS
from services.label_queue.interchange.archive import unpacked
from services.runtime import strict_json

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["../../etc/passwd", "<script>", "=1+1", "\x00", "9" * 400, "2026-01-01T00:00:00Z"]),
)
NESTED = lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner)  # noqa: E731
JSON = st.recursive(ODD, NESTED, max_leaves=12)
fuzzed = settings(max_examples=100, deadline=None)


def changed(good: bytes) -> st.SearchStrategy[bytes]:
    """Good bytes with some of them cut out, doubled or replaced, and bytes that never were good."""

    @st.composite
    def one(draw: st.DrawFn) -> bytes:
        content = bytearray(good)
        for _ in range(draw(st.integers(1, 6))):
            at = draw(st.integers(0, max(len(content) - 1, 0)))
            content[at : at + draw(st.integers(0, 8))] = draw(st.binary(max_size=8))
        return bytes(content)

    return one() | st.binary(max_size=200)


SAMPLES: dict[str, tuple[InputSpec, str, bytes]] = {
    "image": (SPECS["image"], "image/png", png(7)),
    "row": (SPECS["tabular"], "application/json", b'{"a": 1, "b": 2.5}'),
    "series": (
        InputSpec.series(3, [TabularColumn(name="a")]),
        "application/json",
        b'[{"a": 1}, {"a": 2}, {"a": 3}]',
    ),
    "text": (InputSpec.text(), "text/plain", "a short text, with an \u00e9".encode()),
}


@pytest.mark.parametrize("kind", SAMPLES)
@given(data=st.data())
@fuzzed
def test_a_decoder_reads_or_refuses(kind: str, data: st.DataObject) -> None:
    spec, media_type, good = SAMPLES[kind]
    content = data.draw(changed(good))
    try:
        tensor = decode(content, media_type, spec)
    except UnreadableSample:
        return
    assert tensor.shape == tuple(spec.sample_shape)


WITHDRAWN = SampleWithdrawn(project="p", sample_id="smp_a", who="ann", why="privacy", erase_content=True)
ENVELOPE = orjson.loads(wrap(WITHDRAWN, siteid="s", service="t", now=datetime(2026, 1, 1, tzinfo=UTC)))
ATTRIBUTES = st.sampled_from([*ENVELOPE, "data_base64", "Type", "x"])


@given(given_=st.dictionaries(ATTRIBUTES, JSON), kind=st.sampled_from([*EVENT_TYPES]))
@fuzzed
def test_an_envelope_is_read_or_refused(given_: dict[str, Any], kind: str) -> None:
    for envelope in (given_, {**ENVELOPE, **given_}, {**ENVELOPE, "type": kind, "data": given_}):
        try:
            assert read(envelope).id
        except InvalidEnvelope:
            continue


_, MANIFEST = classifier()
DOCUMENTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "policy": (SelectionPolicy, SelectionPolicy().model_dump(mode="json")),
    "manifest": (ModelManifest, MANIFEST.model_dump(mode="json")),
    "project": (ProjectDocument, {"name": "p", "task": "image-classification", "labels": ["a", "b"]}),
}


@pytest.mark.parametrize("kind", DOCUMENTS)
@given(data=st.data())
@fuzzed
def test_a_document_is_read_or_refused(kind: str, data: st.DataObject) -> None:
    model, good = DOCUMENTS[kind]
    document = {**good, **data.draw(st.dictionaries(st.sampled_from([*good, "where", "x"]), JSON))}
    for given_ in (document, data.draw(JSON)):
        try:
            model.model_validate(given_)
        except ValidationError:
            continue


@given(raw=changed(b'{"a": [1, 2.5, null, "x"], "b": {"c": true}}'))
@example(raw=b"[" * 100_000)
@example(raw=b'{"a":' * 5000)
@example(raw=b"1" * 10_000)
@example(raw=b'"\\ud800"')
@fuzzed
def test_json_is_read_or_refused(raw: bytes) -> None:
    try:
        strict_json.loads(raw)
    except strict_json.Unsound:
        return


@given(raw=changed(classifier()[0]))
@example(raw=b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f")
@fuzzed
def test_a_model_file_is_looked_through_or_refused(raw: bytes) -> None:
    try:
        assert has_external_data(raw) in (True, False)
    except NotOnnx:
        return


@cache
def packed(compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("labels.jsonl", b'{"value": "a", "file_name": "a.png"}\n' * 3)
        archive.writestr("images/a.png", png(3))
    return file.getvalue()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@given(data=st.data())
@fuzzed
def test_an_archive_is_unpacked_or_refused(compression: int, data: st.DataObject) -> None:
    try:
        unpacked(data.draw(changed(packed(compression))), ".jsonl")
    except Problem as problem:
        if problem.status != 422:
            raise


@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_file_of_labels_is_read_or_refused(name: str, data: st.DataObject) -> None:
    form = FORMATS[name]
    raw = data.draw(changed(packed()) | changed(b'{"value": "a", "sample_id": "smp_a"}\n') | JSON.map(_dumped))
    try:
        for row in form.read(unpacked(raw, form.document)):
            assert row is not None
    except Problem as problem:
        if problem.status not in (400, 422):
            raise


def _dumped(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:
        return b"null"


def test_a_bomb_of_an_archive_is_not_unpacked() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(9):
            archive.writestr(f"{number}.png", bytes(64 << 20))
    assert len(file.getvalue()) < 1 << 20
    with pytest.raises(Problem, match="MiB in all"):
        unpacked(file.getvalue(), None)
