"""Entries and snapshots: one truth whatever the order of events, and no sample on both sides."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contracts.events import Content, LabelAccepted, LabelRetracted
from services.contracts.ids import sha256
from services.retrain_trigger import entries, snapshots
from services.retrain_trigger.entries import Entry
from services.retrain_trigger.evaluation import evaluation_sha256
from services.retrain_trigger.jobs import LabelledRef

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LABELS = ["cat", "dog"]
SCHEMA = entries.Schema("image-classification", LABELS)


def content(name: str) -> Content:
    return Content(uri=f"blob:{name}", sha256=sha256(name.encode()), bytes=1, media_type="image/png")


def accepted(name: str, revision: int = 1, value: Any = "cat", split: str = "train") -> LabelAccepted:
    fields = {"project": "p", "sample_id": name, "label_revision": revision, "value": value, "split": split}
    return LabelAccepted.model_validate({**fields, "content": content(name)})


def told(events: list[LabelAccepted | LabelRetracted]) -> dict[str, Entry]:
    """What the events leave, taken in this order."""
    known: dict[str, Entry] = {}
    for event in events:
        old = known.get(event.sample_id)
        if isinstance(event, LabelAccepted):
            known[event.sample_id] = old.accept(event, NOW) if old else entries.entry(event, NOW)
        else:
            gone = entries.tombstone(event.sample_id, event.label_revision, "retracted", NOW)
            known[event.sample_id] = old.retract(event) if old else gone
    return known


def story() -> list[LabelAccepted | LabelRetracted]:
    """Labels, corrections, retractions and imports of one project."""
    events: list[LabelAccepted | LabelRetracted] = []
    for number in range(40):
        name = f"smp_{number}"
        events.append(accepted(name, 1, LABELS[number % 2]))
        if number % 5 == 0:
            events.append(LabelRetracted(project="p", sample_id=name, label_revision=2, previous_revision=1))
        if number % 10 == 0:
            events.append(accepted(name, 3, LABELS[(number + 1) % 2]))
        if number % 7 == 0:
            events.append(accepted(name, 1, LABELS[number % 2], "evaluation"))
    return events


@given(st.integers(0, 2**32))
def test_the_same_labels_make_the_same_snapshot_in_whatever_order(seed: int) -> None:
    events = story() * 2
    random.Random(seed).shuffle(events)
    manifest = snapshots.take("p", SCHEMA, told(events).values())
    expected = snapshots.take("p", SCHEMA, told(story()).values())
    assert manifest.encoded() == expected.encoded()
    trained = {row.sample_id for row in manifest.train}
    judged = {row.sample_id for row in manifest.evaluation}
    assert not trained & judged
    assert {f"smp_{number}" for number in range(0, 40, 7) if number % 5} <= judged


def test_the_weight_that_a_policy_gives_a_sample_is_in_the_manifest() -> None:
    """Row 2.12, the last step: by the label to what is trained on; judging knows no weights."""
    events = [
        accepted("smp_a").model_copy(update={"weight": 2.5}),
        accepted("smp_b"),
        accepted("smp_c", split="evaluation").model_copy(update={"weight": 2.5}),
    ]
    manifest = snapshots.take("p", SCHEMA, told(list(events)).values())
    again = snapshots.Manifest.model_validate_json(manifest.encoded())
    assert {row.sample_id: row.weight for row in again.train} == {"smp_a": 2.5, "smp_b": 1.0}
    assert {row.sample_id: row.weight for row in again.evaluation} == {"smp_c": 1.0}


def test_a_manifest_is_read_back_as_it_was() -> None:
    manifest = snapshots.take("p", SCHEMA, told(story()).values())
    again = snapshots.Manifest.model_validate_json(manifest.encoded())
    assert again.encoded() == manifest.encoded()
    reference = snapshots.reference(manifest, "blob:x", 3)
    assert reference.sha256 == sha256(manifest.encoded())
    assert reference.counts == {"train": len(manifest.train), "evaluation": len(manifest.evaluation), "new": 3}


def test_the_evaluation_hash_is_the_trainers(tmp_path) -> None:
    manifest = snapshots.take("p", SCHEMA, told(story()).values())
    refs = tuple(
        LabelledRef(sample_id=row.sample_id, path=tmp_path, media_type="image/png", label=row.label)
        for row in reversed(manifest.evaluation)
    )
    assert manifest.evaluation_sha256 == evaluation_sha256(refs)


def test_a_difference_names_what_came_went_and_changed() -> None:
    old = snapshots.take("p", SCHEMA, told([accepted("smp_a"), accepted("smp_b"), accepted("smp_c")]).values())
    events = [accepted("smp_a"), accepted("smp_b", 2, "dog"), accepted("smp_d")]
    new = snapshots.take("p", SCHEMA, told(events).values())
    found = snapshots.difference(old, new)
    assert (found["added"], found["removed"], found["changed"]) == (["smp_d"], ["smp_c"], ["smp_b"])


def test_who_trains_and_who_judges() -> None:
    one = entries.entry(accepted("smp_a"), NOW)
    assert one.role(SCHEMA, "p", True) == "train"
    pinned = one.accept(accepted("smp_a", 1, split="evaluation"), NOW)
    assert pinned.role(SCHEMA, "p", True) == "evaluation"
    corrected = pinned.accept(accepted("smp_a", 2), NOW)
    assert corrected.role(SCHEMA, "p", True) == "evaluation", "a correction does not unpin"
    spent = one.mark("snp_1", True).accept(accepted("smp_a", 1, split="evaluation"), NOW)
    assert spent.role(SCHEMA, "p", True) == "none", "what was trained on cannot judge"
    assert one.withdraw().role(SCHEMA, "p", True) == "none"
    assert one.model_copy(update={"value": "cow"}).role(SCHEMA, "p", True) == "none", "not a label of the schema"


def test_a_share_is_held_out_by_the_id_alone() -> None:
    held = [name for name in (f"smp_{number}" for number in range(5000)) if entries.held_out(name, "p")]
    assert len(held) == pytest.approx(5000 * entries.GATE_SHARE, rel=0.1)
    assert {entries.held_out(name, "q") for name in held} == {True, False}, "another project, another share"


def test_a_withdrawn_sample_does_not_come_back() -> None:
    gone = entries.entry(accepted("smp_a"), NOW).withdraw()
    assert gone.content is None
    assert gone.value is None
    assert gone.accept(accepted("smp_a", 9), NOW) == gone


def test_the_counters_follow_from_the_entries() -> None:
    known = told(story())
    counters = entries.count(known, SCHEMA, "p", None)
    manifest = snapshots.take("p", SCHEMA, known.values())
    assert counters.per_class == snapshots.per_class(manifest)
    assert counters.evaluation == len(manifest.evaluation)
    marked = {name: one.mark("snp_1", name in {r.sample_id for r in manifest.train}) for name, one in known.items()}
    assert entries.count(marked, SCHEMA, "p", None).new == 0
    corrected = {**marked, "smp_1": marked["smp_1"].accept(accepted("smp_1", 9, "cat"), NOW)}
    assert entries.count(corrected, SCHEMA, "p", None).new == 1


def test_a_changed_label_waits_since_the_first_that_no_run_has_used() -> None:
    later = NOW + timedelta(days=9)
    first = entries.entry(accepted("smp_a"), NOW)
    retracted = LabelRetracted(project="p", sample_id="smp_a", label_revision=2, previous_revision=1, why="wrong")
    assert first.accept(accepted("smp_a", 2), later).at == NOW, "it has waited all the while"
    assert first.mark("snp_1", True).accept(accepted("smp_a", 2), later).at == later, "a run has used the first"
    assert first.retract(retracted).accept(accepted("smp_a", 3), later).at == later


BOX = {"x": 0.1, "y": 0.1, "width": 0.2, "height": 0.2}
BOXES = {"boxes": [{"label": "dog", **BOX}, {"label": "dog", **BOX, "x": 0.5}]}


@pytest.mark.parametrize(
    ("task", "values", "expected", "fewest"),
    [
        ("text-multi-label", [["cat", "dog"], ["dog"], []], {"cat": 1, "dog": 2}, 1),
        ("image-detection", [BOXES, {"boxes": []}], {"cat": 0, "dog": 1}, 1),
        ("series-classification", ["cat", "cat", "dog"], {"cat": 2, "dog": 1}, 2),
    ],
)
def test_a_class_counts_the_samples_whose_answer_names_it(
    task: Any, values: list[Any], expected: dict[str, int], fewest: int
) -> None:
    schema = entries.Schema(task, LABELS)
    known = told([accepted(f"smp_{at}", value=value) for at, value in enumerate([*values, "no answer", {"x": 1}, 3])])
    known = {name: one.model_copy(update={"pinned": False}) for name, one in known.items()}
    pinned = told([accepted("smp_pin", value=values[0], split="evaluation")])
    counters = entries.count({**known, **pinned}, schema, "p", None)
    manifest = snapshots.take("p", schema, [*known.values(), *pinned.values()])
    assert counters.per_class == snapshots.per_class(manifest) == expected
    assert counters.fewest_classes == fewest
    assert [row.label for row in manifest.train] == values
    assert [row.label for row in manifest.evaluation] == [values[0]]
    again = snapshots.Manifest.model_validate_json(manifest.encoded())
    assert again.encoded() == manifest.encoded()
    assert evaluation_sha256(again.evaluation) == manifest.evaluation_sha256


def test_answers_that_say_the_same_pin_the_same_set() -> None:
    schema = entries.Schema("image-multi-label", LABELS)
    one, other = (
        snapshots.take("p", schema, told([accepted("smp_a", value=value, split="evaluation")]).values())
        for value in (["dog", "cat"], ["cat", "dog"])
    )
    assert one.evaluation_sha256 == other.evaluation_sha256


@pytest.mark.parametrize(
    ("predicted", "value", "wrong"),
    [
        ({"label": "cat"}, "dog", 1),
        ({"label": "cat"}, "cat", 0),
        ({"label": "cat", "value": ["cat", "dog"]}, ["cat", "dog"], 0),
        ({"label": "cat", "value": ["cat"]}, ["cat", "dog"], 1),
        ({"label": "dog", "value": BOXES}, BOXES, 0),
        ({"label": "dog", "value": {"boxes": BOXES["boxes"][:1]}}, BOXES, 1),
    ],
)
def test_an_audit_compares_whole_answers(predicted: dict[str, Any], value: Any, wrong: int) -> None:
    fields = {**accepted("smp_a", value=value).model_dump(), "is_audit": True, "model_version": "mdl_1"}
    one = entries.entry(LabelAccepted.model_validate({**fields, "predicted": {"confidence": 0.9, **predicted}}), NOW)
    found = entries.audits([one], "mdl_1")
    assert (found.errors, found.total) == (wrong, 1)
