"""retrain-trigger: one run for what changed, resumed wherever it was cut off, judged, promoted or not."""

import asyncio
import base64
import random
from pathlib import Path
from typing import Any

import psutil
import pytest
import structlog
from conftest import wait_until
from servers import described
from training import (
    SPEC,
    N,
    Rehearsal,
    ask,
    ended,
    evaluation,
    label,
    make,
    running,
    runs,
    settled,
    stored_labels,
    train_first,
)
from worlds import LABELS, SPECS, classifier

from services.contracts.events import (
    Content,
    LabelRetracted,
    ModelActivated,
    ModelLoadFailed,
    ModelRegistered,
    ModelRejected,
    ModelRolledBack,
    ProjectUpdated,
    SampleWithdrawn,
    Top,
    TrainingCancelled,
    TrainingFailed,
    TrainingRequested,
    TrainingStarted,
    TrainingSucceeded,
)
from services.contracts.ids import sha256
from services.runtime.ports import Ports

pytestmark = pytest.mark.usefixtures("brisk")


async def test_a_thousand_shuffled_duplicates_start_exactly_one_run(tmp_path: Path) -> None:
    backend = Rehearsal()
    async with running(tmp_path, backend) as one:
        await make(one)
        await one.deliver_batch(evaluation())
        seed = 7
        print(f"seed {seed}")
        events = [label(number) for number in range(N) for _ in range(100)]
        random.Random(seed).shuffle(events)
        for start in range(0, len(events), 100):
            assert set(await one.deliver_batch(events[start : start + 100])) == {"SUCCESS"}
        await ended(one)
        await settled(one)
        (run,) = await runs(one)
        assert run["state"] == "SUCCEEDED"
        assert run["snapshot"]["counts"] == {"train": N, "evaluation": 20, "new": N}
        assert backend.submitted == 1
        kinds = [envelope["type"] for _, envelope in await one.published()]
        for kind in (TrainingRequested, TrainingStarted, TrainingSucceeded, ModelRegistered, ModelActivated):
            assert kinds.count(kind.type) == 1, kind
        standing = await ask(one, "/v1/triggers/default")
        assert standing["counters"]["new"] == 0


async def test_the_first_model_serves_and_the_next_is_judged_against_it(tmp_path: Path) -> None:
    backend = Rehearsal()
    async with running(tmp_path, backend) as one:
        first = await train_first(one)
        await one.deliver_batch([label(number) for number in range(N, 2 * N)])
        second = (await ended(one, 2))[0]
        assert second["base_model"] == first["model_version"]
        assert second["gate"]["champion"] == 0.6
        assert second["gate"]["candidate"] == 0.9
        told = [row["gate"]["candidate"] for row in await one.data(ModelActivated)]
        assert told[-1] == 0.9, "whoever counts the gain of labels hears of it"
        states = {model["version"]: model["state"] for model in (await ask(one, "/v1/models"))["items"]}
        assert states == {first["model_version"]: "PREVIOUS", second["model_version"]: "ACTIVE"}
        diff = await ask(one, f"/v1/snapshots/{second['snapshot']['id']}/diff?from={first['snapshot']['id']}")
        assert (len(diff["added"]), diff["removed"], diff["evaluation_changed"]) == (N, [], False)
        both = f"a={second['model_version']}&b={first['model_version']}"
        assert (await ask(one, f"/v1/models/compare?{both}"))["difference"] == pytest.approx(0.0)


