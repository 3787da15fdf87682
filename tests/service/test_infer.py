"""infer: cold start, scoring in batches, hot swap, broken artefacts, restarts, rescoring, predictions."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Running, started, wait_until
from inferring import Story, activated, ask, inferring, model, of, samples, serve, serving
from worlds import classifier, packaged, png, stored

from services.contracts.events import (
    ModelLoaded,
    ModelLoadFailed,
    ModelRegistered,
    ModelRolledBack,
    RescoreRequested,
    SampleIngested,
    SampleScored,
    SampleScoringFailed,
    SampleWithdrawn,
)
from services.contracts.ids import sha256
from services.contracts.inputs import InputSpec
from services.infer.app import create
from services.runtime.errors import Unavailable
from services.runtime.memory import MemoryPeers
from services.runtime.ports import Ports


async def test_cold_start_scores_with_the_extractor(tmp_path: Path) -> None:
    async with inferring(tmp_path) as running:
        events = await samples(running, [png(0, 1), png(200, 7)])
        assert set(await running.deliver_batch(events)) == {"SUCCESS"}
        scored = await running.data(SampleScored)
        assert [row["sample_id"] for row in scored] == [event.sample_id for event in events]
        for number, row in enumerate(scored):
            assert row["model_version"] == "none"
            assert not row["probabilities"]
            assert "top" not in row
            assert row["content"] == events[number].content.model_dump()
            assert row["embedding_ref"]["row"] == number
        ref = scored[0]["embedding_ref"]
        block = np.frombuffer(await running.blobs.get(ref["uri"]), "<f4").reshape(2, ref["dim"])
        assert np.isfinite(block).all()
        assert ref["uri"].endswith(f"{sha256(block.tobytes())}.f32")
        refused = await ask(running, png(0))
        assert (refused.status_code, refused.json()["title"]) == (503, "not ready")
        assert (await ask(running, png(0), model_version="none")).status_code == 503


async def test_what_was_said_of_a_sample_goes_with_its_scores(tmp_path: Path) -> None:
    """Policies ask about it: time, stream, attributes and tags."""
    async with inferring(tmp_path) as running:
        (event,) = await samples(running, [png(3)])
        told = {"stream_id": "gate", "attributes": {"t": 7, "note": "x"}, "tags": ["night"]}
        await running.deliver(event.model_copy(update=told))
        (row,) = await running.data(SampleScored)
        assert {name: row[name] for name in told} == told
        assert row["captured_at"] == event.model_dump(mode="json")["captured_at"]


async def test_a_thousand_deliveries_change_nothing(tmp_path: Path) -> None:
    async with inferring(tmp_path) as running:
        (event,) = await samples(running, [png(3)])
        for _ in range(5):
            assert set(await running.deliver_batch([event] * 200)) == {"SUCCESS"}
        await asyncio.gather(*(running.deliver(event) for _ in range(20)))
        assert len(await running.data(SampleScored)) == 1
        rows = len(running.state.rows())
        await running.deliver(event)
        assert len(running.state.rows()) == rows


async def test_a_bulk_is_one_block_and_one_transaction(tmp_path: Path) -> None:
    async with inferring(tmp_path) as running:
        await serve(running, await model(running))
        await running.published()
        commits, written = [], []
        commit, put = running.state.commit, running.blobs.put

        async def committing(ops: Any) -> None:
            commits.extend(["prd"] if any(op.key.startswith("prd:") for op in ops) else [])
            await commit(ops)

        async def putting(name: str, content: bytes) -> str:
            written.append(name)
            return await put(name, content)

        events = await samples(running, [png(n) for n in range(200)])
        running.state.commit, running.blobs.put = committing, putting  # type: ignore[method-assign]
        await running.deliver_batch(events)
        assert (len(commits), len(written)) == (1, 1)
        scored = await running.data(SampleScored)
        assert len(scored) == 200
        for row in scored:
            assert sum(row["probabilities"]) == pytest.approx(1, abs=1e-5)
            assert row["top"]["label"] == row["labels"][int(np.argmax(row["probabilities"]))]
            assert set(row["scores"]) == {"least_confidence", "margin", "entropy"}
            assert row["provider"] == "CPUExecutionProvider"
        assert [row["top"]["label"] for row in (scored[0], scored[199])] == ["dark", "bright"]


async def test_unreadable_content_goes_to_a_person(tmp_path: Path) -> None:
    async with inferring(tmp_path) as running:
        await serve(running, await model(running))
        await running.published()
        good, corrupt, lost, changed = await samples(running, [png(1), png(2)[:30], png(3), png(4)])
        await running.blobs.delete(lost.content.uri)
        running.blobs.contents[changed.content.uri] = png(5)
        for _ in range(2):
            assert set(await running.deliver_batch([corrupt, good, lost, changed])) == {"SUCCESS"}
        story = await running.published()
        assert [row["sample_id"] for row in of(SampleScored, story)] == [good.sample_id]
        failed = {row["sample_id"]: (row["error"], row["retryable"]) for row in of(SampleScoringFailed, story)}
        assert failed == {
            corrupt.sample_id: ("unreadable", False),
            lost.sample_id: ("content-missing", False),
            changed.sample_id: ("content-hash", False),
        }


async def test_hot_swap_under_load_fails_nobody(tmp_path: Path) -> None:
    async with inferring(tmp_path) as running:
        sources = [await model(running, sharpness) for sharpness in (4.0, 8.0)]
        await serve(running, sources[0])
        statuses: list[int] = []
        versions: set[str] = set()
        stop = asyncio.Event()

        async def keep_asking() -> None:
            while not stop.is_set():
                answer = await ask(running, png(40), png(220))
                statuses.append(answer.status_code)
                if answer.status_code == 200:
                    versions.add(answer.json()["model_version"])
                    assert [row["label"] for row in answer.json()["predictions"]] == ["dark", "bright"]

        asking = [asyncio.create_task(keep_asking()) for _ in range(4)]
        for epoch in range(2, 8):
            await serve(running, sources[epoch % 2], f"mdl_{epoch}", epoch)
        stop.set()
        await asyncio.gather(*asking)
        assert set(statuses) == {200}
        assert len(statuses) > 20
        assert {"mdl_1", "mdl_7"} & versions
        loaded = [(row["version"], row["activation_epoch"]) for row in await running.data(ModelLoaded)]
        assert loaded == [(f"mdl_{epoch}", epoch) for epoch in range(1, 8)]
        held = (await running.call("GET", "/v1/loaded-models")).json()["items"]
        assert len(held) <= 3


@pytest.mark.parametrize("fault", ["bytes", "hash", "missing", "manifest", "other manifest", "labels", "shape", "nan"])
async def test_a_broken_artefact_leaves_the_old_one_serving(tmp_path: Path, fault: str) -> None:
    async with inferring(tmp_path) as running:
        await serve(running, await model(running))
        await running.published()
        content, manifest = classifier(5.0)
        if fault == "bytes":
            content = content[:-40]
            manifest = manifest.model_copy(update={"sha256": sha256(content)})
        if fault == "labels":
            manifest = manifest.model_copy(update={"labels": ("a", "b", "c")})
        if fault == "shape":
            manifest = manifest.model_copy(update={"input": InputSpec.image(4, 4, 1)})
        if fault == "nan":
            content, manifest = classifier(float("nan"))
        source = await packaged(running.blobs, "default", content, manifest)
        if fault == "hash":
            running.blobs.contents[source["artefact"].uri] = b"something else"
        if fault == "missing":
            await running.blobs.delete(source["artefact"].uri)
        if fault == "manifest":
            source["manifest"] = await stored(
                running.blobs, "models/default/x.json", b'{"task": 1}', "application/json"
            )
        if fault == "other manifest":
            source["manifest"] = (await model(running, 9.0))["manifest"]
        await running.deliver(activated(source, "mdl_2", 2))
        failed: Story = []

        async def told() -> bool:
            failed.extend(await running.published())
            return bool(of(ModelLoadFailed, failed))

        await wait_until(told)
        (event,) = of(ModelLoadFailed, failed)
        assert (event["version"], event["activation_epoch"]) == ("mdl_2", 2)
        assert event["error"]
        assert (await ask(running, png(0))).json()["model_version"] == "mdl_1"
        await serve(running, await model(running, 6.0), "mdl_3", 3)


async def test_a_stale_epoch_is_ignored_and_a_rollback_is_an_epoch_of_its_own(tmp_path: Path) -> None:
    async with inferring(tmp_path) as running:
        old, new = await model(running, 4.0), await model(running, 8.0)
        await serve(running, new, "mdl_new", 5)
        for _ in range(3):
            assert await running.deliver(activated(old, "mdl_old", 4), activated(old, "mdl_old", 5)) == ["SUCCESS"] * 2
        await asyncio.sleep(0.6)
        assert await serving(running, "mdl_new")
        back = ModelRolledBack(project="default", version="mdl_old", activation_epoch=6, previous="mdl_new", **old)
        await running.deliver(back)
        await wait_until(lambda: serving(running, "mdl_old"))


async def test_a_restart_serves_the_same_version(tmp_path: Path, ports: Ports) -> None:
    async with inferring(tmp_path, ports=ports) as running:
        await serve(running, await model(running), "mdl_1", 1)
        before = (await ask(running, png(77))).json()
        broken = await packaged(running.blobs, "default", *classifier(3.0))
        await running.blobs.delete(broken["artefact"].uri)
        await running.deliver(activated(broken, "mdl_2", 2))
    (tmp_path / "models" / f"{classifier()[1].sha256}.onnx").write_bytes(b"rotten")  # the folder is not believed
    async with started(create, tmp_path, ports=ports) as again:
        assert (await ask(again, png(77))).json() == before
        (event,) = await samples(again, [png(12)])
        await again.deliver(event)
        assert (await again.data(SampleScored))[-1]["model_version"] == "mdl_1"


async def test_after_a_start_it_hears_of_an_activation_that_was_in_hand_at_a_kill(tmp_path: Path, ports: Ports) -> None:
    """The broker hands the event out again after a minute; whoever owns the projects says at once what is to serve."""
    told: dict[str, Any] = {}

    def answer(path: str, params: Mapping[str, str]) -> Any:
        if not told:
            raise Unavailable("it is being started")
        if path == "v1/activation" and params == {"project": "default"}:
            return told
        raise KeyError(path)

    async with inferring(tmp_path, ports=ports) as running:
        await serve(running, await model(running), "mdl_1", 1)
        second = activated(await model(running, sharpness=3.0), "mdl_2", 2)
    ports.peers = MemoryPeers({"retrain-trigger": answer})
    async with started(create, tmp_path, ports=ports) as again:
        assert await serving(again, "mdl_1")
        told.update(second.model_dump(mode="json"))
        await wait_until(lambda: serving(again, "mdl_2"))
        await again.deliver(second)
        (event,) = await samples(again, [png(12)])
        await again.deliver(event)
        assert (await again.data(SampleScored))[-1]["model_version"] == "mdl_2"


async def test_another_replica_swaps_too(tmp_path: Path, ports: Ports) -> None:
    async with inferring(tmp_path, ports=ports) as one:
        (tmp_path / "two").mkdir()
        async with started(create, tmp_path / "two", ports=ports, replica=1) as two:
            await serve(one, await model(one))
            await wait_until(lambda: serving(two, "mdl_1"))
            await two.service.outbox.drain()
            instances = {row["instance"] for row in await one.data(ModelLoaded)}
            assert len(instances) == 2
            events = await samples(one, [png(n) for n in range(50)])
            await asyncio.gather(one.deliver_batch(events), two.deliver_batch(events))
            await two.service.outbox.drain()
            assert len(await one.data(SampleScored)) == 50


async def test_a_registered_model_is_prefetched_and_loaded_by_name(tmp_path: Path) -> None:
    async with inferring(tmp_path) as running:
        await serve(running, await model(running))
        other = await model(running, 6.0)
        assert (await ask(running, png(0), model_version="mdl_2")).status_code == 404
        await running.deliver(ModelRegistered(project="default", version="mdl_2", **other))

        async def prefetched() -> bool:
            return (await ask(running, png(0), model_version="mdl_2")).status_code == 200

        await wait_until(prefetched)
        assert await serving(running, "mdl_1")
        assert (await running.call("POST", "/v1/models/mdl_1:unload")).status_code == 409
        assert (await running.call("POST", "/v1/models/mdl_2:unload")).status_code == 202
        assert (await ask(running, png(0), model_version="mdl_2")).status_code == 409
        assert (await running.call("POST", "/v1/models/mdl_2:load")).status_code == 202
        assert (await ask(running, png(0), model_version="mdl_2")).status_code == 200
        assert (await running.call("POST", "/v1/models/mdl_9:load")).status_code == 404
        assert (await running.call("POST", "/v1/models/mdl_9:unload")).status_code == 404
        broken = {**(await model(running, 7.0)), "manifest": other["manifest"]}
        await running.deliver(ModelRegistered(project="default", version="mdl_3", **broken))
        assert (await running.call("POST", "/v1/models/mdl_3:load")).status_code == 422
        assert await serving(running, "mdl_1")
        body = (await running.call("GET", "/v1/loaded-models")).json()
        assert body["rss_bytes"] > 1 << 20
        assert (await running.call("POST", "/v1/models/mdl_2:load", role="viewer")).status_code == 403


async def test_predictions_name_what_is_wrong(tmp_path: Path) -> None:
    async with inferring(tmp_path) as running:
        await serve(running, await model(running))
        answer = (await ask(running, png(0), png(255))).json()
        assert answer["model_version"] == "mdl_1"
        assert [row["label"] for row in answer["predictions"]] == answer["labels"] == ["dark", "bright"]
        assert answer["predictions"][0]["confidence"] == max(answer["predictions"][0]["probabilities"])
        bad = await ask(running, png(0), png(1)[:40], png(2))
        assert bad.status_code == 422
        assert [fault["pointer"] for fault in bad.json()["errors"]] == ["/inputs/1"]
        body = {"inputs": [{"row": {"a": 1}}]}
        for wrong, status in (
            (body, 422),
            ({}, 422),
            ({"inputs": []}, 422),
            ({"inputs": [{"data": "§", "media_type": "image/png"}]}, 422),
            ({"inputs": [{"data": ""}]}, 422),
            ({"inputs": [{"row": {}, "sample_id": "x"}]}, 422),
            ({"sample_id": "x", "colour": 1}, 422),
        ):
            assert (await running.call("POST", "/v1/predict", json=wrong)).status_code == status, wrong
        (event,) = await samples(running, [png(250)])
        await running.deliver(event)
        stored_one = await running.call("POST", "/v1/predict", json={"sample_id": event.sample_id})
        assert stored_one.json()["predictions"][0]["label"] == "bright"
        assert (await running.call("POST", "/v1/predict?project=nope", json=body)).status_code == 404


async def test_a_sample_of_elsewhere_is_asked_of_ingest(tmp_path: Path, ports: Ports) -> None:
    rows: dict[str, Any] = {}

    def answer(path: str, _: Any) -> Any:
        return rows[path.rpartition("/")[2]]

    ports.peers = MemoryPeers({"ingest": answer})
    async with inferring(tmp_path, ports=ports) as running:
        await serve(running, await model(running))
        (event,) = await samples(running, [png(250)])
        unknown = await running.call("POST", "/v1/predict", json={"sample_ids": [event.sample_id]})
        assert unknown.status_code == 404
        rows[event.sample_id] = {"content": event.content.model_dump()}
        known = await running.call("POST", "/v1/predict", json={"sample_ids": [event.sample_id]})
        assert known.json()["predictions"][0]["label"] == "bright"


async def finished(running: Running, name: str) -> dict[str, Any] | None:
    job = (await running.call("GET", f"/v1/rescore/{name}")).json()
    return job if job["state"] in ("DONE", "FAILED") else None


async def test_rescoring_tells_every_sample_once_and_resumes_after_a_crash(tmp_path: Path, ports: Ports) -> None:
    async with inferring(tmp_path, ports=ports) as running:
        events = await samples(running, [png(n % 250, n // 250) for n in range(400)])
        await running.deliver_batch(events)
        await running.deliver(SampleWithdrawn(project="default", sample_id=events[0].sample_id, who="w", why="privacy"))
        await running.published()
        ids = [event.sample_id for event in events]
        request = {"project": "default", "rescore_id": "rsc_1", "model_version": "mdl_1"}
        parts = [
            RescoreRequested.model_validate({**request, "part": part, "sample_ids": ids[part * 200 :][:200]})
            for part in range(2)
        ]
        for _ in range(3):
            assert set(await running.deliver_batch(parts)) == {"SUCCESS"}
        assert not of(SampleScored, await running.published())
        commit, calls = running.state.commit, []

        async def failing(ops: Any) -> None:
            """The store takes no predictions from the second chunk on, for as long as this replica lives."""
            if any(op.key.startswith("prd:") for op in ops):
                calls.append(1)
                if len(calls) > 1:
                    raise ConnectionError("gone")
            await commit(ops)

        running.state.commit = failing  # type: ignore[method-assign]
        entry = activated(await model(running))
        await running.deliver(entry)
        await wait_until(lambda: len(calls) > 1)
        first = of(SampleScored, await running.published())
        assert len(first) in (127, 128)
    running.state.commit = commit  # type: ignore[method-assign]
    running.clock.step(60)
    async with started(create, tmp_path, ports=ports) as again:
        await wait_until(lambda: finished(again, "rsc_1.0"))
        await wait_until(lambda: finished(again, "rsc_1.1"))
        rest = of(SampleScored, await again.published())
        told = [row["sample_id"] for row in [*first, *rest]]
        assert sorted(set(told)) == sorted(ids[1:])
        assert len(told) == len(set(told))
        assert {(row["model_version"], row["rescore_id"]) for row in rest} == {("mdl_1", "rsc_1")}
        job = await finished(again, "rsc_1.0")
        assert (job["done"], job["unknown"], job["total"]) == (199, 1, 200)


async def test_rescoring_by_rest(tmp_path: Path, ports: Ports) -> None:
    listed: list[SampleIngested] = []

    def answer(path: str, params: Mapping[str, str]) -> Any:
        assert params["tag"] == "night"
        start = int(params.get("cursor", "0"))
        rows = [{"sample_id": e.sample_id, "content": e.content.model_dump()} for e in listed[start : start + 40]]
        return {"items": rows, "cursor": str(start + 40) if start + 40 < len(listed) else None}

    ports.peers = MemoryPeers({"ingest": answer})
    async with inferring(tmp_path, ports=ports) as running:
        await serve(running, await model(running))
        listed += await samples(running, [png(n) for n in range(100)])
        ids = [event.sample_id for event in listed]
        await running.deliver_batch(listed[:10])
        await running.published()
        body = {"model_version": "mdl_1", "sample_ids": ids[:10]}
        read, both_asked = running.blobs.get_all, asyncio.Event()

        async def held(uris: Sequence[str]) -> list[bytes | None]:
            await both_asked.wait()
            return await read(uris)

        running.blobs.get_all = held  # type: ignore[method-assign]
        job = await running.call("POST", "/v1/rescore", json=body)
        assert job.status_code == 202
        assert (await running.call("POST", "/v1/rescore", json=body)).status_code == 409
        both_asked.set()
        await wait_until(lambda: finished(running, job.json()["id"]))
        assert len(await running.data(SampleScored)) == 10  # said again, for whoever asked
        assert (await running.call("POST", "/v1/rescore", json=body)).status_code == 202
        by_filter = await running.call(
            "POST", "/v1/rescore", json={"model_version": "mdl_1", "filter": {"tag": "night"}}
        )
        await wait_until(lambda: finished(running, by_filter.json()["id"]))
        assert (await finished(running, by_filter.json()["id"]))["done"] == 100  # type: ignore[index]
        assert {row["sample_id"] for row in await running.data(SampleScored)} == set(ids)
        for wrong, status in (
            ({"model_version": "mdl_9", "sample_ids": ids}, 404),
            ({"model_version": "mdl_1"}, 422),
            ({"model_version": "mdl_1", "filter": {"colour": "red"}}, 422),
            ({"model_version": "mdl_1", "filter": {"from": "2026-01-01T00:00:00"}}, 422),
        ):
            assert (await running.call("POST", "/v1/rescore", json=wrong)).status_code == status, wrong
        assert (await running.call("GET", "/v1/rescore/rsc_none")).status_code == 404


async def test_a_rescoring_does_not_wait_for_ever(tmp_path: Path) -> None:
    async with inferring(tmp_path) as running:
        (event,) = await samples(running, [png(1)])
        await running.deliver(event)
        request = {"project": "default", "rescore_id": "rsc_1", "part": 0, "model_version": "mdl_never"}
        await running.deliver(RescoreRequested.model_validate({**request, "sample_ids": [event.sample_id]}))
        await asyncio.sleep(0.5)
        assert await finished(running, "rsc_1.0") is None
        running.clock.step(601)
        job = await wait_until(lambda: finished(running, "rsc_1.0"))
        assert (job["state"], "mdl_never" in job["detail"]) == ("FAILED", True)


async def test_a_withdrawn_sample_is_not_scored_in_any_order(tmp_path: Path) -> None:
    async with inferring(tmp_path) as running:
        await serve(running, await model(running))
        await running.published()
        (event,) = await samples(running, [png(1)])
        await running.deliver(SampleWithdrawn(project="default", sample_id=event.sample_id, who="w", why="privacy"))
        await running.deliver(event)
        assert await running.data(SampleScored) == []
        assert (await running.call("POST", "/v1/predict", json={"sample_id": event.sample_id})).status_code == 404


async def test_an_unknown_project_is_dropped_and_the_others_are_scored(tmp_path: Path) -> None:
    async with inferring(tmp_path) as running:
        (event,) = await samples(running, [png(1)])
        stranger = event.model_copy(update={"project": "nope", "sample_id": "smp_other"})
        assert await running.deliver_batch([stranger, event]) == ["DROP", "SUCCESS"]
        assert len(await running.data(SampleScored)) == 1


async def test_a_blob_store_that_is_down_is_no_broken_model(tmp_path: Path) -> None:
    async with inferring(tmp_path) as running:
        await serve(running, await model(running))
        source = await model(running, 5.0)
        get, tries = running.blobs.get, []

        async def down(uri: str) -> bytes:
            tries.append(uri)
            raise ConnectionError("no route")

        running.blobs.get = down  # type: ignore[method-assign]
        await running.deliver(activated(source, "mdl_2", 2))
        await wait_until(lambda: len(tries) > 1)
        assert (await ask(running, png(0))).json()["model_version"] == "mdl_1"
        running.blobs.get = get  # type: ignore[method-assign]
        await wait_until(lambda: serving(running, "mdl_2"))
        assert not of(ModelLoadFailed, await running.published())


async def test_a_job_that_cannot_go_on_lets_the_others_pass(tmp_path: Path) -> None:
    async with inferring(tmp_path) as running:
        await serve(running, await model(running))
        (event,) = await samples(running, [png(1)])
        await running.deliver(event)
        stuck = await running.call("POST", "/v1/rescore", json={"model_version": "mdl_1", "filter": {}})
        body = {"model_version": "mdl_1", "sample_ids": [event.sample_id]}
        other = await running.call("POST", "/v1/rescore", json=body)
        job = await wait_until(lambda: finished(running, other.json()["id"]))
        assert (job["state"], job["done"]) == ("DONE", 1)
        assert await finished(running, stuck.json()["id"]) is None


async def test_the_first_provider_that_is_there_serves_and_says_so(
    tmp_path: Path, monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Rows 0.5 and 4.12: an ordered list; what this machine lacks is warned of once, and the CPU serves."""
    monkeypatch.setenv("HALFSURE_INFER_PROVIDERS", '["CUDAExecutionProvider", "CPUExecutionProvider"]')
    async with inferring(tmp_path) as running:
        with caplog.at_level("WARNING", logger="services.infer.model"):
            await serve(running, await model(running))
            await serve(running, await model(running, 4.0), "mdl_2", 2)
            warnings = [row.getMessage() for row in caplog.records if "CUDAExecutionProvider" in row.getMessage()]
        assert len(warnings) == 1
        await running.published()
        await running.deliver_batch(await samples(running, [png(7)]))
        (scored,) = await running.data(SampleScored)
        loaded = (await running.call("GET", "/v1/loaded-models")).json()["items"]
        answer = (await ask(running, png(8))).json()
        told = {scored["provider"], answer["provider"], *(row["provider"] for row in loaded if row["active"])}
        assert told == {"CPUExecutionProvider"}


