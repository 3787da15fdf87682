"""select-uncertain on memory ports: candidates, rounds, budgets, rescoring, restarts."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Running, started

from services.contracts.events import (
    Content,
    LabelAccepted,
    ModelActivated,
    ModelRejected,
    ProjectUpdated,
    Ref,
    RescoreRequested,
    SampleScored,
    SampleScoringFailed,
    SampleSelected,
    SampleWithdrawn,
    TaskSkipped,
)
from services.contracts.ids import sha256
from services.runtime.errors import Unavailable
from services.runtime.memory import MemoryState
from services.runtime.ports import Delete, Op, Ports, Put
from services.select_uncertain.app import create

CONTENT = Content(uri="blob:x", sha256=sha256(b"x"), bytes=1, media_type="image/png")
LABELS = ["a", "b"]


def project(**policy: Any) -> ProjectUpdated:
    rules = {
        "batch": 4,
        "low_water": 1,
        "min_pool": 10,
        "settle_seconds": 5,
        "control": 1,
        "audit": 1,
        "confident": 0.8,
        **policy,
    }
    artefact = CONTENT.model_dump()
    document = {
        "name": "p",
        "task": "image-classification",
        "labels": LABELS,
        "input": {"kind": "image", "shape": [None, 1, 8, 8], "height": 8, "width": 8, "channels": 1},
        "policy": rules,
        "trigger": {"n": 4, "min_per_class": 0},
        "revision": 1,
        "extractor": {"artefact": artefact, "manifest": artefact},
    }
    return ProjectUpdated(project="p", revision=1, document=document)


async def scores(running: Running, names: list[str], version: str = "none") -> list[SampleScored]:
    """Scored events whose embeddings lie on a line; with a model, certainty grows along it."""
    vectors = np.array([[int(name[1:]), 1.0] for name in names], np.float32)
    uri = await running.blobs.put(f"embeddings/p/{version}/{names[0]}", vectors.tobytes())
    rows = []
    for row, name in enumerate(names):
        sure = 0.5 + min(int(name[1:]), 48) / 100
        rows.append(
            SampleScored(
                project="p",
                sample_id=name,
                model_version=version,
                task="image-classification",
                content=CONTENT,
                labels=[] if version == "none" else LABELS,
                probabilities=[] if version == "none" else [sure, 1 - sure],
                embedding_ref=Ref(uri=uri, row=row, dim=2),
            )
        )
    return rows


def accepted(name: str, value: str = "a") -> LabelAccepted:
    return LabelAccepted(project="p", sample_id=name, label_revision=1, value=value, content=CONTENT)


def activated(epoch: int = 1) -> ModelActivated:
    return ModelActivated(
        project="p", version=f"mdl_{epoch}", activation_epoch=epoch, artefact=CONTENT, manifest=CONTENT
    )


NAMES = [f"s{n}" for n in range(40)]


async def tick(running: Running) -> None:
    await running.call("GET", "/v1/info")
    work = next(work for _, work in running.service._loops)
    await work()


async def first_round(running: Running, **policy: Any) -> list[dict[str, Any]]:
    await running.deliver(project(**policy))
    await running.deliver_batch(await scores(running, NAMES))
    await tick(running)
    return await running.data(SampleSelected)


async def test_without_a_model_the_first_round_picks_by_coverage(tmp_path: Path) -> None:
    async with started(create, tmp_path) as running:
        picks = await first_round(running)
        assert len(picks) == 4
        assert {pick["strategy"] for pick in picks} == {"coverage"}
        places = sorted(int(pick["sample_id"][1:]) for pick in picks)
        assert places[-1] - places[0] >= 20, "coverage spreads over the pool"


async def test_no_second_round_while_tasks_are_open_and_none_while_a_model_is_trained(tmp_path: Path) -> None:
    async with started(create, tmp_path) as running:
        picks = await first_round(running)
        await tick(running)
        assert await running.data(SampleSelected) == []
        for pick in picks:
            await running.deliver(accepted(pick["sample_id"]))
        await tick(running)
        assert await running.data(SampleSelected) == []
        stats = (await running.call("GET", "/v1/stats?project=p")).json()
        assert "a model is being trained" in stats["waiting_for"]
        running.clock.step(61)
        await tick(running)
        assert len(await running.data(SampleSelected)) == 4, "it does not wait for ever"


async def test_a_rejected_candidate_opens_the_next_round(tmp_path: Path) -> None:
    async with started(create, tmp_path) as running:
        for pick in await first_round(running):
            await running.deliver(accepted(pick["sample_id"]))
        await running.deliver(ModelRejected(project="p", version="mdl_x", gate={}))
        await tick(running)
        assert len(await running.data(SampleSelected)) == 4


async def test_after_an_activation_the_pool_is_scored_again_and_then_asked(tmp_path: Path) -> None:
    async with started(create, tmp_path) as running:
        first = {pick["sample_id"] for pick in await first_round(running)}
        for name in first:
            await running.deliver(accepted(name))
        await running.deliver(activated())
        await tick(running)
        (request,) = await running.data(RescoreRequested)
        assert set(request["sample_ids"]) == set(NAMES)
        assert request["model_version"] == "mdl_1"
        await running.deliver_batch(await scores(running, NAMES, "mdl_1"))
        await tick(running)
        picks = await running.data(SampleSelected)
        assert len(picks) == 4
        assert not first & {pick["sample_id"] for pick in picks}, "no sample is asked for twice"
        assert sorted(pick["trigger"] for pick in picks) == ["audit", "control", "policy", "policy"]
        assert [pick["is_audit"] for pick in picks if pick["trigger"] == "audit"] == [True]
        chosen = next(pick for pick in picks if pick["trigger"] == "policy")
        assert chosen["model_version"] == "mdl_1"


async def test_scores_that_are_late_are_asked_for_again(tmp_path: Path) -> None:
    async with started(create, tmp_path) as running:
        for pick in await first_round(running):
            await running.deliver(accepted(pick["sample_id"]))
        await running.deliver(activated())
        await tick(running)
        await running.published()
        await running.deliver_batch(await scores(running, NAMES[:30], "mdl_1"))
        await tick(running)
        assert await running.data(RescoreRequested) == []
        running.clock.step(16)
        await tick(running)
        (again,) = await running.data(RescoreRequested)
        assert set(again["sample_ids"]) == set(NAMES[30:])


async def test_a_late_score_of_an_old_model_and_an_old_activation_change_nothing(tmp_path: Path) -> None:
    async with started(create, tmp_path) as running:
        await first_round(running)
        await running.deliver(activated(2), activated(1))
        await running.deliver_batch(await scores(running, NAMES, "mdl_2"))
        await running.deliver_batch(await scores(running, NAMES, "mdl_1"))
        stats = (await running.call("GET", "/v1/stats?project=p")).json()
        assert (stats["model_version"], stats["to_rescore"]) == ("mdl_2", 0)


async def test_duplicates_change_nothing_and_a_restart_forgets_nothing(tmp_path: Path, ports: Ports) -> None:
    async with started(create, tmp_path, ports=ports) as running:
        first = await first_round(running)
        for _ in range(3):
            await running.deliver_batch(await scores(running, NAMES))
            await running.deliver_batch([accepted(first[0]["sample_id"])] * 50)
        before = (await running.call("GET", "/v1/stats?project=p")).json()
        assert before["new_labels"] == 1
    async with started(create, tmp_path, ports=ports) as running:
        after = (await running.call("GET", "/v1/stats?project=p")).json()
        assert after == before
        await tick(running)
        assert await running.data(SampleSelected) == []


async def test_a_commit_whose_answer_is_lost_still_fills_the_pool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[str] = []
    commit = MemoryState.commit

    async def commit_once_unheard(state: MemoryState, ops: Sequence[Op]) -> None:
        await commit(state, ops)
        if not lost and any(isinstance(op, Put) and op.key.startswith("cand:") for op in ops):
            lost.append(ops[0].key)
            raise Unavailable("the answer was lost")

    async with started(create, tmp_path) as running:
        await running.deliver(project())
        events = await scores(running, ["s0", "s1", "s2"])
        monkeypatch.setattr(MemoryState, "commit", commit_once_unheard)
        assert await running.deliver_batch(events) == ["SUCCESS"] * 3
        assert lost
        assert (await running.call("GET", "/v1/stats?project=p")).json()["states"] == {"CANDIDATE": 3}


async def test_the_budget_holds(tmp_path: Path) -> None:
    async with started(create, tmp_path) as running:
        picks = await first_round(running, budget=6)
        dry = await running.call("POST", "/v1/rounds?project=p", json={"budget": 500, "dry_run": True})
        assert len(dry.json()["picks"]) + len(picks) == 6
        for pick in picks:
            await running.deliver(accepted(pick["sample_id"]))
        running.clock.step(61)
        await tick(running)
        second = await running.data(SampleSelected)
        assert len(picks) + len(second) == 6
        for pick in second:
            await running.deliver(accepted(pick["sample_id"]))
        running.clock.step(61)
        await tick(running)
        assert await running.data(SampleSelected) == []
        manual = await running.call("POST", "/v1/rounds?project=p", json={"budget": 1})
        assert (manual.status_code, manual.json()["type"]) == (409, "urn:halfsure:problem:budget-used-up")


async def test_a_policy_may_be_for_some_sites_and_give_each_a_budget(tmp_path: Path) -> None:
    """Row 2.19: north and south are asked three times each at most, east never."""
    async with started(create, tmp_path) as running:
        await running.deliver(project(sites=["north", "south"], site_budget=3, batch=8, min_pool=5))
        sites = {name: ("north", "south", "east")[n % 3] for n, name in enumerate(NAMES)}
        for site in ("north", "south", "east"):
            await running.deliver_batch(await scores(running, [n for n in NAMES if sites[n] == site]), siteid=site)
        asked: Counter[str] = Counter()
        for _ in range(4):
            running.clock.step(61)
            await tick(running)
            for pick in await running.data(SampleSelected):
                asked[sites[pick["sample_id"]]] += 1
                await running.deliver(accepted(pick["sample_id"]))
        assert asked == {"north": 3, "south": 3}
        manual = await running.call("POST", "/v1/rounds?project=p", json={"budget": 1})
        assert manual.status_code == 409
        assert "of a site or device that the policy may still ask about" in manual.json()["detail"]


async def test_a_policy_may_be_for_some_devices_and_give_each_a_budget(tmp_path: Path) -> None:
    """Row 2.19, within one site: the sample's own device counts, not the site's."""
    async with started(create, tmp_path) as running:
        await running.deliver(project(devices=["cam-1", "cam-2"], device_budget=3, batch=8, min_pool=5))
        devices = {name: ("cam-1", "cam-2", "")[n % 3] for n, name in enumerate(NAMES)}
        for device in ("cam-1", "cam-2", ""):
            batch = await scores(running, [n for n in NAMES if devices[n] == device])
            await running.deliver_batch(batch, deviceid=device)
        asked: Counter[str] = Counter()
        for _ in range(4):
            running.clock.step(61)
            await tick(running)
            for _, envelope in await running.published():
                if envelope["type"] == SampleSelected.type:
                    assert envelope["deviceid"] == devices[envelope["subject"]]
                    asked[envelope["deviceid"]] += 1
                    await running.deliver(accepted(envelope["subject"]))
        assert asked == {"cam-1": 3, "cam-2": 3}


async def test_labels_from_elsewhere_are_never_asked_for(tmp_path: Path) -> None:
    async with started(create, tmp_path) as running:
        await running.deliver(project())
        for name in NAMES[:36]:
            await running.deliver(accepted(name))
        await running.deliver_batch(await scores(running, NAMES))
        running.clock.step(120)
        await tick(running)
        assert {pick["sample_id"] for pick in await running.data(SampleSelected)} == set(NAMES[36:])


async def test_a_small_pool_is_waited_for_and_then_taken_as_it_is(tmp_path: Path) -> None:
    async with started(create, tmp_path) as running:
        await running.deliver(project())
        await running.deliver_batch(await scores(running, NAMES[:5]))
        await tick(running)
        assert await running.data(SampleSelected) == []
        running.clock.step(6)
        await tick(running)
        assert len(await running.data(SampleSelected)) == 4


async def test_only_the_first_round_waits_for_the_pool_to_fill(tmp_path: Path) -> None:
    async with started(create, tmp_path) as running:
        for pick in await first_round(running, min_pool=len(NAMES), settle_seconds=1000):
            await running.deliver(accepted(pick["sample_id"]))
        await running.deliver(ModelRejected(project="p", version="mdl_x", gate={}))
        await tick(running)
        assert len(await running.data(SampleSelected)) == 4


async def test_unscorable_goes_to_a_person_once_and_skipped_is_not_asked_again(tmp_path: Path) -> None:
    async with started(create, tmp_path) as running:
        await running.deliver(project())
        failed = SampleScoringFailed(project="p", sample_id="s1", model_version="none", content=CONTENT, error="x")
        await running.deliver(failed, failed)
        (pick,) = await running.data(SampleSelected)
        assert pick["reasons"] == ["cannot be scored: x"]
        await running.deliver(TaskSkipped(project="p", sample_id="s1", task_id="t", lease_epoch=1))
        await running.deliver(failed)
        assert await running.data(SampleSelected) == []


async def test_a_silent_server_takes_no_scores_away(tmp_path: Path) -> None:
    """What has scores waits for new ones, and is not asked about all at once; what has none goes to a person."""
    async with started(create, tmp_path) as running:
        await running.deliver(project(min_pool=100))
        await running.deliver_batch(await scores(running, ["s1"]))
        for name in ("s1", "s2"):
            failed = {"project": "p", "sample_id": name, "model_version": "m", "content": CONTENT}
            await running.deliver(SampleScoringFailed(**failed, error="server-silent", retryable=True))
        assert [pick["sample_id"] for pick in await running.data(SampleSelected)] == ["s2"]


async def test_withdrawn_is_not_asked(tmp_path: Path) -> None:
    async with started(create, tmp_path) as running:
        await running.deliver(project())
        await running.deliver_batch(await scores(running, NAMES[:5]))
        for name in NAMES[:4]:
            await running.deliver(SampleWithdrawn(project="p", sample_id=name, who="w", why="privacy"))
        running.clock.step(6)
        await tick(running)
        assert [pick["sample_id"] for pick in await running.data(SampleSelected)] == ["s4"]


async def test_an_event_of_an_unknown_project_is_dropped(tmp_path: Path) -> None:
    async with started(create, tmp_path) as running:
        assert await running.deliver_batch(await scores(running, ["s1"])) == ["DROP"]


async def test_policies_are_versioned_and_rounds_explain_themselves(tmp_path: Path) -> None:
    async with started(create, tmp_path) as running:
        picks = await first_round(running)
        call = running.call
        found = (await call("GET", f"/v1/rounds/{picks[0]['round_id']}?project=p")).json()
        assert [pick["sample_id"] for pick in found["picks"]] == [pick["sample_id"] for pick in picks]
        sample = picks[0]["sample_id"]
        decision = (await call("GET", f"/v1/decisions/{sample}?project=p")).json()["decision"]
        assert decision["reasons"]
        assert decision["policy"] == {"id": "default", "version": 1}
        body = {"batch": 2, "strategy": "margin"}
        assert (await call("PUT", "/v1/policies/default?project=p", json=body)).status_code == 428
        stale = await call("PUT", "/v1/policies/default?project=p", json=body, headers={"if-match": '"7"'})
        assert stale.status_code == 412
        new = await call("PUT", "/v1/policies/default?project=p", json=body, headers={"if-match": '"1"'})
        assert (new.status_code, new.json()["version"]) == (200, 2)
        versions = (await call("GET", "/v1/policies/default/versions?project=p")).json()["items"]
        assert [version["version"] for version in versions] == [1, 2]
        dry = await call("POST", "/v1/rounds?project=p", json={"dry_run": True})
        assert dry.json()["dry_run"] is True
        assert await running.data(SampleSelected) == []
        assert (await call("POST", "/v1/rounds?project=p", json={"policy": "nope"})).status_code == 404
        manual = await call("POST", "/v1/rounds?project=p", json={"budget": 3, "policy": "default"})
        assert manual.status_code == 202
        assert len(await running.data(SampleSelected)) == 3


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"strategy": "nope"}, "/strategy"),
        ({"batch": 0}, "/batch"),
        ({"unknown": 1}, "/unknown"),
        ({"confident": 2}, "/confident"),
    ],
)
async def test_a_bad_policy_is_refused_with_its_pointer(tmp_path: Path, body: dict[str, Any], pointer: str) -> None:
    async with started(create, tmp_path) as running:
        await running.deliver(project())
        answer = await running.call("PUT", "/v1/policies/x?project=p", json=body)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == pointer


async def test_a_redo_after_a_lost_answer_indexes_and_counts_what_the_first_try_has_written(
    tmp_path: Path, ports: Ports
) -> None:
    """The records are there, the index, the pool and the activation's memory are not: as after a lost answer."""
    async with started(create, tmp_path, ports=ports) as running:
        picks = await first_round(running)
        await running.deliver(accepted(picks[0]["sample_id"]))
        await running.deliver(activated())
        before = (await running.call("GET", "/v1/stats?project=p")).json()
        await running.state.commit([Delete("cidx:p:0"), Delete("cidx:p")])
    async with started(create, tmp_path, ports=ports) as running:
        await running.deliver_batch(await scores(running, NAMES))
        await running.deliver(accepted(picks[0]["sample_id"]))
        await running.deliver(activated())
        assert (await running.call("GET", "/v1/stats?project=p")).json() == before
    async with started(create, tmp_path, ports=ports) as running:
        assert (await running.call("GET", "/v1/stats?project=p")).json() == before