async def test_a_worse_candidate_is_refused_and_the_champion_stays(tmp_path: Path) -> None:
    backend = Rehearsal()
    async with running(tmp_path, backend) as one:
        first = await train_first(one)
        await one.published()
        backend.accuracy = 0.5
        await one.deliver_batch([label(number) for number in range(N, 2 * N)])
        second = (await ended(one, 2))[0]
        assert (second["state"], second["promoted"]) == ("SUCCEEDED", False)
        assert any(reason.startswith("not-better") for reason in second["gate"]["reasons"])
        model = await ask(one, f"/v1/models/{second['model_version']}")
        assert (model["state"], model["gate"]["promote"]) == ("REJECTED", False)
        assert (await ask(one, f"/v1/models/{first['model_version']}"))["state"] == "ACTIVE"
        kinds = [envelope["type"] for _, envelope in await one.published()]
        assert ModelRejected.type in kinds
        assert ModelActivated.type not in kinds
        refused = await one.call("POST", f"/v1/models/{second['model_version']}:activate", json={"reason": "x"})
        assert refused.status_code == 409
        body = {"reason": "I know better", "force": True}
        path = f"/v1/models/{second['model_version']}:activate"
        assert (await one.call("POST", path, "operator", json=body)).status_code == 403
        assert (await one.call("POST", path, json=body)).status_code == 202
        assert (await ask(one, f"/v1/models/{second['model_version']}"))["state"] == "ACTIVE"