async def test_what_was_said_of_a_withdrawn_sample_goes_with_its_embedding(tmp_path: Path) -> None:
    async with inferring(tmp_path) as running:
        gone, kept = (
            event.model_copy(update={"attributes": {"person": name}, "tags": [name]})
            for event, name in zip(await samples(running, [png(1), png(2)]), ("anna", "bert"), strict=True)
        )
        await running.deliver_batch([gone, kept])
        await serve(running, await model(running))
        ids = [gone.sample_id, kept.sample_id]
        request = {"project": "default", "rescore_id": "rsc_1", "part": 0, "model_version": "mdl_1"}
        await running.deliver(RescoreRequested.model_validate({**request, "sample_ids": ids}))
        await wait_until(lambda: finished(running, "rsc_1.0"))
        scored = await running.data(SampleScored)
        assert {(row["sample_id"], row["model_version"]) for row in scored} == {
            (sample, version) for sample in ids for version in ("none", "mdl_1")
        }
        withdrawal = SampleWithdrawn(project="default", sample_id=gone.sample_id, who="w", why="privacy")
        for _ in range(2):
            await running.deliver(withdrawal)
        rows = {key: str(value) for key, value in (await running.records()).items()}
        assert not [key for key, value in rows.items() if "anna" in value]
        assert [key for key, value in rows.items() if "bert" in value], "the other one's are kept"
        for row in scored:
            ref = row["embedding_ref"]
            block = np.frombuffer(await running.blobs.get(ref["uri"]), "<f4").reshape(-1, ref["dim"])
            assert block[ref["row"]].any() == (row["sample_id"] == kept.sample_id)


async def test_a_withdrawal_while_the_sample_is_scored_wins(tmp_path: Path) -> None:
    """Whoever is about to write what a model said looks again, and finds the sample gone."""
    async with inferring(tmp_path) as running:
        await serve(running, await model(running))
        await running.published()
        (event,) = await samples(running, [png(1)])
        read, held = running.blobs.get_all, [event.content.uri]

        async def slow(uris: Sequence[str]) -> list[bytes | None]:
            if held and held[0] in uris:
                held.clear()
                withdrawal = {"project": "default", "sample_id": event.sample_id, "who": "w", "why": "privacy"}
                await running.deliver(SampleWithdrawn.model_validate(withdrawal))
            return await read(uris)

        running.blobs.get_all = slow  # type: ignore[method-assign]
        await running.deliver(event)
        assert not held
        assert await running.data(SampleScored) == []
        assert (await running.records())[f"prd:default:{event.sample_id}:mdl_1"]["state"] == "WITHDRAWN"
