"""Policies through select-uncertain on memory ports: what they let pass, say, count, discard, hold and stop."""

import itertools
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Running, started

from services.contracts.events import (
    Content,
    InferenceResult,
    LabelAccepted,
    ModelActivated,
    ModelRejected,
    ProjectUpdated,
    Ref,
    SampleDiscarded,
    SampleEvicted,
    SampleReranked,
    SampleScored,
    SampleSelected,
    TaskLeased,
    TaskReleased,
    TaskSkipped,
    Top,
)
from services.contracts.ids import sha256
from services.runtime.ports import Ports
from services.select_uncertain.app import create

CONTENT = Content(uri="blob:x", sha256=sha256(b"x"), bytes=1, media_type="image/png")
LABELS = ["a", "b"]
BLOCKS = itertools.count()


def project(**policy: Any) -> ProjectUpdated:
    rules = {"batch": 4, "low_water": 1, "min_pool": 1, "settle_seconds": 0, "control": 0, "audit": 0, **policy}
    artefact = CONTENT.model_dump()
    document = {
        "name": "p",
        "task": "image-classification",
        "labels": LABELS,
        "input": {"kind": "image", "shape": [None, 1, 8, 8], "height": 8, "width": 8, "channels": 1},
        "policy": rules,
        "trigger": {"n": 1000, "min_per_class": 0},
        "revision": 1,
        "extractor": {"artefact": artefact, "manifest": artefact},
    }
    return ProjectUpdated(project="p", revision=1, document=document)


def activated(epoch: int = 1, **gate: Any) -> ModelActivated:
    return ModelActivated(
        project="p", version=f"m{epoch}", activation_epoch=epoch, artefact=CONTENT, manifest=CONTENT, gate=gate
    )


async def scored(running: Running, sure: dict[str, float], version: str = "m1", **more: Any) -> list[SampleScored]:
    """Events of samples by their confidence in `a` (below a half: in `b`)."""
    vectors = np.random.default_rng(len(sure)).normal(size=(len(sure), 4)).astype(np.float32)
    uri = await running.blobs.put(f"embeddings/p/{next(BLOCKS)}", vectors.tobytes())
    events = []
    for row, (name, p) in enumerate(sure.items()):
        best = max(p, 1 - p)
        events.append(
            SampleScored(
                project="p",
                sample_id=name,
                model_version=version,
                task="image-classification",
                content=CONTENT,
                labels=LABELS,
                probabilities=[p, 1 - p],
                top=Top(label="a" if p >= 0.5 else "b", confidence=best),
                scores={"margin": round(2 - 2 * best, 6)},
                embedding_ref=Ref(uri=uri, row=row, dim=4),
                **{"captured_at": running.clock.now(), **more},
            )
        )
    return events


def accepted(name: str, value: str = "a", **more: Any) -> LabelAccepted:
    return LabelAccepted(project="p", sample_id=name, label_revision=1, value=value, content=CONTENT, **more)


async def tick(running: Running) -> None:
    await running.service._loops[0][1]()


async def stats(running: Running) -> dict[str, Any]:
    return (await running.call("GET", "/v1/stats?project=p")).json()


async def begin(running: Running, **policy: Any) -> None:
    await running.deliver(project(**policy), activated())


BAND = {"rule": "confidence", "low": 0.3, "high": 0.8}
SURE = {"low": 0.51, "mid": 0.8, "high": 0.81, "top": 0.99}


async def test_only_what_the_rules_let_pass_is_asked_and_each_decision_says_why(tmp_path: Path) -> None:
    """Rows 1.7 (a rule is a document, no service is edited), 2.4, 2.10, 2.12."""
    async with started(create, tmp_path) as running:
        both = {"rule": "all", "of": [BAND, {"rule": "tagged", "tags": ["night"], "name": "at night"}]}
        await begin(running, where=both, weight=2.5)
        await running.deliver_batch(await scored(running, SURE, tags=["night"]))
        await running.deliver_batch(await scored(running, {"day": 0.6}))
        await tick(running)
        picks = await running.data(SampleSelected)
        assert {pick["sample_id"] for pick in picks} == {"low", "mid"}
        assert {pick["weight"] for pick in picks} == {2.5}
        told = (await running.call("GET", "/v1/decisions/mid?project=p")).json()["decision"]
        assert [(row["rule"], row["passed"]) for row in told["rules"]] == [
            ("confidence /of/0", True),
            ("at night", True),
        ]
        assert told["policy"] == {"id": "default", "version": 1}
        assert (told["model_version"], told["score"], told["outcome"]) == ("m1", pytest.approx(0.4), "a")
        assert told["seed"]
        waits = (await running.call("GET", "/v1/decisions/high?project=p")).json()
        assert waits["decision"] is None
        assert waits["now"]["rules"][0]["why"] == "confidence 0.81 is not within 0.3..0.8"
        counted = (await stats(running))["policies"]["default"]
        assert (counted["seen"], counted["selected"], counted["passing"]) == (5, 2, 0)
        assert counted["rejected"] == {"confidence /of/0": 2, "at night": 1}
        for name in ("low", "mid"):
            await running.deliver(accepted(name))
        assert "no sample that waits passes the policy's rules" in (await stats(running))["waiting_for"]