STEPS = ["submit", "follow", "register", "judge", "end"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_crash_at_any_step_goes_on_where_it_was(
    step: str, when: str, tmp_path: Path, ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    from services.retrain_trigger.pipeline import Pipeline

    backend = Rehearsal()
    reached = asyncio.Event()
    original = getattr(Pipeline, step)

    async def cut_off(self: Pipeline, order: dict[str, Any]) -> Any:
        if when == "after":
            await original(self, order)
        reached.set()
        await asyncio.Event().wait()

    cut_off.__name__ = step
    monkeypatch.setattr(Pipeline, step, cut_off)
    async with running(tmp_path, backend, ports) as one:
        await make(one)
        await one.deliver_batch(evaluation())
        await one.deliver_batch([label(number) for number in range(N)])
        await asyncio.wait_for(reached.wait(), 10)
    monkeypatch.setattr(Pipeline, step, original)
    async with running(tmp_path, backend, ports) as one:
        (run,) = await ended(one)
        await settled(one)
        assert (run["state"], run["promoted"]) == ("SUCCEEDED", True)
        assert backend.submitted == 1
        assert len(await runs(one)) == 1
        kinds = [envelope["type"] for _, envelope in await one.published()]
        assert kinds.count(ModelActivated.type) == 1
        assert kinds.count(TrainingSucceeded.type) == 1
        assert (await ask(one, "/v1/triggers/default"))["active_run"] is None


async def test_a_run_whose_workflow_was_never_started_is_started(tmp_path: Path, ports: Ports) -> None:
    async with running(tmp_path, Rehearsal(), ports) as one:
        one.service.workflows.run = _nothing  # type: ignore[method-assign]
        await make(one)
        await one.deliver_batch(evaluation())
        await one.deliver_batch([label(number) for number in range(N)])
        await wait_until(lambda: runs(one))
        del one.service.workflows.run  # type: ignore[misc]
        (run,) = await ended(one)
        assert run["state"] == "SUCCEEDED"


async def _nothing(*_: Any) -> None: ...


async def test_a_run_whose_workflow_ended_without_it_is_begun_anew(tmp_path: Path) -> None:
    backend = Rehearsal()
    backend.hold.clear()
    async with running(tmp_path, backend) as one:
        await make(one)
        await one.deliver_batch(evaluation())
        await one.deliver_batch([label(number) for number in range(N)])
        (run,) = await wait_until(lambda: runs(one))
        await wait_until(lambda: backend.submitted)
        await one.service.workflows.terminate(run["run_id"])
        backend.hold.set()
        (run,) = await ended(one)
        assert (run["state"], backend.submitted) == ("SUCCEEDED", 1)


async def test_a_retracted_label_leaves_the_next_snapshot(tmp_path: Path) -> None:
    async with running(tmp_path, Rehearsal()) as one:
        first = await train_first(one)
        gone = label(0)
        await one.deliver(
            LabelRetracted(project="default", sample_id=gone.sample_id, label_revision=2, previous_revision=1)
        )
        assert (await ask(one, "/v1/triggers/default"))["counters"]["retracted"] == 1
        await one.deliver(gone)
        await one.deliver_batch([label(number) for number in range(N, 2 * N)])
        second = (await ended(one, 2))[0]
        diff = await ask(one, f"/v1/snapshots/{second['snapshot']['id']}/diff?from={first['snapshot']['id']}")
        assert diff["removed"] == [gone.sample_id]
        assert second["snapshot"]["counts"]["train"] == 2 * N - 1
        assert (await ask(one, "/v1/triggers/default"))["counters"]["retracted"] == 0


async def test_a_retraction_that_overtakes_its_label_wins(tmp_path: Path) -> None:
    async with running(tmp_path, Rehearsal()) as one:
        await make(one)
        event = label(0)
        await one.deliver(
            LabelRetracted(project="default", sample_id=event.sample_id, label_revision=2, previous_revision=1)
        )
        await one.deliver(event)
        assert (await ask(one, "/v1/triggers/default"))["counters"]["new"] == 0


async def test_a_withdrawn_sample_is_in_no_later_snapshot(tmp_path: Path) -> None:
    backend = Rehearsal()
    async with running(tmp_path, backend) as one:
        await make(one)
        gone = label(0)
        await one.deliver(gone)
        await one.deliver(SampleWithdrawn(project="default", sample_id=gone.sample_id, who="w", why="privacy"))
        await one.deliver(label(0, revision=3))
        await one.deliver_batch(evaluation())
        await one.deliver_batch([label(number) for number in range(1, N + 1)])
        (run,) = await ended(one)
        manifest = await ask(one, f"/v1/snapshots/{run['snapshot']['id']}/content")
        assert gone.sample_id not in {row["sample_id"] for row in manifest["train"]}
        assert backend.erased == {gone.sample_id}


async def test_an_evaluation_sample_never_trains_whichever_came_first(tmp_path: Path) -> None:
    backend = Rehearsal()
    async with running(tmp_path, backend) as one:
        await make(one)
        await one.deliver_batch(evaluation())
        both = [label(100 + number) for number in range(2)]
        as_evaluation = [event.model_copy(update={"split": "evaluation"}) for event in both]
        await one.deliver_batch([both[0], as_evaluation[1]])
        await one.deliver_batch([as_evaluation[0], both[1].model_copy(update={"label_revision": 2})])
        await one.deliver_batch([label(number) for number in range(N)])
        (run,) = await ended(one)
        manifest = await ask(one, f"/v1/snapshots/{run['snapshot']['id']}/content")
        trained = {row["sample_id"] for row in manifest["train"]}
        judged = {row["sample_id"] for row in manifest["evaluation"]}
        assert not trained & judged
        assert {event.sample_id for event in both} <= judged


async def test_a_sample_that_was_trained_on_never_judges(tmp_path: Path) -> None:
    async with running(tmp_path, Rehearsal()) as one:
        await train_first(one)
        late = label(0).model_copy(update={"split": "evaluation"})
        await one.deliver(late)
        await one.deliver_batch([label(number) for number in range(N, 2 * N)])
        second = (await ended(one, 2))[0]
        manifest = await ask(one, f"/v1/snapshots/{second['snapshot']['id']}/content")
        rows = {row["sample_id"] for part in ("train", "evaluation") for row in manifest[part]}
        assert late.sample_id not in rows


async def test_every_label_is_new_in_exactly_one_snapshot(tmp_path: Path) -> None:
    async with running(tmp_path, Rehearsal()) as one:
        await train_first(one)
        await one.deliver_batch([label(number) for number in range(N, 2 * N)])
        await one.deliver_batch([label(number) for number in range(2 * N, 3 * N)])

        async def all_in() -> bool:
            done = await ended(one)
            return done[0]["snapshot"]["counts"]["train"] == 3 * N

        await wait_until(all_in)
        done = [run for run in await runs(one) if run["state"] == "SUCCEEDED"]
        assert sum(run["snapshot"]["counts"]["new"] for run in done) == 3 * N


async def test_a_run_is_cancelled(tmp_path: Path) -> None:
    backend = Rehearsal()
    backend.hold.clear()
    async with running(tmp_path, backend) as one:
        await make(one)
        await one.deliver_batch(evaluation())
        await one.deliver_batch([label(number) for number in range(N)])

        async def under_way() -> str | None:
            found = await runs(one)
            return found[0]["run_id"] if found and found[0]["state"] == "RUNNING" else None

        name = await wait_until(under_way)
        active = await one.call("POST", "/v1/runs", json={})
        assert (active.status_code, active.json()["title"]) == (409, "run active")
        assert name in active.json()["detail"]
        assert (await one.call("POST", f"/v1/runs/{name}:cancel")).status_code == 202
        (run,) = await ended(one)
        assert run["state"] == "CANCELLED"
        assert (await one.call("POST", f"/v1/runs/{name}:cancel")).status_code == 409
        assert len(await one.data(TrainingCancelled)) == 1
        await settled(one)
        assert len(await runs(one)) == 1, "the same data does not train again by itself"
        again = await one.call("POST", "/v1/runs", json={})
        assert (again.status_code, again.json()["run_id"]) == (200, name)
        backend.hold.set()
        forced = await one.call("POST", "/v1/runs", json={"force": True})
        assert forced.status_code == 202
        assert forced.json()["run_id"] != name
        assert (await ended(one, 2))[0]["state"] == "SUCCEEDED"


async def test_a_failed_training_says_why_and_keeps_its_labels_new(tmp_path: Path) -> None:
    backend = Rehearsal()
    backend.fail = "not-trainable: because"
    async with running(tmp_path, backend) as one:
        await make(one)
        await one.deliver_batch(evaluation())
        await one.deliver_batch([label(number) for number in range(N)])
        (run,) = await ended(one)
        assert (run["state"], run["error"]) == ("FAILED", "not-trainable: because")
        (event,) = await one.data(TrainingFailed)
        assert event["error"] == "not-trainable: because"
        standing = await ask(one, "/v1/triggers/default")
        assert standing["counters"]["new"] == N
        assert "cooldown_until" in standing["missing"]
        backend.fail = None
        await one.deliver(label(N))
        await settled(one)
        assert len(await runs(one)) == 1, "a failure is followed by a pause"
        one.clock.step(31)
        assert (await ended(one, 2))[0]["state"] == "SUCCEEDED"


async def test_too_few_labels_are_named_by_class(tmp_path: Path) -> None:
    async with running(tmp_path, Rehearsal()) as one:
        await make(one)
        await one.deliver_batch([label(number) for number in (0, 2, 4, 1)])
        refused = await one.call("POST", "/v1/runs", json={})
        assert (refused.status_code, refused.json()["title"]) == (409, "not enough labels")
        assert refused.json()["errors"] == [
            {"pointer": "/labels/bright", "code": "shortage", "message": "'bright' lacks 1 labels"}
        ]
        missing = (await ask(one, "/v1/triggers/default"))["missing"]
        assert missing == {"labels": N - 4, "per_class": {"bright": 1}}
        await one.deliver_batch([label(3)])
        answer = await one.call("POST", "/v1/runs", json={})
        assert answer.status_code == 202
        (run,) = await ended(one)
        assert run["reason"] == "manual"
        assert run["requested_by"] == "admin"


async def test_labels_judge_by_chance_where_nobody_brought_an_evaluation_set(tmp_path: Path) -> None:
    async with running(tmp_path, Rehearsal()) as one:
        await make(one, trigger={"n": 60, "min_per_class": 2})
        await one.deliver_batch([label(number) for number in range(60)])
        (run,) = await ended(one)
        counts = run["snapshot"]["counts"]
        assert counts["train"] + counts["evaluation"] == 60 == counts["new"]
        assert 3 <= counts["evaluation"] <= 25
        assert run["promoted"]


async def test_audited_errors_of_the_active_version_start_a_run(tmp_path: Path) -> None:
    async with running(tmp_path, Rehearsal()) as one:
        await make(one, trigger={"n": N, "min_per_class": 2, "error_rate": 0.2})
        await one.deliver_batch(evaluation())
        await one.deliver_batch([label(number) for number in range(N)])
        (first,) = await ended(one)
        wrong = [
            label(
                number,
                is_audit=True,
                trigger="audit",
                model_version=first["model_version"],
                predicted=Top(label=LABELS[(number + 1) % 2], confidence=0.95),
            )
            for number in range(N, N + 3)
        ]
        await one.deliver(wrong[0])
        await settled(one)
        assert len(await runs(one)) == 1, "one error is not evidence"
        await one.deliver_batch(wrong[1:])
        second = (await ended(one, 2))[0]
        assert second["reason"] == "error_rate"


async def test_a_model_of_ones_own(tmp_path: Path) -> None:
    async with running(tmp_path, Rehearsal()) as one:
        await make(one)
        await one.published()
        content, manifest = classifier()
        body = {"artefact": base64.b64encode(content).decode(), "manifest": manifest.model_dump(mode="json")}
        answer = await one.call("POST", "/v1/models", json=body)
        assert (answer.status_code, answer.json()["state"]) == (201, "ACTIVE")
        (event,) = await one.data(ModelActivated)
        assert event["activation_epoch"] == 1
        assert await one.service.blobs.get(event["artefact"]["uri"]) == content
        again = await one.call("POST", "/v1/models", json=body)
        assert (again.status_code, again.json()["version"]) == (200, answer.json()["version"])
        other, described = classifier(3.0)
        body = {"artefact": base64.b64encode(other).decode(), "manifest": described.model_dump(mode="json")}
        second = await one.call("POST", "/v1/models", json=body)
        assert (second.status_code, second.json()["state"]) == (201, "CANDIDATE")
        path = f"/v1/models/{second.json()['version']}:activate"
        assert (await one.call("POST", path, json={"reason": "try it", "share": 0})).status_code == 422
        assert (await one.call("POST", path, json={"reason": "try it"})).status_code == 202


async def test_a_model_on_somebody_elses_server(tmp_path: Path) -> None:
    """Row 4.17: its endpoint is the artefact; nothing that is trained replaces it by itself, since none can compare."""
    async with running(tmp_path, Rehearsal()) as one:
        await make(one)
        artefact, manifest = described(SPECS["image"])
        body = {"artefact": base64.b64encode(artefact).decode(), "manifest": manifest.model_dump(mode="json")}
        answer = await one.call("POST", "/v1/models", json=body)
        assert (answer.status_code, answer.json()["state"]) == (201, "ACTIVE")
        (event,) = await one.data(ModelActivated)
        assert await one.service.blobs.get(event["artefact"]["uri"]) == artefact
        await one.deliver_batch([*evaluation(), *(label(number) for number in range(N))])
        (run,) = await ended(one)
        assert (run["state"], run["promoted"]) == ("SUCCEEDED", False)
        assert run["gate"]["reasons"][0].startswith("not-compared")
        path = f"/v1/models/{run['model_version']}:activate"
        assert (await one.call("POST", path, json={"reason": "better", "force": True})).status_code == 202


@pytest.mark.parametrize(
    ("artefact", "change", "pointer"),
    [
        (b'{"server": "eye", "url": "http://x"}', {}, "/artefact"),
        (b'{"server": "eye", "embedding": 8}', {}, "/artefact"),
        (b"no JSON", {}, "/artefact"),
        (b'{"server": "eye"}', {"outputs": {"probabilities": "scores"}}, "/manifest"),
        (b'{"server": "eye"}', {"outputs": {"embedding": "embedding"}, "labels": []}, "/manifest"),
        (b'{"server": "eye"}', {"backend": "grpc"}, "/manifest/backend"),
        (b'{"server": "eye"}', {"backend": "onnx"}, "/manifest"),
    ],
)
async def test_an_endpoint_that_does_not_fit_is_refused(
    tmp_path: Path, artefact: bytes, change: dict[str, Any], pointer: str
) -> None:
    async with running(tmp_path, Rehearsal()) as one:
        await make(one)
        manifest = described(SPECS["image"])[1].model_dump(mode="json") | {"sha256": sha256(artefact)} | change
        body = {"artefact": base64.b64encode(artefact).decode(), "manifest": manifest}
        answer = await one.call("POST", "/v1/models", json=body)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"artefact": "%%%"}, "/artefact"),
        ({"artefact": base64.b64encode(b"not a model").decode()}, "/manifest/sha256"),
        ({"artefact": {"uri": "blob:models/another/x.onnx"}}, "/artefact/uri"),
        ({"artefact": {"uri": "blob:models/default/x.onnx"}}, "/artefact/uri"),
        ({"manifest": {"labels": ["dark", "odd"]}}, "/manifest/labels"),
        ({"manifest": {"outputs": {"probabilities": "nope"}}}, "/artefact"),
    ],
)
async def test_a_model_that_is_not_what_it_says_is_refused(
    change: dict[str, Any], pointer: str, tmp_path: Path
) -> None:
    async with running(tmp_path, Rehearsal()) as one:
        await make(one)
        content, manifest = classifier()
        body: dict[str, Any] = {
            "artefact": change.get("artefact", base64.b64encode(content).decode()),
            "manifest": {**manifest.model_dump(mode="json"), **change.get("manifest", {})},
        }
        answer = await one.call("POST", "/v1/models", json=body)
        assert answer.status_code == 422, answer.text
        assert answer.json()["errors"][0]["pointer"] == pointer