async def test_nothing_is_left_of_a_withdrawn_sample_but_that_it_was_asked_about(tmp_path: Path) -> None:
    """In whatever order its events come: neither a score nor a label brings it back."""
    async with started(create, tmp_path) as running:
        await running.deliver(project(budget=10))
        about = {"attributes": {"person": "anna"}, "tags": ["anna"]}
        scored = [row.model_copy(update=about) for row in await scores(running, NAMES)]
        early, *others = scored
        withdrawn = [SampleWithdrawn(project="p", sample_id=row.sample_id, who="w", why="privacy") for row in scored]
        await running.deliver(withdrawn[0])
        await running.deliver_batch(scored)
        await tick(running)
        asked = [pick["sample_id"] for pick in await running.data(SampleSelected)]
        assert len(asked) == 4
        assert early.sample_id not in asked
        await running.deliver_batch(withdrawn)
        await running.deliver_batch(scored)
        await running.deliver(accepted(asked[0]))
        await running.deliver_batch(await scores(running, NAMES, "mdl_1"))
        assert "anna" not in str(await running.records())
        for row in others:
            answer = (await running.call("GET", f"/v1/decisions/{row.sample_id}?project=p")).json()
            assert answer["state"] == "WITHDRAWN"
            assert ("round_id" in (answer["decision"] or {})) == (row.sample_id in asked)
        told = (await running.call("GET", "/v1/stats?project=p")).json()
        assert told["asked"] == 4, "what was asked counts against the budget"