async def test_what_was_said_of_a_sample_outlives_a_new_model(tmp_path: Path) -> None:
    """A rescored event of an older sample need not repeat its attributes."""
    async with started(create, tmp_path) as running:
        await begin(running, where={"rule": "attribute", "field": "t", "above": 5})
        await running.deliver_batch(await scored(running, {"warm": 0.6}, attributes={"t": 7}, stream_id="cam"))
        await running.deliver(activated(2))
        bare = await scored(running, {"warm": 0.7}, "m2", captured_at=None)
        await running.deliver_batch(bare)
        await tick(running)
        assert [pick["sample_id"] for pick in await running.data(SampleSelected)] == ["warm"]


async def test_what_can_never_pass_is_discarded_once_and_comes_back_with_another_policy(tmp_path: Path) -> None:
    """A window of captured_at is final; a band or a quota is not."""
    async with started(create, tmp_path) as running:
        past = (running.clock.now() - timedelta(days=1)).isoformat()
        where = {"rule": "all", "of": [{"rule": "during", "end": past}, BAND, {"rule": "quota", "most": 0}]}
        await begin(running, where=where)
        await running.deliver_batch(await scored(running, SURE))
        await tick(running)
        gone = await running.data(SampleDiscarded)
        assert {event["sample_id"] for event in gone} == set(SURE)
        assert gone[0]["rules"]["during /of/0"] is False
        assert "outside the window" in gone[0]["reasons"]["during /of/0"]
        assert (await stats(running))["states"] == {"DISCARDED": 4}
        await tick(running)
        assert await running.data(SampleDiscarded) == []
        body = {"batch": 4, "where": {"rule": "quota", "most": 0}, "control": 0, "audit": 0}
        new = await running.call("PUT", "/v1/policies/default?project=p", json=body, headers={"if-match": '"1"'})
        assert new.status_code == 200, new.text
        await tick(running)
        assert await running.data(SampleDiscarded) == [], "a quota refuses nothing for good"
        assert (await stats(running))["states"] == {"CANDIDATE": 4}


async def test_missing_and_odd_values_are_counted_and_no_crash(tmp_path: Path) -> None:
    """Rows 2.5, 2.6."""
    async with started(create, tmp_path) as running:
        where = {
            "rule": "any",
            "of": [{"rule": "attribute", "field": "t", "above": 5}, {"rule": "outcome", "labels": ["z"]}],
        }
        await running.deliver(project(where=where))
        for name, attributes in (("odd", {"t": "seven"}), ("none", {})):
            (event,) = await scored(running, {name: 0.6}, "none", attributes=attributes)
            bare = event.model_copy(update={"probabilities": (), "top": None, "scores": {}})
            await running.deliver(bare)
        await tick(running)
        assert await running.data(SampleSelected) == []
        counted = (await stats(running))["policies"]["default"]["unknown"]
        assert counted == {"not_numeric": 1, "no_attribute": 1, "no_outcome": 2}


async def test_results_and_questions_are_two_outputs_and_a_sample_may_be_in_both_one_or_none(tmp_path: Path) -> None:
    """Row 2.11."""
    async with started(create, tmp_path) as running:
        sure = {"rule": "confidence", "low": 0.8}
        await begin(running, where=BAND, results=sure)
        await running.deliver_batch(await scored(running, {**SURE, "b-low": 0.45}))
        await tick(running)
        said: dict[str, set[str]] = {}
        for _, envelope in await running.published():
            said.setdefault(envelope["type"], set()).add(envelope["data"]["sample_id"])
        assert said[InferenceResult.type] == {"mid", "high", "top"}
        assert said[SampleSelected.type] == {"low", "mid", "b-low"}


