"""infer: a share of the traffic, sticky by sample, in the stream and by REST; a shadow that nobody hears."""

import base64
import contextlib
from collections import Counter
from pathlib import Path

import pytest
from conftest import Running, started, wait_until
from inferring import inferring, model, samples, serve
from worlds import png, project

from services.contracts.events import (
    Content,
    ModelActivated,
    ModelRegistered,
    ModelRolledBack,
    ProjectUpdated,
    SampleScored,
    ScoresSummarised,
)
from services.infer.app import create
from services.infer.rollout import chosen
from services.runtime.ports import Ports

SHARE = 0.3


async def canary(running: Running, share: float = SHARE, epoch: int = 2, **more: str) -> dict[str, Content]:
    """`mdl_2` gets a share, `mdl_1` keeps the rest."""
    source = await model(running, 20.0)
    event = {"version": "mdl_2", "previous": "mdl_1", "activation_epoch": epoch, "rollout": {"share": share}, **more}
    await running.deliver(ModelActivated(project="default", **event, **source))
    await wait_until(lambda: shares(running, {"mdl_2": share, "mdl_1": 1 - share}))
    return source


async def shares(running: Running, wanted: dict[str, float]) -> bool:
    items = (await running.call("GET", "/v1/loaded-models")).json()["items"]
    found = {row["version"]: row["share"] for row in items if row["share"]}
    return found == pytest.approx({version: share for version, share in wanted.items() if share})


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_a_share_of_10_000_samples_is_kept_to_two_percent_and_only_grows(share: float) -> None:
    """Row 0.12: the share within two percent, and a sample's side stays as the share grows."""
    ids = [f"smp_{number:x}" for number in range(10_000)]
    side = {sample for sample in ids if chosen(sample, "mdl_2", share)}
    assert len(side) / len(ids) == pytest.approx(share, abs=0.02)
    assert side <= {sample for sample in ids if chosen(sample, "mdl_2", share + 0.1)}
    assert all(chosen(sample, "mdl_2", 1.0) for sample in ids)
    assert side != {sample for sample in ids if chosen(sample, "mdl_3", share)}


async def test_a_share_of_the_stream_and_of_requests_is_the_new_versions_and_sticks(tmp_path: Path) -> None:
    async with inferring(tmp_path) as running:
        await serve(running, await model(running))
        await canary(running)
        contents = [png(shade, corner) for shade in (30, 220) for corner in range(100)]
        events = await samples(running, contents)
        await running.deliver_batch(events)
        side = {row["sample_id"]: row["model_version"] for row in await running.data(SampleScored)}
        expected = {one.sample_id: "mdl_2" if chosen(one.sample_id, "mdl_2", SHARE) else "mdl_1" for one in events}
        assert side == expected
        assert Counter(side.values())["mdl_2"] / len(side) == pytest.approx(SHARE, abs=0.1)
        ids = [one.sample_id for one in events]
        answer = (await running.call("POST", "/v1/predict", json={"sample_ids": ids})).json()
        said = {sample: row["model_version"] for sample, row in zip(ids, answer["predictions"], strict=True)}
        assert said == expected
        for sample in ids[:20]:
            one = (await running.call("POST", "/v1/predict", json={"sample_id": sample})).json()
            assert one["model_version"] == one["predictions"][0]["model_version"] == expected[sample]
        # Content that is not stored is on a side too, and always on the same one.
        body = {"inputs": [{"data": base64.b64encode(one).decode(), "media_type": "image/png"} for one in contents]}
        twice = [(await running.call("POST", "/v1/predict", json=body)).json()["predictions"] for _ in range(2)]
        assert twice[0] == twice[1]
        assert {row["model_version"] for row in twice[0]} == {"mdl_1", "mdl_2"}
        assert [row["label"] for row in twice[0]] == ["dark"] * 100 + ["bright"] * 100
        both = await running.call("POST", "/v1/models/mdl_1:unload")
        assert (both.status_code, both.json()["title"]) == (409, "active")


