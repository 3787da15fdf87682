"""retrain-trigger's models: shares, shadows, acknowledgements, the watch, retention, and what the gate says."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from conftest import Running, wait_until
from training import N, Rehearsal, ask, ended, evaluation, label, make, running, runs, settled, train_first
from worlds import classifier

from services.contracts.events import (
    LabelAccepted,
    ModelActivated,
    ModelLoaded,
    ModelRegistered,
    ModelRolledBack,
    Top,
)
from services.contracts.ids import sha256
from services.retrain_trigger.models import new_record
from services.retrain_trigger.registry import Registry
from services.runtime.service import transact

pytestmark = pytest.mark.usefixtures("brisk")


async def train_next(one: Running, count: int) -> dict[str, Any]:
    """The run that the next N labels make; `count` have ended then."""
    await one.deliver_batch([label(number) for number in range((count - 1) * N, count * N)])
    return (await ended(one, count))[0]


async def two_models(one: Running, **project: Any) -> tuple[str, str]:
    """The versions of a first model and of the one that was promoted over it."""
    await make(one, **project)
    await one.deliver_batch(evaluation())
    first = await train_next(one, 1)
    second = await train_next(one, 2)
    assert second["promoted"]
    return first["model_version"], second["model_version"]


async def model(one: Running, version: str) -> dict[str, Any]:
    return await ask(one, f"/v1/models/{version}")


async def activate(one: Running, version: str, **body: Any) -> Any:
    return await one.call("POST", f"/v1/models/{version}:activate", json={"reason": "test", **body})


async def no_more_runs(one: Running) -> None:
    answer = await one.call("PUT", "/v1/triggers/default", json={"n": 100_000}, headers={"if-match": '"1"'})
    assert answer.status_code == 200, answer.text


def audited(number: int, version: str, wrong: bool) -> LabelAccepted:
    """An audit label of what the version was sure of."""
    value = label(number).value
    said = ({"dark", "bright"} - {value}).pop() if wrong else value
    top = Top(label=said, confidence=0.99)
    return label(number, is_audit=True, trigger="audit", model_version=version, predicted=top)


async def test_a_share_leaves_the_rest_to_the_previous_version_and_grows(tmp_path: Path) -> None:
    async with running(tmp_path, Rehearsal()) as one:
        first, second = await two_models(one)
        await one.published()
        assert (await activate(one, second, share=0.2)).status_code == 202
        assert (await activate(one, second, share=0.6)).status_code == 202
        assert (await activate(one, second, share=0.6)).json()["activation_epoch"] == 4
        told = [(row["previous"], row["rollout"]["share"]) for row in await one.data(ModelActivated)]
        assert told == [(first, 0.2), (first, 0.6)]
        now = {version: await model(one, version) for version in (first, second)}
        assert (now[second]["labels"], now[second]["share"]) == (["champion"], 0.6)
        assert (now[first]["labels"], now[first]["share"]) == (["previous"], pytest.approx(0.4))
        rolled = await one.call("POST", "/v1/models:rollback", json={"reason": "no good"})
        assert rolled.json()["version"] == first
        assert (await model(one, first))["share"] == 1.0
        assert (await one.call("POST", "/v1/models:rollback", json={})).status_code == 409
        for share in (0, 1.5, -0.1):
            assert (await activate(one, second, share=share)).status_code == 422


async def test_a_share_needs_somebody_to_have_the_rest(tmp_path: Path) -> None:
    async with running(tmp_path, Rehearsal()) as one:
        first = await train_first(one)
        answer = await activate(one, first["model_version"], share=0.5)
        assert (answer.status_code, answer.json()["title"]) == (409, "nothing beside")


async def test_a_promotion_with_a_share_is_whole_after_its_watch(tmp_path: Path) -> None:
    async with running(tmp_path, Rehearsal()) as one:
        _, second = await two_models(one, rollout={"share": 0.25, "watch_seconds": 60})
        assert (await model(one, second))["share"] == 0.25
        one.clock.step(59)
        await settled(one)
        assert (await model(one, second))["share"] == 0.25
        one.clock.step(2)
        await wait_until(lambda: _share(one, second, 1.0))


async def _share(one: Running, version: str, share: float) -> bool:
    return (await model(one, version))["share"] == share


async def test_an_audit_error_above_the_previous_versions_rolls_back(tmp_path: Path) -> None:
    async with running(tmp_path, Rehearsal()) as one:
        first, second = await two_models(one)
        await no_more_runs(one)
        await one.published()
        await one.deliver_batch([audited(number, first, wrong=number % 20 == 0) for number in range(100, 140)])
        await one.deliver_batch([audited(number, second, wrong=number % 20 == 0) for number in range(140, 180)])
        await settled(one)
        assert (await model(one, second))["state"] == "ACTIVE"
        await one.deliver_batch([audited(number, second, wrong=True) for number in range(180, 200)])
        await wait_until(lambda: _share(one, first, 1.0))
        (back,) = await one.data(ModelRolledBack)
        assert (back["version"], back["previous"]) == (first, second)
        assert back["reason"].startswith("audit-error-rose: ")
        await settled(one)
        assert not await one.data(ModelRolledBack)


async def test_after_the_watch_the_audit_no_longer_rolls_back(tmp_path: Path) -> None:
    async with running(tmp_path, Rehearsal()) as one:
        first, second = await two_models(one, rollout={"watch_seconds": 60})
        await no_more_runs(one)
        one.clock.step(61)
        await one.deliver_batch([audited(number, first, wrong=False) for number in range(100, 140)])
        await one.deliver_batch([audited(number, second, wrong=True) for number in range(140, 180)])
        await settled(one)
        assert (await model(one, second))["state"] == "ACTIVE"


async def test_every_replica_acknowledges_the_activation(tmp_path: Path) -> None:
    async with running(tmp_path, Rehearsal()) as one:
        first, second = await two_models(one)
        for who in ("infer-0", "infer-1"):
            await one.deliver(_loaded(who, first, 1))
        await one.deliver(_loaded("infer-0", second, 2))
        shown = await model(one, second)
        assert shown["acknowledged"] == {"serving": ["edge/infer-0"], "waiting": ["edge/infer-1"]}
        await one.deliver(_loaded("infer-1", second, 2))
        assert (await model(one, second))["acknowledged"] == {
            "serving": ["edge/infer-0", "edge/infer-1"],
            "waiting": [],
        }
        assert (await model(one, first))["acknowledged"] is None


def _loaded(who: str, version: str, epoch: int) -> ModelLoaded:
    return ModelLoaded(project="default", site="edge", instance=who, version=version, activation_epoch=epoch)


async def test_a_shadow_stands_beside_the_champion(tmp_path: Path) -> None:
    backend = Rehearsal()
    async with running(tmp_path, backend) as one:
        first = (await train_first(one))["model_version"]
        backend.accuracy = 0.5
        refused = (await train_next(one, 2))["model_version"]
        await one.published()
        path = f"/v1/models/{refused}:shadow"
        assert (await one.call("POST", path, "viewer", json={"reason": "compare"})).status_code == 403
        assert (await one.call("POST", path, json={"reason": "compare"})).json()["activation_epoch"] == 2
        assert (await one.call("POST", path, json={"reason": "again"})).json()["activation_epoch"] == 2
        shown = await model(one, refused)
        assert (shown["state"], shown["labels"], shown["share"]) == ("SHADOW", ["shadow"], 0.0)
        (told,) = await one.data(ModelActivated)
        assert (told["version"], told["shadow"], told["rollout"]["share"]) == (first, refused, 1.0)
        own = await one.call("POST", f"/v1/models/{first}:shadow", json={"reason": "nonsense"})
        assert own.status_code == 409
        assert (await one.call("POST", path, json={"on": False, "reason": "enough"})).json()["shadow"] is None
        assert (await model(one, refused))["state"] == "REJECTED"


async def test_retention_keeps_what_is_in_use_and_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HALFSURE_RETRAIN_TRIGGER_MODELS_KEPT", "1")
    async with running(tmp_path, Rehearsal()) as one:
        await make(one)
        await one.deliver_batch(evaluation())
        versions = [(await train_next(one, count))["model_version"] for count in range(1, 6)]
        rows = {row["version"]: row for row in (await ask(one, "/v1/models"))["items"]}
        assert [version for version in versions if not rows[version]["gone"]] == versions[1:]
        assert rows[versions[0]]["lineage"]["run"]  # what it was stays known
        with pytest.raises(KeyError):
            await one.blobs.get(rows[versions[0]]["artefact"]["uri"])
        for version in versions[1:]:
            assert await one.blobs.get(rows[version]["artefact"]["uri"])
        gone = await activate(one, versions[0])
        assert (gone.status_code, gone.json()["title"]) == (409, "artefact gone")
        compare = f"/v1/models/compare?a={versions[4]}&b={versions[0]}"
        assert (await ask(one, compare))["evaluation_sha256"]
        for expected in (versions[3], versions[2], versions[1]):
            back = await one.call("POST", "/v1/models:rollback", json={"reason": "further"})
            assert back.json()["version"] == expected
        assert (await one.call("POST", "/v1/models:rollback", json={})).status_code == 409


async def test_the_same_artefact_of_the_same_run_is_one_version(tmp_path: Path) -> None:
    async with running(tmp_path, Rehearsal()) as one:
        await make(one)
        registry = Registry(one.service)
        content, manifest = classifier()

        async def register(run: str) -> str:
            version, *files = await registry.package("default", run, content, manifest)
            record = new_record("default", version, *files, at="2026-01-01T00:00:00+00:00", lineage={"run": run})
            await transact(one.service, lambda unit: registry.register(unit, record))
            return version

        versions = [await register(run) for run in ("run_1", "run_1", "run_2", "run_1")]
        assert len(set(versions)) == 2
        assert versions[0] == versions[1] == versions[3]
        rows = (await ask(one, "/v1/models"))["items"]
        assert [row["version"] for row in rows] == [versions[2], versions[0]]
        told = await one.data(ModelRegistered)
        assert [row["version"] for row in told] == [versions[0], versions[2]]


async def test_the_list_has_state_metrics_lineage_and_hash_and_two_are_compared(tmp_path: Path) -> None:
    async with running(tmp_path, Rehearsal()) as one:
        first, second = await two_models(one)
        rows = (await ask(one, "/v1/models"))["items"]
        assert [(row["version"], row["state"], row["labels"]) for row in rows] == [
            (second, "ACTIVE", ["champion"]),
            (first, "PREVIOUS", ["previous"]),
        ]
        for row in rows:
            assert row["artefact"]["sha256"] == sha256(await one.blobs.get(row["artefact"]["uri"]))
            assert row["metrics"]["accuracy"] == 0.9
            assert row["lineage"]["run"]
            assert row["lineage"]["snapshot"]
        assert rows[0]["lineage"]["base"] == first
        found = await ask(one, f"/v1/models/compare?a={second}&b={first}")
        assert found["evaluation_sha256"] == rows[0]["evaluation_sha256"] == rows[1]["evaluation_sha256"]
        assert found["a"]["metrics"].keys() == found["b"]["metrics"].keys()
        assert found["difference"] == found["a"]["metrics"]["accuracy"] - found["b"]["metrics"]["accuracy"]


async def test_models_of_other_evaluation_sets_are_not_compared(tmp_path: Path) -> None:
    async with running(tmp_path, Rehearsal()) as one:
        first = await train_first(one)
        await one.deliver_batch([label(number, "evaluation") for number in range(20, 30)])
        second = await train_next(one, 2)
        answer = await one.call("GET", f"/v1/models/compare?a={first['model_version']}&b={second['model_version']}")
        assert (answer.status_code, answer.json()["title"]) == (409, "different evaluation sets")


async def test_a_refusal_names_the_metric_both_values_the_interval_and_the_margin(tmp_path: Path) -> None:
    backend = Rehearsal()
    async with running(tmp_path, backend) as one:
        await train_first(one)
        backend.accuracy = 0.5
        gate = (await train_next(one, 2))["gate"]
        assert (gate["metric"], gate["candidate"], gate["champion"], gate["margin"]) == ("accuracy", 0.5, 0.6, 0.0)
        assert gate["difference"] == pytest.approx(-0.1)
        assert gate["lower_bound"] < gate["difference"] < gate["upper_bound"]
        (said,) = [reason for reason in gate["reasons"] if reason.startswith("not-better")]
        assert "accuracy 0.500 against 0.600" in said
        assert "difference -0.100" in said
        assert "95 % bounds" in said
        assert "margin +0.000" in said


async def test_a_run_names_its_metric_and_its_model_what_made_it(tmp_path: Path) -> None:
    async with running(tmp_path, Rehearsal()) as one:
        run = await train_first(one)
        assert run["metric"] == {"name": "accuracy", "value": 0.9, "child_run": run["job_id"]}
        lineage = (await model(one, run["model_version"]))["lineage"]
        assert (lineage["run"], lineage["snapshot"]) == (run["run_id"], run["snapshot"]["id"])
        assert (lineage["backend"], lineage["base"]) == ("rehearsal", None)
        assert len(lineage["code"]["sha256"]) == 64


class Silent(Rehearsal):
    """A backend that forgets to say how good its model is."""

    async def outcome(self, job_id: str):
        outcome = await super().outcome(job_id)
        return type(outcome)(outcome.model, outcome.manifest, {**outcome.result, "metrics": None})


async def test_a_missing_metric_fails_the_run(tmp_path: Path) -> None:
    async with running(tmp_path, Silent()) as one:
        await make(one)
        await one.deliver_batch(evaluation())
        run = await train_next(one, 1)
        assert (run["state"], run["model_version"], run["metric"]) == ("FAILED", None, None)
        assert "metrics" in run["error"]
        await asyncio.sleep(0)
        assert not (await ask(one, "/v1/models"))["items"]
        assert len(await runs(one)) == 1