async def test_a_quota_gives_its_places_back(tmp_path: Path) -> None:
    """Row 4.19: labelled or skipped, and the next is asked; not before."""
    async with started(create, tmp_path) as running:
        await begin(running, where={"rule": "quota", "most": 1, "of": "class"}, low_water=10)
        await running.deliver_batch(await scored(running, {f"s{n}": 0.6 + n / 100 for n in range(6)}))
        for turn in range(3):
            await tick(running)
            (pick,) = await running.data(SampleSelected)
            await tick(running)
            assert await running.data(SampleSelected) == [], "the place is taken"
            assert (await stats(running))["asked"] == turn + 1
            name = pick["sample_id"]
            skip = TaskSkipped(project="p", sample_id=name, task_id="t", lease_epoch=1, reason="unclear")
            await running.deliver(accepted(name) if turn else skip)


async def test_a_change_is_in_force_on_every_replica_within_five_seconds_and_deletes_nothing(
    tmp_path: Path, ports: Ports
) -> None:
    """Row 2.14 and the KAN defect: a new confidence range deleted every queued image."""
    async with started(create, tmp_path, ports=ports) as one:
        await begin(one, where=BAND, low_water=10)
        await one.deliver_batch(await scored(one, SURE))
        await tick(one)
        before = {pick["sample_id"] for pick in await one.data(SampleSelected)}
        async with started(create, tmp_path, ports=ports, replica=1) as two:
            body = {"where": {"rule": "confidence", "low": 0.805}, "low_water": 10, "control": 0, "audit": 0}
            put = await one.call("PUT", "/v1/policies/default?project=p", json=body, headers={"if-match": '"1"'})
            assert put.json()["version"] == 2
            two.clock.step(5)
            assert (await stats(two))["policies"]["default"]["in_force"] == 2
            await tick(two)
            await one.service.outbox.drain()
            picks = await two.data(SampleSelected)
            assert {pick["sample_id"] for pick in picks} == {"high", "top"}
            assert {pick["policy"]["version"] for pick in picks} == {2}
            records = await two.state.get([f"cand:p:{name}" for name in SURE])
            assert {entry.value["state"] for entry in records.values()} == {"SELECTED"}, "what was asked stays asked"
            assert before == {"low", "mid"}


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"where": {"rule": "confidence", "low": 0.8, "high": 0.3}}, "/where/high"),
        ({"where": {"rule": "all", "of": [BAND, {"rule": "duty_cycle", "share": 2}]}}, "/where/of/1/share"),
        ({"where": {"rule": "not", "of": {"rule": "weekly", "zone": "Mars"}}}, "/where/of/zone"),
        ({"where": {"rule": "weekly", "zone": "UTC", "start": "25:00"}}, "/where/start"),
        ({"where": {"rule": "any", "of": [{"rule": "attribute", "field": "t"}]}}, "/where/of/0"),
        ({"where": {"rule": "any", "of": [{"rule": "attribute", "above": 1}]}}, "/where/of/0/field"),
        ({"where": {"rule": "any", "of": [{"rule": "confidence", "lo/w": 1}]}}, "/where/of/0/lo~1w"),
        ({"where": {"rule": "any", "of": [{"rule": "magic"}]}}, "/where/of/0"),
        ({"where": {"rule": "during", "start": "2026-01-02T00:00:00Z", "end": "2026-01-01T00:00:00Z"}}, "/where/end"),
        ({"stop": {"runs": 0}}, "/stop/runs"),
        ({"audit_share": 1.5}, "/audit_share"),
    ],
)
async def test_every_bad_field_is_refused_by_its_pointer(tmp_path: Path, body: dict[str, Any], pointer: str) -> None:
    async with started(create, tmp_path) as running:
        await running.deliver(project())
        put = await running.call("PUT", "/v1/policies/x?project=p", json=body)
        tested = await running.call("POST", "/v1/policies/x:test?project=p", json={"policy": body})
        assert (put.status_code, tested.status_code) == (422, 422)
        assert put.json()["errors"][0]["pointer"] == pointer
        assert tested.json()["errors"][0]["pointer"] == f"/policy{pointer}"