async def test_a_share_outlives_a_restart_and_grows_until_all_is_the_new_versions(tmp_path: Path, ports: Ports) -> None:
    async with inferring(tmp_path, ports=ports) as running:
        await serve(running, await model(running))
        await canary(running)
    async with started(create, tmp_path, ports=ports) as again:
        assert await shares(again, {"mdl_2": SHARE, "mdl_1": 1 - SHARE})
        await canary(again, 0.6, 3)
        source = await canary(again, 1.0, 4)
        back = ModelRolledBack(project="default", version="mdl_1", activation_epoch=5, **await model(again))
        await again.deliver(back)
        await wait_until(lambda: shares(again, {"mdl_1": 1.0}))
        assert source


async def test_without_the_previous_version_the_new_one_serves_alone(tmp_path: Path) -> None:
    async with inferring(tmp_path) as running:
        event = {"version": "mdl_2", "previous": "mdl_lost", "activation_epoch": 1, "rollout": {"share": 0.2}}
        await running.deliver(ModelActivated(project="default", **event, **await model(running)))
        await wait_until(lambda: shares(running, {"mdl_2": 1.0}))


async def test_a_shadow_is_asked_and_not_heard(tmp_path: Path) -> None:
    async with inferring(tmp_path) as running:
        assert (await running.call("GET", "/v1/shadow")).status_code == 404
        source = await model(running)
        await serve(running, source)
        other = await model(running, -8.0)  # says the opposite
        await running.deliver(ModelRegistered(project="default", version="mdl_2", **other))
        event = {"version": "mdl_1", "previous": "mdl_1", "activation_epoch": 2, "shadow": "mdl_2"}
        await running.deliver(ModelActivated(project="default", **event, **source))

        async def shadowed() -> bool:
            return (await running.call("GET", "/v1/shadow")).status_code == 200

        await wait_until(shadowed)
        await running.published()
        await running.deliver_batch(await samples(running, [png(shade, 3) for shade in range(0, 60, 2)]))
        heard = await running.data(SampleScored)
        assert {row["model_version"] for row in heard} == {"mdl_1"}
        assert len(heard) == 30
        found: dict = {}

        async def counted() -> bool:
            found.update((await running.call("GET", "/v1/shadow")).json())
            return found["samples"] == 30

        await wait_until(counted)
        assert found["version"] == "mdl_2"
        assert found["agreed"] == 0
        assert found["pairs"] == [{"counted": "dark", "shadow": "bright", "samples": 30, "agreed": 0}]


@contextlib.asynccontextmanager
async def _two(tmp_path: Path, ports: Ports):
    async with inferring(tmp_path, ports=ports) as one:
        (tmp_path / "two").mkdir()
        async with started(create, tmp_path / "two", ports=ports, replica=1) as two:
            yield one, two


async def test_every_replica_is_of_one_mind_about_a_sample(tmp_path: Path, ports: Ports) -> None:
    async with _two(tmp_path, ports) as (one, two):
        await serve(one, await model(one))
        await canary(one)
        await wait_until(lambda: shares(two, {"mdl_2": SHARE, "mdl_1": 1 - SHARE}))
        events = await samples(one, [png(40, corner) for corner in range(40)])
        await one.deliver_batch(events)
        body = {"sample_ids": [event.sample_id for event in events]}
        sides = []
        for replica in (one, two):
            answer = (await replica.call("POST", "/v1/predict", json=body)).json()
            sides.append([row["model_version"] for row in answer["predictions"]])
        assert sides[0] == sides[1]


async def test_a_watched_projects_scores_are_summarised_and_no_others(tmp_path: Path) -> None:
    async with inferring(tmp_path) as running:
        await serve(running, await model(running))
        await running.deliver_batch(await samples(running, [png(shade, 1) for shade in range(0, 80, 2)]))
        running.clock.step(60)
        document = (await project(running.blobs, revision=2)).document
        changed = {**document, "trigger": {"drift": {"window": 100}}}
        await running.deliver(ProjectUpdated(project="default", revision=2, document=changed))
        await running.published()
        await running.deliver_batch(await samples(running, [png(shade, 2) for shade in range(0, 80, 2)]))
        said: list = []

        async def told() -> bool:
            running.clock.step(31)
            said.extend(await running.data(ScoresSummarised))
            return bool(said)

        await wait_until(told)
        assert said[0]["model_version"] == "mdl_1"
        assert said[0]["samples"] == sum(said[0]["confidence"]) == 40
        assert len(said[0]["confidence"]) == 20
