"""ingest: every way in, every refusal, identity, lists, history, withdrawal."""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import SIDECAR_TOKEN, Running, started, wait_until
from worlds import png, project

from services.contracts.events import (
    LabelAccepted,
    ModelActivated,
    SampleIngested,
    SampleRejected,
    SampleScored,
    SampleWithdrawn,
    Top,
)
from services.contracts.ids import sample_id, sha256
from services.contracts.inputs import InputSpec, TabularColumn
from services.ingest.app import create
from services.ingest.windows import Stream
from services.runtime.ports import CREATE, Ports, Put

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@contextlib.asynccontextmanager
async def ingesting(tmp_path: Path, **kwargs: Any) -> AsyncIterator[Running]:
    async with started(create, tmp_path, **kwargs) as running:
        await running.deliver(await project(running.blobs))
        await running.deliver(await project(running.blobs, "table", "tabular"))
        yield running


async def send(running: Running, content: bytes, path: str = "/v1/samples", **headers: str) -> Any:
    kind = {"content-type": headers.pop("kind", "image/png")}
    return await running.call("POST", path, content=content, headers={**kind, **headers})


def in_base64(content: bytes, **more: Any) -> dict[str, Any]:
    return {"data": base64.b64encode(content).decode(), "media_type": "image/png", **more}


async def stats(running: Running, name: str = "default") -> dict[str, Any]:
    return (await running.call("GET", f"/v1/stats?project={name}")).json()


async def test_every_way_in_is_one_sample_by_content(tmp_path: Path) -> None:
    async with ingesting(tmp_path) as running:
        picture = png(10)
        first = await send(running, picture)
        assert first.status_code == 201
        sample = first.json()["sample_id"]
        assert sample == sample_id("default", sha256(picture))
        assert first.headers["location"].startswith(f"/v1/samples/{sample}")
        files = {"file": ("a.png", picture, "image/png")}
        uri = await running.blobs.put("uploads/default/a", picture)
        claim = {"uri": uri, "sha256": sha256(picture), "bytes": len(picture), "media_type": "image/png"}
        others = [
            await running.call("POST", "/v1/samples", files=files, data={"meta": json.dumps({"tags": ["x"]})}),
            await running.call("POST", "/v1/samples", json=in_base64(picture)),
            await running.call("POST", "/v1/samples", json={"content": claim}),
            await send(running, picture, kind="application/octet-stream"),
        ]
        assert [(answer.status_code, answer.json()["sample_id"]) for answer in others] == [(200, sample)] * 4
        events = [envelope for _, envelope in await running.published()]
        assert [e["data"]["sample_id"] for e in events if e["type"] == SampleIngested.type] == [sample]
        rejected = [e["data"] for e in events if e["type"] == SampleRejected.type]
        assert [(row["reason"], row["of_sample_id"]) for row in rejected] == [("duplicate", sample)] * 4
        assert (await stats(running))["states"] == {"STORED": 1, "WITHDRAWN": 0}
        assert (await stats(running))["duplicates"] == 4


async def test_what_the_headers_say_is_kept(tmp_path: Path) -> None:
    async with ingesting(tmp_path) as running:
        headers = {
            "x-halfsure-stream": "cam-1",
            "x-halfsure-sequence": "7",
            "x-halfsure-captured-at": "2025-12-31T23:00:00+01:00",
            "x-halfsure-tags": "night, dock",
            "x-halfsure-attributes": '{"lux": 3.5}',
        }
        answer = (await send(running, png(1), **headers)).json()
        assert answer["sample_id"] == sample_id("default", "local/cam-1/7")
        assert (answer["tags"], answer["attributes"]) == (["night", "dock"], {"lux": 3.5})
        (data,) = await running.data(SampleIngested)
        assert datetime.fromisoformat(data["captured_at"]) == datetime(2025, 12, 31, 22, tzinfo=UTC)
        assert (data["stream_id"], data["sequence"], data["tags"]) == ("cam-1", 7, ["night", "dock"])
        assert "data" not in data["content"]
        assert await running.blobs.get(data["content"]["uri"]) == png(1)