async def test_a_version_that_cannot_be_loaded_is_rolled_back_once(tmp_path: Path) -> None:
    async with running(tmp_path, Rehearsal()) as one:
        first = await train_first(one)
        await one.deliver_batch([label(number) for number in range(N, 2 * N)])
        second = (await ended(one, 2))[0]
        await one.published()
        failed = ModelLoadFailed(
            project="default",
            site="s",
            instance="i",
            version=second["model_version"],
            activation_epoch=2,
            error="no such operator",
        )
        await one.deliver_batch([failed] * 3)
        await one.deliver(failed)
        (event,) = await one.data(ModelRolledBack)
        assert (event["version"], event["previous"]) == (first["model_version"], second["model_version"])
        assert event["activation_epoch"] == 3
        model = await ask(one, f"/v1/models/{second['model_version']}")
        assert model["state"] == "ARCHIVED"
        assert model["loads"]["s/i"]["error"] == "no such operator"
        back = await one.call("POST", "/v1/models:rollback", json={})
        assert (back.status_code, back.json()["title"]) == (409, "nothing to roll back to")


async def test_a_roll_back_by_hand(tmp_path: Path) -> None:
    async with running(tmp_path, Rehearsal()) as one:
        first = await train_first(one)
        await one.deliver_batch([label(number) for number in range(N, 2 * N)])
        await ended(one, 2)
        answer = await one.call("POST", "/v1/models:rollback", json={"reason": "it is odd"})
        assert (answer.status_code, answer.json()["version"]) == (202, first["model_version"])