async def test_a_dry_run_says_what_and_why_and_changes_nothing(tmp_path: Path) -> None:
    async with started(create, tmp_path) as running:
        await begin(running, where={"rule": "quota", "most": 0})
        await running.deliver_batch(await scored(running, SURE))
        await tick(running)
        await running.published()
        before = await stats(running)
        call = lambda **body: running.call("POST", "/v1/policies/default:test?project=p", json=body)  # noqa: E731
        of_stored = (await call()).json()
        assert (of_stored["considered"], of_stored["passed"], of_stored["picks"]) == (4, 0, [])
        assert of_stored["rejected"] == {"quota": 4}
        tried = (await call(policy={"where": BAND, "batch": 1, "control": 0, "audit": 0})).json()
        assert (tried["considered"], tried["passed"]) == (4, 2)
        assert [pick["sample_id"] for pick in tried["picks"]] == ["low"]
        why = {row["sample_id"]: row["rules"][0]["why"] for row in tried["results"]}
        assert why["top"] == "confidence 0.99 is not within 0.3..0.8"
        some = (await call(policy={"where": BAND}, samples=["mid", "nope"])).json()
        assert (some["considered"], some["passed"]) == (1, 1)
        early = (await call(policy={"where": BAND}, window={"end": "2020-01-01T00:00:00Z"})).json()
        assert early["considered"] == 0
        sample = {"captured_at": "2026-01-05T09:00:00+01:00", "confidence": 0.5, "outcome": "a"}
        weekly = {"rule": "weekly", "zone": "Europe/Berlin", "days": ["mon"], "start": "08:00", "end": "10:00"}
        made_up = (await call(policy={"where": weekly}, given=[sample])).json()
        assert (made_up["considered"], made_up["passed"], made_up["picks"]) == (1, 1, [])
        assert (await call(window={"start": "2026-01-01T00:00:00Z", "end": "2025-01-01T00:00:00Z"})).status_code == 422
        assert (await call(given=[{"captured_at": "2026-01-05T09:00:00"}])).status_code == 422
        await tick(running)
        assert await running.published() == []
        assert await stats(running) == before


async def test_open_questions_are_ranked_anew_by_a_new_model_but_not_what_chance_drew(tmp_path: Path) -> None:
    """Row D7, this side; the queue's is in test_label_queue_revising.py."""
    async with started(create, tmp_path) as running:
        await begin(running, batch=3, audit=1, confident=0.9)
        await running.deliver_batch(await scored(running, {"x": 0.6, "y": 0.7, "sure": 0.99}))
        await tick(running)
        picks = {pick["sample_id"]: pick for pick in await running.data(SampleSelected)}
        assert picks["sure"]["is_audit"]
        await running.deliver(activated(2))
        await running.deliver_batch(await scored(running, {"x": 0.95, "y": 0.51, "sure": 0.8}, "m2"))
        moved = {event["sample_id"]: event for event in await running.data(SampleReranked)}
        assert set(moved) == {"x", "y"}
        assert moved["y"]["priority"] > picks["y"]["priority"] > moved["x"]["priority"]
        assert moved["y"]["round_id"] == picks["y"]["round_id"]
        assert (await running.call("GET", "/v1/decisions/y?project=p")).json()["decision"]["ranked_by"] == "m2"


async def test_a_class_that_is_full_lets_its_least_valuable_go_unless_somebody_is_at_it(tmp_path: Path) -> None:
    """Row 4.20."""
    async with started(create, tmp_path) as running:
        await begin(running, batch=4)
        await running.deliver_batch(await scored(running, {"s1": 0.6, "s2": 0.7, "s3": 0.8, "s4": 0.9}))
        await tick(running)
        rounds = {pick["sample_id"]: pick["round_id"] for pick in await running.data(SampleSelected)}
        assert set(rounds) == {"s1", "s2", "s3", "s4"}
        lease = {"project": "p", "task_id": "t", "lease_epoch": 1}
        await running.deliver(TaskLeased(sample_id="s4", **lease))
        body = {"batch": 4, "open_per_class": 2, "control": 0, "audit": 0, "low_water": 1}
        await running.call("PUT", "/v1/policies/default?project=p", json=body, headers={"if-match": '"1"'})
        await tick(running)
        assert {e["sample_id"] for e in await running.data(SampleEvicted)} == {"s3", "s2"}, "s4 is leased"
        await tick(running)
        assert await running.data(SampleEvicted) == [], "it is said once, not with every tick"
        told = {"project": "p", "task_id": "t", "lease_epoch": 0, "reason": "evicted"}
        await running.deliver(TaskSkipped(sample_id="s3", **told), TaskSkipped(sample_id="s2", **told))
        assert (await stats(running))["states"] == {"SELECTED": 2, "CANDIDATE": 2}
        assert (await stats(running))["asked"] == 2, "what gave way has cost no label"
        await running.deliver(TaskReleased(sample_id="s4", **lease))
        await tick(running)
        assert await running.data(SampleEvicted) == []
        for name in ("s1", "s4"):
            await running.deliver(accepted(name))
        await tick(running)
        again = await running.data(SampleSelected)
        assert {pick["sample_id"] for pick in again} == {"s2", "s3"}, "it may be asked later"
        await running.deliver(TaskSkipped(sample_id="s3", **told))
        assert (await stats(running))["states"]["SELECTED"] == 2, "an old skip that comes twice changes nothing"