async def test_equal_images_are_one_sample_and_equal_readings_two(tmp_path: Path) -> None:
    async with ingesting(tmp_path) as running:
        path = "/v1/samples?project=table"
        row = {"row": {"a": 1.5, "b": 2}}
        readings = [await running.call("POST", path, json={**row, "stream_id": "s", "sequence": n}) for n in (1, 2, 2)]
        assert [answer.status_code for answer in readings] == [201, 201, 200]
        assert len({answer.json()["sample_id"] for answer in readings}) == 2
        assert len({answer.json()["content"]["uri"] for answer in readings}) == 2
        rows = [await running.call("POST", path, json=body) for body in (row, {"row": {"b": 2, "a": 1.5}})]
        assert [answer.status_code for answer in rows] == [201, 200]
        keyed = [await running.call("POST", path, json={**row, "key": key}) for key in ("k1", "k2", "k1")]
        assert [answer.status_code for answer in keyed] == [201, 201, 200]
        assert keyed[0].json()["sample_id"] == sample_id("table", "k1")


async def test_every_refusal(tmp_path: Path) -> None:
    async with ingesting(tmp_path, max_body=20_000) as running:
        ahead, near = (NOW + timedelta(seconds=301)).isoformat(), (NOW + timedelta(seconds=299)).isoformat()
        picture = png(1)
        jpeg = b"\xff\xd8\xff\xe0" + b"0" * 20
        claim = {"uri": "blob:uploads/default/a", "sha256": "0" * 64, "bytes": 1, "media_type": "image/png"}
        await running.blobs.put("uploads/default/a", picture)
        await running.blobs.put("samples/table/aa/secret", picture)
        table = "/v1/samples?project=table"

        def post(body: Any, path: str = "/v1/samples") -> Any:
            return running.call("POST", path, json=body)

        def claiming(**changes: Any) -> Any:
            return post({"content": {**claim, **changes}})

        nan = {"content-type": "application/json"}
        cases = {
            "no body": (await send(running, b""), 400),
            "broken json": (await send(running, b"{", kind="application/json"), 400),
            "no form": (await send(running, b"xx", kind="multipart/form-data"), 400),
            "no file": (await running.call("POST", "/v1/samples", files={"meta": (None, "{}")}), 400),
            "broken meta": (
                await running.call("POST", "/v1/samples", files={"file": picture}, data={"meta": "{"}),
                400,
            ),
            "other field": (await running.call("POST", "/v1/samples", files={"photo": picture}), 422),
            "too large": (await send(running, b"x" * 20_001), 413),
            "type": (await send(running, b"%PDF", kind="application/pdf"), 415),
            "not its magic": (await send(running, jpeg), 415),
            "untyped and unknown": (await send(running, b"what", kind="application/octet-stream"), 415),
            "an image for a table": (await send(running, picture, table), 415),
            "corrupt": (await send(running, picture[:40]), 422),
            "ahead": (await post(in_base64(picture, captured_at=ahead)), 422),
            "no zone": (await post(in_base64(picture, captured_at="2025-01-01T00:00:00")), 422),
            "zoneless header": (await send(running, picture, **{"x-halfsure-captured-at": "2025-01-01"}), 422),
            "unknown header": (await send(running, picture, **{"x-halfsure-colour": "red"}), 422),
            "bad attributes": (await send(running, picture, **{"x-halfsure-attributes": "{"}), 422),
            "hash": (await post(in_base64(picture, sha256="0" * 64)), 422),
            "unknown field": (await post(in_base64(picture, colour="red")), 422),
            "two contents": (await post(in_base64(picture, row={"a": 1})), 422),
            "no content": (await post({}), 422),
            "not an object": (await post([]), 422),
            "base64": (await post({"data": "§", "media_type": "image/png"}), 422),
            "sequence alone": (await post(in_base64(picture, sequence=1)), 422),
            "nan": (await running.call("POST", table, content=b'{"row": {"a": NaN}}', headers=nan), 422),
            "infinite": (await running.call("POST", table, content=b'{"row": {"a": 1e999}}', headers=nan), (400, 422)),
            "column missing": (await post({"row": {"a": 1}}, table), 422),
            "no number": (await post({"row": {"a": "x", "b": 1}}, table), 422),
            "row for images": (await post({"row": {"a": 1}}), 415),
            "long attributes": (await post(in_base64(picture, attributes={"x": "y" * 17_000})), 422),
            "claim hash": (await claiming(), 422),
            "claim size": (await claiming(sha256=sha256(picture)), 422),
            "claim of nothing": (await claiming(uri="blob:uploads/default/b"), 422),
            "foreign": (await claiming(uri="https://elsewhere.example/a"), 403),
            "another project's": (await claiming(uri="blob:samples/table/aa/secret"), 403),
            "a way around": (await claiming(uri="blob:uploads/default/../../samples/table/aa/secret"), 403),
            "not content": (await claiming(uri="blob:models/default/x.onnx"), 403),
            "unknown project": (await send(running, picture, "/v1/samples?project=nope"), 404),
            "role": (await running.call("POST", "/v1/samples", role="annotator", json={}), 403),
        }
        for name, (answer, expected) in cases.items():
            statuses = expected if isinstance(expected, tuple) else (expected,)
            assert answer.status_code in statuses, f"{name}: {answer.status_code} {answer.text}"
            assert answer.headers["content-type"] == "application/problem+json", name
        assert (await post(in_base64(picture, captured_at=near))).status_code == 201
        events = [envelope for _, envelope in await running.published()]
        assert len([e for e in events if e["type"] == SampleIngested.type]) == 1
        reasons = {e["data"]["reason"] for e in events if e["type"] == SampleRejected.type}
        assert reasons == {"schema", "type", "policy"}
        assert (await stats(running))["rejected"]["type"] >= 3