async def test_projects_are_made_changed_and_deleted(tmp_path: Path, ports: Ports) -> None:
    async with running(tmp_path, Rehearsal(), ports) as one:
        made = await make(one)
        assert made["revision"] == 1
        extractor = await one.service.blobs.get(made["extractor"]["artefact"]["uri"])
        assert sha256(extractor) == made["extractor"]["artefact"]["sha256"]
        (event,) = await one.data(ProjectUpdated)
        assert event["document"] == made
        assert (await one.call("POST", "/v1/projects", json=SPEC)).status_code == 200
        assert (await one.call("POST", "/v1/projects", json={**SPEC, "labels": ["a", "b"]})).status_code == 409
        assert await one.data(ProjectUpdated) == []
        path = "/v1/projects/default"
        wider = {**SPEC, "labels": [*LABELS, "odd"]}
        assert (await one.call("PUT", path, json=wider)).status_code == 428
        assert (await one.call("PUT", path, json=wider, headers={"if-match": '"9"'})).status_code == 412
        changed = await one.call("PUT", path, json=wider, headers={"if-match": '"1"'})
        assert (changed.status_code, changed.headers["etag"]) == (200, '"2"')
        assert changed.json()["schema_version"] == 2
        assert (await one.call("POST", "/v1/projects", "annotator", json=SPEC)).status_code == 403
    async with running(tmp_path, Rehearsal(), ports) as one:
        assert (await ask(one, "/v1/projects/default"))["revision"] == 2
        assert (await one.call("DELETE", "/v1/projects/default")).status_code == 428
        gone = await one.call("DELETE", "/v1/projects/default", headers={"if-match": '"2"'})
        assert gone.status_code == 204
        assert (await one.call("GET", "/v1/projects/default")).status_code == 404
        assert [event["deleted"] for event in await one.data(ProjectUpdated)][-1:] == [True]
        assert (await make(one))["revision"] == 4


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"labels": ["one"]}, "/labels"),
        ({"trigger": {"n": 0}}, "/trigger/n"),
        ({"trigger": {"cooldown_seconds": -1}}, "/trigger/cooldown_seconds"),
        ({"training": {"metric": "beauty"}}, "/training/metric"),
        ({"input": SPECS["tabular"].model_dump(mode="json")}, "/task"),
        ({"strange": 1}, "/strange"),
    ],
)
async def test_a_bad_project_is_refused_by_name(change: dict[str, Any], pointer: str, tmp_path: Path) -> None:
    async with running(tmp_path, Rehearsal()) as one:
        answer = await one.call("POST", "/v1/projects", json={**SPEC, **change})
        assert answer.status_code == 422, answer.text
        assert answer.json()["errors"][0]["pointer"] == pointer