async def test_a_question_that_nobody_took_up_expires_and_gives_its_place_back(tmp_path: Path) -> None:
    async with started(create, tmp_path) as running:
        await begin(running, batch=1, expire_seconds=60, low_water=5, where={"rule": "quota", "most": 1})
        await running.deliver_batch(await scored(running, {"s1": 0.6, "s2": 0.7}))
        await tick(running)
        assert [pick["sample_id"] for pick in await running.data(SampleSelected)] == ["s1"]
        running.clock.step(61)
        await tick(running)
        (event,) = await running.data(SampleEvicted)
        assert (event["sample_id"], event["why"]) == ("s1", "expired")
        skip = TaskSkipped(project="p", sample_id="s1", task_id="t", lease_epoch=0, reason="expired")
        await running.deliver(skip)
        await tick(running)
        assert [pick["sample_id"] for pick in await running.data(SampleSelected)] == ["s2"]
        assert (await stats(running))["states"] == {"EXPIRED": 1, "SELECTED": 1}


async def test_near_duplicates_are_asked_about_once(tmp_path: Path) -> None:
    """Row D5: inside a batch, and against what was asked."""
    async with started(create, tmp_path) as running:
        await begin(running, batch=2, near_duplicate=0.001, strategy="margin", low_water=10)
        events = await scored(running, {f"s{n}": 0.51 + n / 100 for n in range(6)})
        twins = [e.model_copy(update={"embedding_ref": events[n // 3].embedding_ref}) for n, e in enumerate(events)]
        await running.deliver_batch(twins)
        for _ in range(3):
            await tick(running)
        assert {pick["sample_id"] for pick in await running.data(SampleSelected)} == {"s0", "s3"}
        assert (await stats(running))["policies"]["default"]["dropped"]["near_duplicate"] >= 2
        numbered = (await running.state.get(["rounds:p"]))["rounds:p"].value["number"]
        await running.deliver(accepted("s0"), accepted("s3"))
        await tick(running)
        assert (await running.state.get(["rounds:p"]))["rounds:p"].value["number"] == numbered, "no empty rounds"


async def test_a_stream_share_is_decided_as_samples_come_and_survives_a_restart(tmp_path: Path, ports: Ports) -> None:
    where = {"rule": "stream_share", "share": 0.2, "window": 50}
    rng = np.random.default_rng(0)
    async with started(create, tmp_path, ports=ports) as running:
        await begin(running, where=where, min_pool=10_000, settle_seconds=10_000)
        for part in range(3):
            names = {f"s{part * 50 + n}": 0.5 + float(rng.random()) / 2 for n in range(50)}
            await running.deliver_batch(await scored(running, names))
            await running.deliver_batch(await scored(running, names))
        first = (await stats(running))["policies"]["default"]["passing"]
        assert abs(first - 30) <= 10
    async with started(create, tmp_path, ports=ports) as running:
        assert (await stats(running))["policies"]["default"]["passing"] == first
        names = {f"t{n}": 0.5 + float(rng.random()) / 2 for n in range(50)}
        await running.deliver_batch(await scored(running, names))
        assert (await stats(running))["policies"]["default"]["passing"] <= 41


async def test_the_audit_tells_the_error_of_the_active_model_with_an_interval(tmp_path: Path) -> None:
    """Row D12."""
    async with started(create, tmp_path) as running:
        await begin(running, batch=20, audit_share=1.0, confident=0.9, strategy="margin")
        await running.deliver_batch(await scored(running, {f"s{n}": 0.9 + n / 1000 for n in range(40)}))
        await tick(running)
        audits = [pick for pick in await running.data(SampleSelected) if pick["is_audit"]]
        assert len(audits) == 10, "half of a round at most"
        for n, pick in enumerate(audits):
            await running.deliver(accepted(pick["sample_id"], "b" if n == 0 else "a", is_audit=True))
        audit = (await stats(running))["audit"]
        assert (audit["labels"], audit["errors"], audit["error_rate"]) == (10, 1, 0.1)
        assert (audit["low"], audit["high"]) == (pytest.approx(0.00253, abs=1e-4), pytest.approx(0.44502, abs=1e-4))
        assert audit["confident"] == 40
        await running.deliver(activated(2))
        assert (await stats(running))["audit"]["labels"] == 0, "another model, another rate"


async def test_the_loop_pauses_when_labels_no_longer_help_and_says_so(tmp_path: Path, ports: Ports) -> None:
    """Row D20; also after a restart, and a model's verdict that comes twice counts once."""
    async with started(create, tmp_path, ports=ports) as running:
        await running.deliver(project(stop={"gain": 0.01, "runs": 2, "pause": True}))
        await running.deliver(activated(1, candidate=0.9))
        for _ in range(2):
            await running.deliver(ModelRejected(project="p", version="mx", gate={"candidate": 0.9}))
        assert not (await stats(running))["stopping"]["stop"]
        await running.deliver(ModelRejected(project="p", version="my", gate={"candidate": 0.905}))
        said = (await stats(running))["stopping"]
        assert (said["stop"], said["paused"], said["judged"]) == (True, True, 3)
        await running.deliver_batch(await scored(running, {"s1": 0.6}))
        await tick(running)
        assert await running.data(SampleSelected) == []
    async with started(create, tmp_path, ports=ports) as running:
        await tick(running)
        assert await running.data(SampleSelected) == []
        assert "paused by the policy's stop rule" in (await stats(running))["waiting_for"]
        manual = await running.call("POST", "/v1/rounds?project=p", json={"budget": 1})
        assert manual.status_code == 202, "a person may still ask"
        await running.published()
        body = {"control": 0, "audit": 0, "batch": 1}
        await running.call("PUT", "/v1/policies/default?project=p", json=body, headers={"if-match": '"1"'})
        assert not (await stats(running))["stopping"]["paused"]


async def test_policies_are_counted_for_prometheus(tmp_path: Path) -> None:
    """Row 2.17."""
    async with started(create, tmp_path) as running:
        where = {"rule": "all", "of": [BAND, {"rule": "quota", "most": 1}]}
        body = {"where": where, "batch": 2, "control": 0, "audit": 0, "settle_seconds": 0}
        await begin(running)
        await running.call("PUT", "/v1/policies/counted?project=p", json=body)
        await running.deliver_batch(await scored(running, SURE))
        await tick(running)
        await tick(running)
        text = (await running.call("GET", "/metrics")).text
        for line in (
            'halfsure_policy_seen_total{policy="counted",project="p"} 4.0',
            'halfsure_policy_selected_total{policy="counted",project="p"} 1.0',
            'halfsure_policy_rejected_total{policy="counted",project="p",rule="confidence /of/0"} 2.0',
            'halfsure_policy_dropped_total{policy="counted",project="p",reason="quota /of/1"} 1.0',
        ):
            assert line in text, line


async def test_the_candidates_come_in_pages_by_score_and_by_name(tmp_path: Path) -> None:
    """The pages are those of the whole list, without a sort of it; a sample that goes meanwhile moves nothing."""
    async with started(create, tmp_path) as running:
        await begin(running, min_pool=10_000, settle_seconds=10_000)
        sure = {f"s{n:02}": round(0.5 + (n * 7 % 10) / 20, 3) for n in range(25)}
        await running.deliver_batch(await scored(running, sure))
        by_score = sorted(sure, key=lambda name: (sure[name], name))
        for sort, expected in (("score", by_score), ("id", sorted(sure))):
            found: list[str] = []
            cursor = None
            while cursor is not None or not found:
                more = {"cursor": cursor} if cursor else {}
                page = await running.call(
                    "GET", "/v1/candidates", params={"project": "p", "sort": sort, "limit": 10, **more}
                )
                found += [row["sample_id"] for row in page.json()["items"]]
                cursor = page.json()["cursor"]
            assert found == expected
