"""select-uncertain on several labels and on boxes: rounds by the chosen aggregate, rules, caps, audits, errors."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Running, started

from services.contracts.events import (
    Content,
    Detection,
    InferenceResult,
    LabelAccepted,
    ModelActivated,
    ProjectUpdated,
    Ref,
    SampleReranked,
    SampleScored,
    SampleSelected,
    Top,
)
from services.contracts.ids import sha256
from services.contracts.projects import ProjectDocument
from services.select_uncertain.app import create
from services.select_uncertain.strategies import STRATEGIES

CONTENT = Content(uri="blob:x", sha256=sha256(b"x"), bytes=1, media_type="image/png")
LABELS = ["a", "b", "c"]
LEFT, RIGHT = {"x": 0.0, "y": 0.0, "width": 0.4, "height": 0.4}, {"x": 0.5, "y": 0.5, "width": 0.4, "height": 0.4}


def project(task: str, **policy: Any) -> ProjectUpdated:
    plain = {"batch": 4, "low_water": 1, "control": 0, "audit": 0, "min_pool": 1, "strategy": "margin", **policy}
    document = {
        "name": "p",
        "task": task,
        "labels": LABELS,
        "input": {"kind": "image", "shape": [None, 1, 8, 8], "height": 8, "width": 8, "channels": 1},
        "policy": plain,
        "trigger": {"n": 50, "min_per_class": 0},
        "revision": 1,
        "extractor": {"artefact": CONTENT.model_dump(), "manifest": CONTENT.model_dump()},
    }
    return ProjectUpdated(project="p", revision=1, document=document)


def activated(epoch: int = 1) -> ModelActivated:
    return ModelActivated(project="p", version=f"m{epoch}", activation_epoch=epoch, artefact=CONTENT, manifest=CONTENT)


async def begin(running: Running, task: str, **policy: Any) -> None:
    await running.deliver(project(task, **policy), activated())


def boxes(*found: tuple[str, float, dict[str, float]]) -> dict[str, Any]:
    """What infer says of boxes: (label, confidence, where) of each, the surest first."""
    rows = [Detection(label=label, confidence=sure, **where) for label, sure, where in found]
    value = {"boxes": [row.model_dump(exclude={"confidence"}) for row in rows]}
    sure = min((row.confidence for row in rows), default=0.97)
    unsure = [1 - abs(2 * row.confidence - 1) for row in rows] or [0.06]
    scores = {"margin": max(unsure), "box_max": max(unsure), "box_mean": sum(unsure) / len(unsure)}
    return {
        "detections": rows,
        "top": Top(label=rows[0].label if rows else "", confidence=sure, value=value),
        "scores": {**scores, "box_sum": sum(unsure) / (1 + sum(unsure)), "box_margin": 0.5},
    }


def labels(**p: float) -> dict[str, Any]:
    """What infer says of several labels."""
    values = [p.get(label, 0.01) for label in LABELS]
    unsure = [1 - abs(2 * one - 1) for one in values]
    top = Top(
        label=LABELS[int(np.argmax(values))],
        confidence=min(max(one, 1 - one) for one in values),
        value=[label for label, one in zip(LABELS, values, strict=True) if one >= 0.5],
    )
    mean = sum(unsure) / len(unsure)
    return {
        "probabilities": values,
        "top": top,
        "scores": {"margin": mean, "label_mean": mean, "label_max": max(unsure)},
    }


async def scored(running: Running, task: str, said: dict[str, dict[str, Any]], version: str = "m1") -> None:
    vectors = np.array([[at, 1.0] for at in range(len(said))], np.float32)
    uri = await running.blobs.put(f"embeddings/p/{version}/{min(said)}", vectors.tobytes())
    events = []
    for row, (name, fields) in enumerate(said.items()):
        ref = Ref(uri=uri, row=row, dim=2)
        event = {"project": "p", "sample_id": name, "model_version": version, "task": task, "content": CONTENT}
        told = {"labels": LABELS, "embedding_ref": ref, "captured_at": running.clock.now(), **fields}
        events.append(SampleScored.model_validate({**event, **told}))
    await running.deliver_batch(events)  # at once: no round sees but some of them


async def tick(running: Running) -> None:
    await running.service._loops[0][1]()


async def picks(running: Running) -> list[dict[str, Any]]:
    await tick(running)
    return await running.data(SampleSelected)


SEVERAL = {"one": labels(a=0.55, b=0.99), "all": labels(a=0.3, b=0.3, c=0.3), "none": labels(), "sure": labels(a=0.99)}
FOUND = {
    "one": boxes(("a", 0.99, LEFT), ("b", 0.55, RIGHT)),
    "all": boxes(("a", 0.7, LEFT), ("b", 0.7, RIGHT)),
    "none": boxes(),
    "sure": boxes(("a", 0.99, LEFT)),
}


@pytest.mark.parametrize(
    ("task", "aggregate", "first"),
    [
        ("image-multi-label", None, "all"),
        ("image-multi-label", "mean", "all"),
        ("image-multi-label", "max", "one"),
        ("image-detection", None, "one"),
        ("image-detection", "max", "one"),
        ("image-detection", "mean", "all"),
        ("image-detection", "sum", "all"),
    ],
)
async def test_the_aggregate_of_the_policy_ranks(tmp_path: Path, task: str, aggregate: str | None, first: str) -> None:
    said = FOUND if task == "image-detection" else SEVERAL
    async with started(create, tmp_path) as running:
        await begin(running, task, aggregate=aggregate, batch=1, min_pool=100, settle_seconds=60)
        await scored(running, task, said)
        listed = (await running.call("GET", "/v1/candidates?project=p&sort=score")).json()["items"]
        running.clock.step(61)
        (pick,) = await picks(running)
        assert pick["sample_id"] == listed[0]["sample_id"] == first
        name = {"image-detection": "box", "image-multi-label": "label"}[task]
        wanted = said[first]["scores"][f"{name}_{aggregate}" if aggregate else "margin"]
        assert pick["priority"] == pytest.approx(wanted)
        assert pick["prelabel"] == said[first]["top"].model_dump()


async def test_an_aggregate_that_the_task_has_not_is_refused(tmp_path: Path) -> None:
    async with started(create, tmp_path) as running:
        await begin(running, "image-multi-label")
        for body, status in (({"aggregate": "sum"}, 422), ({"aggregate": "max"}, 412), ({"aggregate": "least"}, 422)):
            answer = await running.call("PUT", "/v1/policies/default?project=p", json=body, headers={"if-match": '"9"'})
            assert answer.status_code == status, answer.text
        refused = await running.call("POST", "/v1/policies/x:test?project=p", json={"policy": {"aggregate": "sum"}})
        assert refused.json()["errors"][0]["pointer"] == "/aggregate"
        assert "there is max, mean" in refused.json()["detail"]
    with pytest.raises(ValueError, match="a sample has one answer"):
        ProjectDocument.model_validate(project("image-classification", aggregate="max").document)


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
@pytest.mark.parametrize("task", ["image-multi-label", "image-detection"])
async def test_every_strategy_has_an_answer(tmp_path: Path, task: str, strategy: str) -> None:
    said = FOUND if task == "image-detection" else SEVERAL
    more = {f"{name}{at}": fields for at in range(5) for name, fields in said.items()}
    async with started(create, tmp_path) as running:
        await begin(running, task, strategy=strategy)
        await scored(running, task, more)
        chosen = await picks(running)
        assert len({pick["sample_id"] for pick in chosen}) == 4
        assert {pick["strategy"] for pick in chosen} == {strategy}


async def test_rules_ask_for_any_of_the_classes_and_for_the_band_of_the_whole_answer(tmp_path: Path) -> None:
    async with started(create, tmp_path) as running:
        where = {
            "rule": "all",
            "of": [{"rule": "outcome", "labels": ["b"]}, {"rule": "confidence", "low": 0.5, "high": 0.6}],
        }
        await begin(running, "image-detection", where=where, results={"rule": "outcome", "labels": ["a"]})
        await scored(running, "image-detection", FOUND)
        results = await running.data(InferenceResult)
        assert sorted(row["sample_id"] for row in results) == ["all", "one", "sure"]
        assert results[0]["top"]["value"]["boxes"]
        assert [pick["sample_id"] for pick in await picks(running)] == ["one"]
        told = (await running.call("GET", "/v1/stats?project=p")).json()["policies"]["default"]
        assert told["unknown"] == {"no_outcome": 1}
        given = {"captured_at": "2026-01-01T00:00:00Z", "confidence": 0.55, "outcome": ["c", "b"]}
        tried = await running.call("POST", "/v1/policies/default:test?project=p", json={"given": [given]})
        assert tried.json()["passed"] == 1


async def test_a_class_is_the_surest_of_an_answer_for_quotas_and_caps(tmp_path: Path) -> None:
    async with started(create, tmp_path) as running:
        where = {"rule": "quota", "most": 2, "of": "class"}
        await begin(running, "image-detection", where=where, batch=20)
        said = {f"{name}{at}": fields for at in range(4) for name, fields in FOUND.items()}
        await scored(running, "image-detection", said)
        chosen = Counter(pick["prelabel"]["label"] for pick in await picks(running))
        assert chosen == {"a": 2, "": 2}


async def test_what_an_audit_finds_wrong_are_answers_that_do_not_agree(tmp_path: Path) -> None:
    async with started(create, tmp_path) as running:
        await begin(running, "image-detection", audit=4, batch=6, confident=0.8)
        said = {f"s{at}": boxes(("a", 0.9 + at / 100, LEFT)) for at in range(4)} | {"x": boxes(("b", 0.6, LEFT))}
        await scored(running, "image-detection", said)
        chosen = await picks(running)
        audits = sorted(pick["sample_id"] for pick in chosen if pick["is_audit"])
        assert audits == ["s0", "s1", "s2", "s3"]
        moved = {**LEFT, "x": 0.05}
        answers = [
            {"boxes": [{"label": "a", **LEFT}]},
            {"boxes": [{"label": "a", **moved}]},
            {"boxes": [{"label": "b", **LEFT}]},
            {"boxes": []},
        ]
        for name, value in zip(audits, answers, strict=True):
            event = {"project": "p", "sample_id": name, "label_revision": 1, "value": value, "content": CONTENT}
            await running.deliver(LabelAccepted.model_validate(event))
        audit = (await running.call("GET", "/v1/stats?project=p")).json()["audit"]
        assert (audit["labels"], audit["errors"]) == (4, 2)


async def test_finding_nothing_is_an_answer_that_is_audited_too(tmp_path: Path) -> None:
    async with started(create, tmp_path) as running:
        await begin(running, "image-detection", audit=2, batch=4)
        await scored(running, "image-detection", {"s0": boxes(), "s1": boxes(), "x": boxes(("b", 0.6, LEFT))})
        assert sum(pick["is_audit"] for pick in await picks(running)) == 2
        for name, value in (("s0", {"boxes": []}), ("s1", {"boxes": [{"label": "a", **LEFT}]})):
            event = {"project": "p", "sample_id": name, "label_revision": 1, "value": value, "content": CONTENT}
            await running.deliver(LabelAccepted.model_validate(event))
        audit = (await running.call("GET", "/v1/stats?project=p")).json()["audit"]
        assert (audit["labels"], audit["errors"]) == (2, 1)


async def test_another_model_moves_open_questions_by_the_same_aggregate(tmp_path: Path) -> None:
    async with started(create, tmp_path) as running:
        await begin(running, "image-detection", aggregate="mean")
        await scored(running, "image-detection", FOUND)
        await picks(running)
        await running.deliver(activated(2))
        await scored(running, "image-detection", {"one": FOUND["all"]}, "m2")
        (moved,) = await running.data(SampleReranked)
        assert moved["priority"] == pytest.approx(FOUND["all"]["scores"]["box_mean"])
        assert moved["prelabel"]["value"] == FOUND["all"]["top"].value