async def test_a_trigger_is_changed_under_its_etag(tmp_path: Path) -> None:
    async with running(tmp_path, Rehearsal()) as one:
        await make(one)
        path, rule = "/v1/triggers/default", {"n": 5}
        assert (await one.call("PUT", path, json=rule)).status_code == 428
        changed = await one.call("PUT", path, json=rule, headers={"if-match": '"1"'})
        assert (changed.status_code, changed.json()["rule"]["n"]) == (200, 5)
        assert (await one.call("PUT", path, json={"n": 0}, headers={"if-match": '"2"'})).status_code == 422
        assert (await one.call("GET", "/v1/triggers/none")).status_code == 404


async def test_labels_of_an_unknown_project_are_dropped(tmp_path: Path) -> None:
    async with running(tmp_path, Rehearsal()) as one:
        assert await one.deliver(label(0)) == ["DROP"]


# The local backend: a real training in a process of its own.


async def test_a_real_training_makes_a_model_that_is_promoted(tmp_path: Path) -> None:
    async with running(tmp_path) as one:
        await make(one)
        events = await stored_labels(one, [*evaluation(), *(label(number) for number in range(N))])
        await one.deliver_batch(events[:20])
        await one.deliver_batch(events[20:])
        (run,) = await ended(one, seconds=60)
        assert (run["state"], run["promoted"]) == ("SUCCEEDED", True), run
        assert run["metrics"]["candidate"]["accuracy"] >= 0.9
        (folder,) = (tmp_path / "runs").iterdir()
        assert folder.name == run["run_id"]