async def test_a_bad_line_does_not_fail_the_others(tmp_path: Path) -> None:
    async with ingesting(tmp_path) as running:
        good = json.dumps(in_base64(png(1)))
        lines = [
            good,
            "{",
            json.dumps(in_base64(png(2), colour="x")),
            json.dumps(in_base64(png(3))),
            good,
            '{"a": NaN}',
        ]
        answer = await running.call("POST", "/v1/samples:batch", content="\n".join(lines) + "\n")
        assert answer.status_code == 207
        results = answer.json()["results"]
        assert [row["status"] for row in results] == [201, 400, 422, 201, 200, 422]
        assert [row["line"] for row in results] == list(range(6))
        assert results[4]["sample_id"] == results[0]["sample_id"]
        assert results[2]["problem"]["errors"][0]["pointer"] == "/colour"
        too_many = await running.call("POST", "/v1/samples:batch", content="{}\n" * 1001)
        assert too_many.status_code == 422


async def test_a_batch_costs_one_read_and_one_transaction(tmp_path: Path) -> None:
    async with ingesting(tmp_path) as running:
        await send(running, png(0))
        await running.published()
        reads, commits = 0, 0
        get, commit = running.state.get, running.state.commit

        async def counting_get(keys: Any) -> Any:
            nonlocal reads
            reads += any(key.startswith("smp:") for key in keys)
            return await get(keys)

        async def counting_commit(ops: Any) -> None:
            nonlocal commits
            commits += any(isinstance(op, Put) and op.key.startswith("smp:") for op in ops)
            await commit(ops)

        running.state.get, running.state.commit = counting_get, counting_commit  # type: ignore[method-assign]
        lines = [json.dumps(in_base64(png(n % 250, n // 250 + 1))) for n in range(1000)]
        answer = await running.call("POST", "/v1/samples:batch", content="\n".join(lines))
        assert {row["status"] for row in answer.json()["results"]} == {201}
        assert (reads, commits) == (1, 1)
        assert len(await running.data(SampleIngested)) == 1000


async def test_a_thousand_deliveries_at_once_are_one_sample(tmp_path: Path) -> None:
    async with ingesting(tmp_path) as running:
        answers = await asyncio.gather(*(send(running, png(1)) for _ in range(1000)))
        assert sorted(answer.status_code for answer in answers) == [200] * 999 + [201]
        assert len({answer.json()["sample_id"] for answer in answers}) == 1
        assert len(await running.data(SampleIngested)) == 1
        assert (await stats(running))["duplicates"] == 999


async def test_two_replicas_share_a_project(tmp_path: Path, ports: Ports) -> None:
    async with ingesting(tmp_path, ports=ports) as one:
        (tmp_path / "two").mkdir()
        async with started(create, tmp_path / "two", ports=ports, replica=1) as two:
            pictures = [png(n) for n in range(60)]
            answers = await asyncio.gather(
                *(send(replica, picture) for picture in pictures for replica in (one, two, one))
            )
            created = [answer for answer in answers if answer.status_code == 201]
            assert len(created) == len(pictures)
            assert {answer.status_code for answer in answers} == {200, 201}
            await two.service.outbox.drain()
            assert len({row["sample_id"] for row in await one.data(SampleIngested)}) == 60
            listed = (await two.call("GET", "/v1/samples?limit=500")).json()["items"]
            assert sorted(row["sample_id"] for row in listed) == sorted(a.json()["sample_id"] for a in created)
            assert (await stats(one))["states"]["STORED"] == 60
            assert (await stats(one))["duplicates"] == 120


async def test_an_idempotency_key_repeats_the_answer_and_says_nothing_new(tmp_path: Path) -> None:
    async with ingesting(tmp_path) as running:
        keyed = {"idempotency-key": "k"}
        first, again = [await send(running, png(1), **keyed) for _ in range(2)]
        assert (first.status_code, again.status_code) == (201, 201)
        assert again.headers["idempotent-replay"] == "true"
        assert len(await running.published()) == 1


async def test_lists_by_page_tag_stream_time_and_state(tmp_path: Path) -> None:
    async with ingesting(tmp_path) as running:
        lines = []
        for n in range(1200):
            at = (NOW - timedelta(minutes=n)).isoformat()
            more = {"tags": ["even"] if n % 2 == 0 else [], "stream_id": f"cam-{n % 3}", "captured_at": at}
            lines.append(json.dumps(in_base64(png(n % 250, n // 250 + 1), **more)))
        for start in (0, 600):
            await running.call("POST", "/v1/samples:batch", content="\n".join(lines[start : start + 600]))

        async def every(query: str, limit: int = 170) -> list[str]:
            ids, cursor = [], ""
            while True:
                body = (await running.call("GET", f"/v1/samples?limit={limit}{query}{cursor}")).json()
                ids += [row["sample_id"] for row in body["items"]]
                assert all("shard" not in row and "_unit" not in row for row in body["items"])
                if body["cursor"] is None:
                    return ids
                cursor = f"&cursor={body['cursor']}"

        everything = await every("")
        assert len(everything) == len(set(everything)) == 1200
        assert await every("", 500) == everything
        assert len(await every("&tag=even")) == 600
        assert len(await every("&stream=cam-1")) == 400
        since = (NOW - timedelta(minutes=9)).isoformat().replace("+", "%2B")
        assert len(await every(f"&from={since}")) == 10
        assert len(await every(f"&to={since}")) == 1190
        await running.call("DELETE", f"/v1/samples/{everything[0]}", json={"reason": "bad_data"})
        assert await every("&state=WITHDRAWN") == [everything[0]]
        for query, status in (
            ("limit=0", 422),
            ("state=LOST", 422),
            ("from=2026-01-01T00:00", 422),
            ("cursor=eA==", 400),
        ):
            assert (await running.call("GET", f"/v1/samples?{query}")).status_code == status


async def test_content_is_what_was_sent(tmp_path: Path) -> None:
    async with ingesting(tmp_path) as running:
        sample = (await send(running, png(9))).json()["sample_id"]
        answer = await running.call("GET", f"/v1/samples/{sample}/content", role="viewer")
        assert (answer.content, answer.headers["content-type"]) == (png(9), "image/png")
        assert answer.headers["etag"] == f'"{sha256(png(9))}"'
        assert {"private", "immutable"} <= set(answer.headers["cache-control"].replace(",", "").split())
        tag = {"if-none-match": answer.headers["etag"]}
        assert (await running.call("GET", f"/v1/samples/{sample}/content", headers=tag)).status_code == 304
        assert (await running.call("GET", f"/v1/samples/{sample}/content?project=table")).status_code == 404
        assert (await running.call("GET", "/v1/samples/smp_none")).status_code == 404


async def test_a_withdrawn_sample_is_erased_and_does_not_come_back(tmp_path: Path) -> None:
    async with ingesting(tmp_path) as running:
        answer = (await send(running, png(9))).json()
        path, uri = f"/v1/samples/{answer['sample_id']}", answer["content"]["uri"]
        assert (await running.call("DELETE", path, json={"reason": "mood"})).status_code == 422
        assert (await running.call("DELETE", path, role="reviewer", json={"reason": "privacy"})).status_code == 403
        for _ in range(2):
            gone = await running.call("DELETE", path, json={"reason": "privacy"})
            assert (gone.status_code, gone.json()["state"]) == (202, "WITHDRAWN")
        assert (await running.call("DELETE", path, json={"reason": "consent"})).status_code == 409
        assert (await running.call("DELETE", "/v1/samples/smp_none", json={"reason": "privacy"})).status_code == 404
        await wait_until(lambda: uri not in running.blobs.contents)
        (event,) = await running.data(SampleWithdrawn)
        assert (event["who"], event["why"]) == ("admin", "privacy")
        for tail in ("", "/content", "/history"):
            assert (await running.call("GET", path + tail)).status_code == 410
        again = await send(running, png(9))
        assert (again.status_code, again.json()["state"]) == (200, "WITHDRAWN")
        assert uri not in running.blobs.contents

        async def counts() -> bool:
            return (await stats(running))["states"] == {"STORED": 0, "WITHDRAWN": 1}

        await wait_until(counts)
        assert (await stats(running))["bytes"] == 0


async def test_withdrawing_one_of_two_equal_readings_keeps_the_other(tmp_path: Path) -> None:
    async with ingesting(tmp_path) as running:
        rows = [
            (await running.call("POST", "/v1/samples?project=table", json=body)).json()
            for body in ({"row": {"a": 1, "b": 1}, "stream_id": "s", "sequence": n} for n in (1, 2))
        ]
        await running.call("DELETE", f"/v1/samples/{rows[0]['sample_id']}?project=table", json={"reason": "bad_data"})
        await wait_until(lambda: rows[0]["content"]["uri"] not in running.blobs.contents)
        left = await running.call("GET", f"/v1/samples/{rows[1]['sample_id']}/content?project=table")
        assert left.json() == {"a": 1, "b": 1}


async def test_history_tells_the_story_once(tmp_path: Path) -> None:
    async with ingesting(tmp_path) as running:
        answer = (await send(running, png(9))).json()
        sample, content = answer["sample_id"], answer["content"]
        of = {"project": "default", "sample_id": sample, "content": content}
        scored = SampleScored(**of, model_version="mdl_1", task="image-classification", probabilities=[0.5, 0.5])
        accepted = LabelAccepted(**of, label_revision=1, value="dark")
        active = ModelActivated(
            project="default", version="mdl_1", activation_epoch=1, artefact=content, manifest=content
        )
        other = active.model_copy(update={"version": "mdl_2", "activation_epoch": 2})
        for _ in range(3):
            await running.deliver_batch([scored] * 200)
            assert await running.deliver(accepted, active, other) == ["SUCCESS"] * 3
        story = (await running.call("GET", f"/v1/samples/{sample}/history")).json()["events"]
        kinds = sorted(row["type"] for row in story)
        assert kinds == ["label.accepted", "model.activated", "sample.ingested", "sample.scored"]
        assert all("probabilities" not in row["data"] for row in story)
        unknown = scored.model_copy(update={"project": "nope"})
        assert await running.deliver(unknown) == ["DROP"]


async def test_a_sample_says_what_models_said_of_it(tmp_path: Path) -> None:
    """Row 0.13: prediction, probability vector, model version and a link to the content; the latest comes first."""
    async with ingesting(tmp_path) as running:
        answer = (await send(running, png(9))).json()
        of = {"project": "default", "sample_id": answer["sample_id"], "content": answer["content"]}
        await running.deliver(SampleScored(**of, model_version="none", task="image-classification"))
        for version, bright in (("mdl_1", 0.25), ("mdl_2", 0.75)):
            said = {"labels": ["dark", "bright"], "probabilities": [1 - bright, bright], "scores": {"margin": 0.5}}
            top = Top(label="bright", confidence=bright)
            scored = SampleScored(**of, **said, model_version=version, task="image-classification", top=top)
            await running.deliver(scored)
            running.clock.step(1)
        shown = (await running.call("GET", f"/v1/samples/{answer['sample_id']}")).json()
        rows = [(row["model_version"], row["probabilities"], row["labels"]) for row in shown["predictions"]]
        assert rows == [(f"mdl_{n}", [1 - p, p], ["dark", "bright"]) for n, p in ((2, 0.75), (1, 0.25))]
        assert shown["predictions"][0]["top"]["label"] == "bright"
        assert (await running.call("GET", shown["content_link"])).content == png(9)


async def test_counts_and_samples_survive_a_restart(tmp_path: Path, ports: Ports) -> None:
    async with ingesting(tmp_path, ports=ports) as running:
        sample = (await send(running, png(1))).json()["sample_id"]
        await send(running, png(1))
    async with started(create, tmp_path, ports=ports) as again:
        assert (await stats(again))["states"]["STORED"] == 1
        assert (await send(again, png(1))).json()["sample_id"] == sample
        assert (await send(again, png(2))).status_code == 201
        assert len((await again.call("GET", "/v1/samples")).json()["items"]) == 2


async def test_a_conflict_on_the_index_loses_nothing(tmp_path: Path) -> None:
    async with ingesting(tmp_path) as running:
        await send(running, png(1))
        commit, disturbed = running.state.commit, []

        async def disturbing(ops: Any) -> None:
            """Somebody else writes the chain's segment and one of the samples just before."""
            guarded = [op for op in ops if isinstance(op, Put) and op.key.startswith("smp:")]
            if guarded and not disturbed:
                disturbed.append(guarded[0].key)
                segment = (await running.state.get(["idx:default:0:0"]))["idx:default:0:0"]
                record = {**guarded[0].value, "shard": 5, "_unit": ["another"]}
                await commit([Put("idx:default:0:0", segment.value), Put(guarded[0].key, record, CREATE)])
            await commit(ops)

        running.state.commit = disturbing  # type: ignore[method-assign]
        lines = [json.dumps(in_base64(png(n))) for n in (2, 3, 4)]
        results = (await running.call("POST", "/v1/samples:batch", content="\n".join(lines))).json()["results"]
        assert [row["status"] for row in results] == [200, 201, 201]
        listed = (await running.call("GET", "/v1/samples")).json()["items"]
        assert {row["sample_id"] for row in listed} >= {row["sample_id"] for row in results[1:]}
        counts = await stats(running)
        assert (counts["states"]["STORED"], counts["duplicates"]) == (3, 1)
        assert len(await running.data(SampleIngested)) == 3


@pytest.mark.parametrize("down", [True])
async def test_a_store_that_is_down_is_a_503_and_the_lane_goes_on(tmp_path: Path, down: bool) -> None:
    from services.runtime.errors import Unavailable

    async with ingesting(tmp_path) as running:
        commit = running.state.commit

        async def broken(ops: Any) -> None:
            raise Unavailable("switched off")

        running.state.commit = broken  # type: ignore[method-assign]
        answers = await asyncio.gather(*(send(running, png(n)) for n in range(5)))
        assert [answer.status_code for answer in answers] == [503] * 5
        running.state.commit = commit  # type: ignore[method-assign]
        answers = await asyncio.gather(*(send(running, png(n)) for n in range(5)))
        assert [answer.status_code for answer in answers] == [201] * 5


async def test_sensors_send_by_mqtt_and_what_is_no_sample_is_shelved(tmp_path: Path) -> None:
    async with ingesting(tmp_path) as running:

        async def sent(topic: str, payload: bytes, token: str = SIDECAR_TOKEN) -> int:
            headers = {"topic": topic, "dapr-api-token": token, "content-type": "application/json"}
            return (await running.client.post("/sensors", content=payload, headers=headers)).status_code

        picture = png(77)
        assert [await sent("halfsure/default/cam-1", picture) for _ in range(3)] == [200] * 3
        assert await sent("halfsure/table/scale", b'{"a": 1, "b": 2}') == 200
        assert await sent("halfsure/default/cam-1", picture, "another token") == 401
        ingested = await running.data(SampleIngested)
        assert ingested[0]["sample_id"] == sample_id("default", sha256(picture))
        assert [row["stream_id"] for row in ingested] == ["cam-1", "scale"]
        bad = {
            "halfsure/default/cam-1": b"no picture",
            "halfsure/nobody/cam-1": picture,
            "elsewhere": picture,
            "halfsure/table/scale": b'{"a": NaN}',
        }
        for topic, payload in bad.items():
            assert await sent(topic, payload) == 200
        letters = (await running.call("GET", "/v1/deadletters")).json()["items"]
        kept = {letter["topic"]: await running.blobs.get(letter["event"]["content"]["uri"]) for letter in letters}
        assert kept == bad


async def test_content_of_a_sample_that_came_with_its_label_is_shown_too(tmp_path: Path) -> None:
    def queue(path: str, params: Any) -> Any:
        if path != "v1/samples/smp_gold":
            raise KeyError(path)
        kept = {"uri": "blob:samples/default/a/b", "sha256": "0" * 64, "bytes": 3, "media_type": "image/png"}
        return {"sample_id": "smp_gold", "content": kept}

    async with started(create, tmp_path, peers={"label-queue": queue}) as running:
        await running.deliver(await project(running.blobs))
        await running.blobs.put("samples/default/a/b", b"png")
        shown = await running.call("GET", "/v1/samples/smp_gold/content", "annotator")
        assert (shown.status_code, shown.content, shown.headers["content-type"]) == (200, b"png", "image/png")
        assert (await running.call("GET", "/v1/samples/smp_other/content", "annotator")).status_code == 404


async def _project_of(running: Running, name: str, spec: InputSpec) -> None:
    """A project of a kind that has no bundled extractor needed here: ingest never runs a model."""
    event = await project(running.blobs, name)
    document = {**event.document, "task": f"{spec.kind}-classification", "input": spec.model_dump(mode="json")}
    await running.deliver(event.model_copy(update={"document": document}))


SERIES = InputSpec.series(3, [TabularColumn(name="t")])
POINTS = "/v1/samples?project=series"


def point(number: int, **more: Any) -> dict[str, Any]:
    return {"row": {"t": number}, "stream_id": "press-1", "sequence": number, **more}


async def test_a_point_is_a_sample_once_its_window_is_whole(tmp_path: Path) -> None:
    async with ingesting(tmp_path) as running:
        await _project_of(running, "series", SERIES)
        answers = [await running.call("POST", POINTS, json=point(number, tags=[f"n{number}"])) for number in range(4)]
        assert [answer.status_code for answer in answers] == [202, 202, 201, 201]
        waiting = answers[1].json()
        assert (waiting["state"], waiting["points"], waiting["of"]) == ("GATHERING", 2, 3)
        assert answers[3].json()["sample_id"] == sample_id("series", "local/press-1/3")
        ingested = await running.data(SampleIngested)
        assert [(event["sequence"], event["tags"]) for event in ingested] == [(2, ["n2"]), (3, ["n3"])]
        windows = [json.loads(await running.blobs.get(event["content"]["uri"])) for event in ingested]
        assert windows == [[{"t": 0}, {"t": 1}, {"t": 2}], [{"t": 1}, {"t": 2}, {"t": 3}]]
        again = await running.call("POST", POINTS, json=point(3))
        assert (again.status_code, again.json()["duplicate"]) == (200, True)
        assert await running.data(SampleIngested) == []


async def test_a_batch_of_many_windows_makes_every_one_and_again_none(tmp_path: Path) -> None:
    async with ingesting(tmp_path) as running:
        await _project_of(running, "series", SERIES)
        lines = "\n".join(json.dumps(point(number)) for number in range(40))
        for known in (201, 200):
            answer = await running.call("POST", "/v1/samples:batch?project=series", content=lines)
            assert [row["status"] for row in answer.json()["results"][-6:]] == [known] * 6
            if known == 201:
                assert [row["status"] for row in answer.json()["results"]] == [202] * 2 + [201] * 38
        assert [event["sequence"] for event in await running.data(SampleIngested)] == list(range(2, 40))


async def test_a_late_point_completes_what_waited_for_it_and_a_restart_shortens_nothing(
    tmp_path: Path, ports: Ports
) -> None:
    async with ingesting(tmp_path, ports=ports) as running:
        await _project_of(running, "series", SERIES)
        lines = "\n".join(json.dumps(point(number, attributes={"n": number})) for number in (0, 1, 4, 3))
        results = (await running.call("POST", "/v1/samples:batch?project=series", content=lines)).json()["results"]
        assert [row["status"] for row in results] == [202] * 4
    async with ingesting(tmp_path, ports=ports) as running:
        late = await running.call("POST", POINTS, json=point(2))
        assert (late.status_code, late.json()["sequence"]) == (201, 2)
        told = {event["sequence"]: event["attributes"] for event in await running.data(SampleIngested)}
        assert told == {2: {}, 3: {"n": 3}, 4: {"n": 4}}


async def test_a_crash_between_a_point_and_its_window_is_mended_by_the_next_try(tmp_path: Path) -> None:
    async with ingesting(tmp_path) as running:
        await _project_of(running, "series", SERIES)
        for number in (0, 1):
            await running.call("POST", POINTS, json=point(number))
        record = Stream.read(None, 3).added(
            {n: {"row": {"t": n}, "captured_at": NOW.isoformat(), "meta": {}} for n in range(3)}
        )
        key = "stream:series:local/press-1"
        await running.state.commit([Put(key, record.record())])
        assert (await running.call("POST", POINTS, json=point(2))).status_code == 201


async def test_what_is_no_point_is_refused(tmp_path: Path) -> None:
    async with ingesting(tmp_path) as running:
        await _project_of(running, "series", SERIES)
        for number in range(10):
            await running.call("POST", POINTS, json=point(number))
        cases = {
            "/sequence": {"row": {"t": 1}},
            "/row": point(11, row={"x": 1}),
        }
        for pointer, body in cases.items():
            answer = await running.call("POST", POINTS, json=body)
            assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)
        late = await running.call("POST", POINTS, json=point(20))
        assert late.status_code == 202
        late = await running.call("POST", POINTS, json=point(14))
        assert (late.status_code, late.json()["errors"][0]["code"]) == (422, "too-late")
        whole = await running.call(
            "POST", POINTS, json={"data": base64.b64encode(b'[{"t":1},{"t":2},{"t":3}]').decode()}
        )
        assert whole.status_code == 201
        short = await running.call("POST", POINTS, json={"data": base64.b64encode(b'[{"t":1}]').decode()})
        assert short.status_code == 422


async def test_a_text_comes_as_it_is_or_in_a_line_of_json(tmp_path: Path) -> None:
    async with ingesting(tmp_path) as running:
        await _project_of(running, "words", InputSpec.text(64))
        path = "/v1/samples?project=words"
        first = await send(running, "Grüße".encode(), path, kind="text/plain; charset=utf-8")
        again = await running.call("POST", path, json={"text": "Grüße"})
        assert (first.status_code, again.status_code) == (201, 200)
        assert first.json()["sample_id"] == again.json()["sample_id"] == sample_id("words", sha256("Grüße".encode()))
        assert (await send(running, b"\xff\xfe", path, kind="text/plain")).status_code == 422
        assert (await send(running, png(1), path)).status_code == 415
        assert (await running.call("POST", path, json={"row": {"t": 1}})).status_code == 415


async def test_nothing_that_was_said_of_a_withdrawn_sample_is_kept(tmp_path: Path) -> None:
    async with ingesting(tmp_path) as running:
        meta = {"attributes": {"person": "anna"}, "tags": ["anna"]}
        gone = (await running.call("POST", "/v1/samples", json=in_base64(png(1), **meta))).json()["sample_id"]
        kept = (await running.call("POST", "/v1/samples", json=in_base64(png(2), tags=["bert"]))).json()["sample_id"]
        content = {"uri": "blob:x", "sha256": sha256(b"x"), "bytes": 1, "media_type": "image/png"}
        said = {"project": "default", "model_version": "none", "task": "image-classification", "content": content}
        scored = SampleScored.model_validate({**said, **meta, "sample_id": gone})
        await running.deliver(scored)
        assert (await running.call("DELETE", f"/v1/samples/{gone}", json={"reason": "privacy"})).status_code == 202

        async def nowhere() -> bool:
            return "anna" not in str(await running.records())

        await wait_until(nowhere)
        await running.deliver(scored.model_copy(update={"model_version": "mdl_late"}))
        assert await nowhere(), "what comes late is not kept either"
        assert (await running.call("GET", "/v1/samples?tag=anna")).json()["items"] == []
        (row,) = (await running.call("GET", "/v1/samples?tag=bert")).json()["items"]
        assert row["sample_id"] == kept
        (row,) = (await running.call("GET", "/v1/samples?state=WITHDRAWN")).json()["items"]
        assert (row["sample_id"], row["tags"], row["attributes"]) == (gone, [], {})
