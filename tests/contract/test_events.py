"""Every event on the wire: a CloudEvent 1.0 with a deterministic id, whose schema only ever grows."""

import json
import re
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

import services.contracts.schemas
from services.contracts import events
from services.contracts.envelope import InvalidEnvelope, read, wrap
from services.contracts.events import EVENT_TYPES, TOPICS, Event
from services.contracts.ids import EVENT_NAMESPACE, event_id

SCHEMAS = Path(services.contracts.schemas.__file__).parent
NOW = datetime(2026, 1, 1, tzinfo=UTC)
CONTENT = {"uri": "blob:x", "sha256": "0" * 64, "bytes": 1, "media_type": "image/png"}
VALUES: dict[str, Any] = {
    "content": CONTENT,
    "artefact": CONTENT,
    "manifest": CONTENT,
    "policy": {"id": "default", "version": 1},
    "snapshot": {"id": "s", "sha256": "0", "uri": "blob:s"},
    "captured_at": NOW,
    "until": NOW,
    "confidence": [1],
    "reasons": ["x"],
    "sample_ids": ["smp_1"],
    "document": {},
    "gate": {},
    "value": "cat",
    "reason": "manual",
    "why": "privacy",
}


def example(kind: type[Event]) -> Event:
    """An event of this type with its required fields."""
    values = {}
    for name, field in kind.model_fields.items():
        if field.is_required():
            guess = {"int": 1, "float": 0.5}.get(getattr(field.annotation, "__name__", ""), name)
            values[name] = VALUES.get(name, guess)
    if kind is events.SampleRejected:
        values["reason"] = "type"
    if kind is events.SampleExpired:
        values["reason"] = "value"
    if kind is events.SampleEvicted:
        values["why"] = "expired"
    return kind.model_validate(values)


@pytest.mark.parametrize("kind", EVENT_TYPES.values(), ids=lambda kind: kind.__name__)
def test_an_envelope_is_a_valid_cloudevent_and_reads_back(kind: type[Event]) -> None:
    event = example(kind)
    raw = wrap(event, siteid="site", service="test", now=NOW)
    parsed = JSONFormat().read(CloudEvent, raw)
    assert parsed.get_specversion() == "1.0"
    assert parsed.get_type() == kind.type
    assert parsed.get_source() == "/halfsure/site/test"
    assert parsed.get_time() == NOW
    for name in orjson.loads(raw):
        assert re.fullmatch(r"[a-z0-9]{1,20}", name), f"{name} is no CloudEvents attribute name"
    assert read(orjson.loads(raw)).event.model_dump(mode="json") == event.model_dump(mode="json")


@pytest.mark.parametrize("kind", EVENT_TYPES.values(), ids=lambda kind: kind.__name__)
def test_the_same_fact_has_the_same_id_whenever_it_is_said(kind: type[Event]) -> None:
    first = orjson.loads(wrap(example(kind), siteid="a", service="test", now=NOW))
    later = orjson.loads(wrap(example(kind), siteid="a", service="test", now=datetime.now(UTC)))
    assert first["id"] == later["id"]


def test_types_and_topics_are_legal_on_every_broker() -> None:
    for kind in EVENT_TYPES:
        assert re.fullmatch(r"io\.halfsure\.[a-z]+\.[a-z_]+\.v\d", kind)
    for topic in TOPICS:
        assert re.fullmatch(r"[a-z0-9-]+", topic)


@pytest.mark.parametrize("kind", EVENT_TYPES.values(), ids=lambda kind: kind.__name__)
def test_a_schema_only_grows(kind: type[Event]) -> None:
    """Nothing that was published is removed, retyped or newly required."""
    golden = json.loads((SCHEMAS / f"{kind.type}.json").read_text())
    now = json.loads(json.dumps(kind.model_json_schema()))
    for faults in _shrinkage(_whole(golden, golden), _whole(now, now), kind.__name__):
        pytest.fail(faults)


def _whole(schema: Any, root: dict[str, Any]) -> Any:
    """With what it refers to in its place: how a part is called is not on the wire."""
    if isinstance(schema, list):
        return [_whole(part, root) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _whole(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    return {name: _whole(part, root) for name, part in schema.items() if name != "$defs"}


def _shrinkage(golden: dict[str, Any], now: dict[str, Any], where: str) -> list[str]:
    required = set(now.get("required", [])) - set(golden.get("required", []))
    faults = [f"{where}: {name} is newly required" for name in sorted(required)]
    if any(golden.get(key) != now.get(key) for key in ("type", "const", "format")):
        faults.append(f"{where} has another type")
    choices, others = golden.get("anyOf", []), now.get("anyOf", [])
    if len(choices) != len(others):
        faults.append(f"{where} has other types")
    parts = list(zip(choices, others, strict=False))
    for name, schema in golden.get("properties", {}).items():
        if name not in now.get("properties", {}):
            faults.append(f"{where}: {name} is gone")
        else:
            faults += _shrinkage(schema, now["properties"][name], f"{where}.{name}")
    if isinstance(golden.get("items"), dict):
        parts.append((golden["items"], now.get("items", {})))
    return faults + [fault for before, after in parts for fault in _shrinkage(before, after, where)]


def test_a_removed_field_is_noticed() -> None:
    golden = json.loads((SCHEMAS / f"{events.SampleScored.type}.json").read_text())
    golden["properties"]["something"] = {"type": "string"}
    assert _shrinkage(golden, json.loads(json.dumps(events.SampleScored.model_json_schema())), "x")


def test_readers_tolerate_fields_they_do_not_know() -> None:
    envelope = orjson.loads(wrap(example(events.SampleDiscarded), siteid="a", service="t", now=NOW))
    envelope["data"]["new_field"] = 1
    envelope["newextension"] = "x"
    assert read(envelope).event == example(events.SampleDiscarded)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda c: st.lists(c) | st.dictionaries(st.text(), c)
    )
)
def test_nothing_that_is_json_breaks_the_reader(data: Any) -> None:
    good = orjson.loads(wrap(example(events.SampleScored), siteid="a", service="t", now=NOW))
    for envelope in ({"data": data}, {**good, "data": data}, {**good, "time": data}, {**good, "type": data}):
        try:
            read(envelope)
        except InvalidEnvelope:
            continue


@given(st.text(), st.text())
def test_an_event_id_is_a_uuid5(kind: str, key: str) -> None:
    try:
        expected = str(uuid.uuid5(EVENT_NAMESPACE, f"{kind}|{key}"))
    except UnicodeEncodeError:
        return
    assert event_id(kind, key) == expected