async def test_a_training_that_is_cut_off_is_done_again_after_a_restart(tmp_path: Path, ports: Ports) -> None:
    async with running(tmp_path, None, ports) as one:
        await make(one)
        events = await stored_labels(one, [*evaluation(), *(label(number) for number in range(N))])
        await one.deliver_batch(events[:20])
        await one.deliver_batch(events[20:])
        await wait_until(lambda: list(tmp_path.glob("runs/*/train.log")))
        assert [run["state"] for run in await runs(one)] == ["RUNNING"]
    async with running(tmp_path, None, ports) as one:
        (run,) = await ended(one, seconds=60)
        assert (run["state"], run["promoted"]) == ("SUCCEEDED", True), run


async def test_a_disk_that_takes_nothing_for_a_while_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "contents").write_bytes(b"in the way")
    async with running(tmp_path) as one:
        await make(one)
        events = await stored_labels(one, [*evaluation(), *(label(number) for number in range(N))])
        with structlog.testing.capture_logs() as said:
            await one.deliver_batch(events)
            waits = await wait_until(lambda: [row["seconds"] for row in said if row["event"] == "activity waits"][3:])
        assert waits[0] >= 0.4, "ever longer"
        assert [run["state"] for run in await runs(one)] == ["RUNNING"]
        (tmp_path / "contents").unlink()
        (run,) = await ended(one, seconds=60)
        assert run["state"] == "SUCCEEDED", run


async def test_a_content_that_is_gone_fails_the_run_with_its_name(tmp_path: Path) -> None:
    async with running(tmp_path) as one:
        await make(one)
        await one.deliver_batch(evaluation())
        await one.deliver_batch([label(number) for number in range(N)])
        (run,) = await ended(one)
        assert run["state"] == "FAILED"
        assert "cannot be read" in run["error"]


async def test_a_content_that_is_no_picture_fails_the_run_with_its_name(tmp_path: Path) -> None:
    async with running(tmp_path) as one:
        await make(one)
        events = await stored_labels(one, [*evaluation(), *(label(number) for number in range(N))])
        uri = await one.service.blobs.put("samples/default/bad", b"no picture")
        claim = Content(uri=uri, sha256=sha256(b"no picture"), bytes=10, media_type="image/png")
        events[-1] = events[-1].model_copy(update={"content": claim})
        await one.deliver_batch(events[:20])
        await one.deliver_batch(events[20:])
        (run,) = await ended(one, seconds=60)
        assert run["state"] == "FAILED"
        assert events[-1].sample_id in run["error"]
        assert run["error"].startswith("unreadable-sample")


async def test_a_real_training_is_cancelled_and_its_process_is_gone(tmp_path: Path) -> None:
    async with running(tmp_path) as one:
        await make(one)
        events = await stored_labels(one, [*evaluation(), *(label(number) for number in range(N))])
        await one.deliver_batch(events[:20])
        await one.deliver_batch(events[20:])
        child = await wait_until(_children)
        (run,) = await runs(one)
        assert (await one.call("POST", f"/v1/runs/{run['run_id']}:cancel")).status_code == 202
        (run,) = await ended(one)
        assert run["state"] == "CANCELLED"
        assert not set(child) & set(_children())


def _children() -> list[int]:
    """Pids of the training processes that this one has started."""
    return [process.pid for process in psutil.Process().children() if "child" in " ".join(process.cmdline())]


async def test_a_withdrawn_sample_leaves_the_snapshots_of_runs_that_are_over(tmp_path: Path) -> None:
    async with running(tmp_path, Rehearsal()) as one:
        run = await train_first(one)
        path = f"/v1/snapshots/{run['snapshot']['id']}/content"
        before = await ask(one, path)
        gone = [before["train"][0]["sample_id"], before["evaluation"][0]["sample_id"]]
        for sample in gone:
            await one.deliver(SampleWithdrawn(project="default", sample_id=sample, who="w", why="privacy"))

        def nowhere() -> bool:
            return not [uri for uri, raw in one.blobs.contents.items() for name in gone if name.encode() in raw]

        await wait_until(nowhere)
        after = await ask(one, path)
        assert after["erased"] == 2
        for part in ("train", "evaluation"):
            assert after[part] == [row for row in before[part] if row["sample_id"] not in gone]
        assert after["evaluation_sha256"] == before["evaluation_sha256"], "what the model was judged on stays said"
        assert (await ask(one, f"/v1/snapshots/{run['snapshot']['id']}"))["sha256"] == run["snapshot"]["sha256"]
