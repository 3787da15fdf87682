"""label-queue: every route, every refusal, and the leases under restarts, duplicates and many hands."""

import asyncio
import base64
import csv
import io
import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from conftest import Running, started
from crowd import CONTENT, LABELS, claim, crowd, project, selected, submit
from PIL import Image

from services.contracts.events import (
    Content,
    LabelAccepted,
    LabelRetracted,
    LabelSubmitted,
    ModelActivated,
    SampleWithdrawn,
    TaskExpired,
    TaskLeased,
    TaskQueued,
    TaskReleased,
    TaskSkipped,
)
from services.contracts.ids import annotation_id, sample_id, sha256, task_id
from services.contracts.inputs import InputSpec, TabularColumn
from services.label_queue.app import create
from services.runtime.ports import Ports


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (4, 4), shade).save(file, "PNG")
    return file.getvalue()


def line(shade: int, value: str = "cat", **more: Any) -> dict[str, Any]:
    data = base64.b64encode(png(shade)).decode()
    return {"data": data, "media_type": "image/png", "value": value, **more}


@pytest.fixture
async def queue(tmp_path: Path, ports: Ports) -> AsyncIterator[Running]:
    async with started(create, tmp_path, ports=ports) as running:
        await running.deliver(project())
        yield running


async def stats(running: Running) -> dict[str, Any]:
    return (await running.call("GET", "/v1/stats")).json()


async def record(running: Running, name: str) -> dict[str, Any]:
    return (await running.call("GET", f"/v1/tasks/{task_id('default', name)}")).json()


async def upload(running: Running, lines: list[Any], split: str = "train") -> list[dict[str, Any]]:
    body = b"\n".join(row if isinstance(row, bytes) else orjson.dumps(row) for row in lines)
    answer = await running.call("POST", f"/v1/import?split={split}", "operator", content=body)
    assert answer.status_code == 207, answer.text
    return answer.json()["results"]


def kinds(published: list[tuple[str, dict[str, Any]]]) -> list[str]:
    return [envelope["type"].removeprefix("io.halfsure.").removesuffix(".v1") for _, envelope in published]


# What comes in.


async def test_a_selection_becomes_a_task_and_a_label_becomes_an_event(queue: Running) -> None:
    await queue.deliver(selected("smp_a", trigger="audit", is_audit=True, weight=3.0))
    (task,) = await claim(queue)
    assert set(task) == {"id", "sample_id", "content", "labels", "schema_version", "lease"}
    assert task["content"] == {"url": "/v1/samples/smp_a/content", "media_type": "image/png", "sha256": "0" * 64}
    assert (task["labels"], task["lease"]["epoch"]) == (LABELS, 1)
    answer = await submit(queue, task, "cat", seconds=1.5)
    assert (answer.status_code, answer.json()["state"], answer.json()["label_revision"]) == (201, "ACCEPTED", 1)
    assert answer.json()["suggestion"] == {"label": "dog", "confidence": 0.6}
    published = await queue.published()
    assert kinds(published) == ["task.queued", "task.leased", "label.submitted", "label.accepted"]
    given, accepted = (envelope["data"] for _, envelope in published[2:])
    assert (given["changed_from_prelabel"], given["seconds"]) == (True, 1.5)
    assert given["annotator"] != "operator", "events carry a pseudonym"
    expected = {
        "label_revision": 1,
        "value": "cat",
        "is_audit": True,
        "trigger": "audit",
        "weight": 3.0,
        "predicted": {"label": "dog", "confidence": 0.6},
        "model_version": "mdl_1",
        "content": CONTENT,
        "origin": "queue",
        "split": "train",
    }
    assert expected.items() <= accepted.items()
    assert (await stats(queue))["by_class"] == {"cat": 1}


async def test_the_same_selection_a_thousand_times_changes_nothing(queue: Running) -> None:
    assert set(await queue.deliver_batch([selected("smp_a")] * 200)) == {"SUCCESS"}
    assert kinds(await queue.published()) == ["task.queued"]
    (task,) = await claim(queue)
    await submit(queue, task)
    await queue.published()
    before = await record(queue, "smp_a")
    for number in range(1000):
        assert await queue.deliver(selected("smp_a", f"rnd_{number % 7}")) == ["SUCCESS"]
    assert await queue.published() == []
    assert await record(queue, "smp_a") == before
    assert (await stats(queue))["asked"] == 1


async def test_a_bulk_of_new_samples_costs_one_transaction_and_no_read(queue: Running) -> None:
    await queue.deliver(selected("smp_first"))
    await queue.published()
    calls: Counter[str] = Counter()
    get, commit = queue.state.get, queue.state.commit

    async def counted_get(keys: Any) -> Any:
        calls["get"] += any(key.startswith("tsk:") for key in keys)
        return await get(keys)

    async def counted_commit(ops: Any) -> None:
        calls["commit"] += any(op.key.startswith("tsk:") for op in ops)
        await commit(ops)

    queue.state.get, queue.state.commit = counted_get, counted_commit  # type: ignore[method-assign]
    await queue.deliver_batch([selected(f"smp_{number}") for number in range(200)])
    assert (calls["get"], calls["commit"]) == (0, 1)
    assert (await stats(queue))["queued"] == 201


async def test_a_task_that_this_replica_has_not_heard_of_is_looked_at_after_all(
    queue: Running, tmp_path: Path, ports: Ports
) -> None:
    """A new task is written without a look; where another replica was faster, the guard says so."""
    async with started(create, tmp_path, ports=ports, replica=1) as other:
        await other.deliver(project())
        assert (await stats(other))["queued"] == 0
        await queue.deliver_batch([selected("smp_a"), selected("smp_b")])
        await queue.published()
        before = await record(queue, "smp_a")
        wanted = [selected(name) for name in ("smp_a", "smp_b", "smp_c")]
        assert set(await other.deliver_batch(wanted)) == {"SUCCESS"}
        assert [(topic, row["data"]["sample_id"]) for topic, row in await other.published()] == [("task", "smp_c")]
        assert await record(queue, "smp_a") == before


async def test_a_withdrawn_sample_is_never_asked_whenever_the_news_comes(queue: Running) -> None:
    def gone(name: str) -> SampleWithdrawn:
        return SampleWithdrawn(project="default", sample_id=name, who="w", why="privacy")

    await queue.deliver(gone("smp_before"), selected("smp_before"), selected("smp_queued"), selected("smp_done"))
    while tasks := await claim(queue, 1):
        if tasks[0]["sample_id"] == "smp_done":
            await submit(queue, tasks[0])
    await queue.published()
    for _ in range(3):
        await queue.deliver(gone("smp_queued"), gone("smp_done"))
    published = await queue.published()
    assert kinds(published) == ["task.skipped", "label.retracted"]
    assert published[1][1]["data"]["previous_revision"] == 1
    await queue.deliver(*[selected(name, "rnd_9") for name in ("smp_before", "smp_queued", "smp_done")])
    assert await claim(queue) == []
    (answer,) = await upload(queue, [line(1)])
    assert answer["status"] == 201


async def test_an_unknown_project_is_dropped_and_models_are_remembered_by_epoch(queue: Running) -> None:
    assert await queue.deliver(selected("smp_a", project="elsewhere")) == ["DROP"]
    for epoch in (1, 3, 2):
        model = {"artefact": Content(**CONTENT), "manifest": Content(**CONTENT), "activation_epoch": epoch}
        await queue.deliver(ModelActivated(project="default", version=f"mdl_{epoch}", **model))
    assert (await stats(queue))["model_version"] == "mdl_3"


# Claims and leases.


async def test_claims_come_by_priority_and_empty_differs_from_all_leased(queue: Running) -> None:
    empty = await queue.call("POST", "/v1/tasks:claim", "annotator", json={"n": 3})
    assert (empty.status_code, empty.headers["x-queue"], empty.content) == (204, "queued=0; leased=0", b"")
    names = [f"smp_{number}" for number in range(5)]
    await queue.deliver_batch([selected(name, priority=0.1 * at) for at, name in enumerate(names)])
    first = await claim(queue, 3, "ann")
    assert [task["sample_id"] for task in first] == ["smp_4", "smp_3", "smp_2"]
    assert [task["sample_id"] for task in await claim(queue, 3, "bob")] == ["smp_1", "smp_0"]
    none = await queue.call("POST", "/v1/tasks:claim", "annotator", json={})
    assert (none.status_code, none.headers["x-queue"]) == (204, "queued=0; leased=5")


async def test_nobody_holds_more_than_the_limit(queue: Running) -> None:
    await queue.deliver_batch([selected(f"smp_{number}") for number in range(40)])
    assert len(await claim(queue, 20)) == 20
    held = await claim(queue, 20)
    assert len(held) == 4
    answer = await queue.call("POST", "/v1/tasks:claim", "operator", json={"n": 1})
    assert (answer.status_code, answer.json()["title"]) == (429, "too many leases")
    await submit(queue, held[0])
    assert len(await claim(queue, 20)) == 1
    assert len(await claim(queue, 20, "bob")) == 15
    assert (await queue.call("POST", "/v1/tasks:claim", "operator", json={"n": 1})).status_code == 429
    queue.clock.step(121)
    assert len(await claim(queue, 24)) == 24


async def test_an_expired_lease_comes_back_with_the_next_epoch_and_is_swept(queue: Running) -> None:
    await queue.deliver(selected("smp_a"), selected("smp_b"))
    (first,) = await claim(queue, 1, "ann")
    queue.clock.step(119)
    assert [task["sample_id"] for task in await claim(queue, 2, "bob")] == ["smp_b"]
    queue.clock.step(1)
    (again,) = await claim(queue, 1, "bob")
    assert (again["id"], again["lease"]["epoch"]) == (first["id"], 2)
    events = [(e["type"], e["data"]["lease_epoch"]) for _, e in await queue.published() if e["subject"] == first["id"]]
    expired = [(kind.type, epoch) for kind, epoch in ((TaskQueued, 0), (TaskLeased, 1), (TaskExpired, 1))]
    assert events == [*expired, (TaskLeased.type, 2)]
    queue.clock.step(121)
    (sweep,) = [work for _, work in queue.service._loops if work.__name__ == "sweep"]
    await sweep()
    assert kinds(await queue.published()) == ["task.expired"] * 2
    assert (await stats(queue))["queued"] == 2


async def test_heartbeats_hold_a_lease_and_release_gives_it_back(queue: Running) -> None:
    await queue.deliver(selected("smp_a"))
    (task,) = await claim(queue)
    lease = {"epoch": 1}
    path = f"/v1/tasks/{task['id']}"
    for _ in range(5):
        queue.clock.step(100)
        answer = await queue.call("POST", f"{path}:heartbeat", "operator", json=lease)
        assert answer.status_code == 200
    assert answer.json()["lease"]["until"] == "2026-01-01T00:10:20+00:00"
    queue.clock.step(100)
    assert await claim(queue, 1, "bob") == []
    assert (await queue.call("POST", f"{path}:release", "operator", json=lease)).json()["state"] == "QUEUED"
    lost = await queue.call("POST", f"{path}:heartbeat", "operator", json=lease)
    assert (lost.status_code, lost.json()["type"]) == (409, "urn:halfsure:problem:lease-lost")
    assert (await claim(queue, 1, "bob"))[0]["lease"]["epoch"] == 2
    assert len(await queue.data(TaskReleased)) == 1


async def test_a_skipped_task_returns_only_in_a_new_round_and_only_if_told(queue: Running) -> None:
    await queue.deliver(selected("smp_a"), selected("smp_b"))
    for task in await claim(queue, 2):
        body = {"epoch": 1, "reason": "blurred", "requeue": task["sample_id"] == "smp_a"}
        answer = await queue.call("POST", f"/v1/tasks/{task['id']}:skip", "operator", json=body)
        assert (answer.status_code, answer.json()["state"]) == (200, "SKIPPED")
    assert [event["reason"] for event in await queue.data(TaskSkipped)] == ["blurred"] * 2
    await queue.deliver(selected("smp_a"), selected("smp_b"))
    assert await claim(queue, 2) == []
    for _ in range(2):
        await queue.deliver(selected("smp_a", "rnd_2"), selected("smp_b", "rnd_2"))
    assert kinds(await queue.published()) == ["task.queued"]
    (task,) = await claim(queue, 2)
    assert (task["sample_id"], task["lease"]["epoch"]) == ("smp_a", 3)


async def test_a_task_carries_the_prediction_and_an_answer_says_whether_it_was_changed(queue: Running) -> None:
    """Row 4.22, for whoever may see it before answering; the page has it in tests/page."""
    await queue.deliver(project(revision=2, suggestions="topk"), selected("smp_a"), selected("smp_b"))
    await queue.deliver(selected("smp_c", prelabel=None))
    await queue.published()
    tasks = {task["sample_id"]: task for task in await claim(queue, 3)}
    assert tasks["smp_a"]["suggestion"] == {"label": "dog", "confidence": 0.6}
    assert tasks["smp_c"]["suggestion"] is None
    for sample, value in (("smp_a", "dog"), ("smp_b", "cat"), ("smp_c", "cat")):
        assert (await submit(queue, tasks[sample], value)).status_code == 201
    said = {row["sample_id"]: row.get("changed_from_prelabel") for row in await queue.data(LabelSubmitted)}
    assert said == {"smp_a": False, "smp_b": True, "smp_c": None}


async def test_a_skip_is_taken_back_by_whoever_skipped_and_by_nobody_else(queue: Running) -> None:
    await queue.deliver(selected("smp_a"))
    (task,) = await claim(queue)
    path, body = f"/v1/tasks/{task['id']}", {"epoch": 1, "annotator": "ada"}
    assert (await queue.call("POST", f"{path}:unskip", "operator", json=body)).status_code == 409
    await queue.call("POST", f"{path}:skip", "operator", json={"epoch": 1, "reason": "unclear"})
    await queue.published()
    assert (await queue.call("POST", f"{path}:unskip", "operator", json=body)).status_code == 409
    answer = await queue.call("POST", f"{path}:unskip", "operator", json={"epoch": 1})
    assert (answer.status_code, answer.json()["state"], answer.json()["lease"]["epoch"]) == (200, "LEASED", 2)
    assert kinds(await queue.published()) == ["task.queued", "task.leased"]
    again = await queue.call("POST", f"{path}:unskip", "operator", json={"epoch": 1})
    assert again.json()["type"] == "urn:halfsure:problem:lease-lost"
    assert (await submit(queue, {**task, "lease": {"epoch": 2}})).status_code == 201


async def test_how_the_work_goes_is_told_without_saying_who(queue: Running) -> None:
    await queue.deliver(selected("smp_a"), selected("smp_b"))
    first, second = await claim(queue, 2)
    await submit(queue, first, seconds=2.5)
    await queue.call("POST", f"/v1/tasks/{second['id']}:skip", "operator", json={"epoch": 1, "reason": "unclear"})
    found = (await queue.call("GET", "/v1/pace", "viewer")).json()
    assert (found["by_hour"][-1], found["seconds"]["p50"], found["skipped"]) == (1, 2.5, {"unclear": 1})


async def test_a_filter_by_suggested_label_needs_a_project_that_shows_them(queue: Running) -> None:
    await queue.deliver(selected("smp_a"), selected("smp_b", prelabel={"label": "owl", "confidence": 0.5}))
    assert (await queue.call("POST", "/v1/tasks:claim", json={"labels": ["owl"]})).status_code == 422
    await queue.deliver(project(revision=2, suggestions="topk"))
    assert (await queue.call("POST", "/v1/tasks:claim", json={"labels": ["cow"]})).status_code == 422
    (task,) = await claim(queue, 5, labels=["owl"])
    assert (task["sample_id"], task["suggestion"]["label"]) == ("smp_b", "owl")


async def test_a_filter_by_suggested_label_tells_nothing_of_blind_tasks(queue: Running) -> None:
    names = [f"smp_{number}" for number in range(40)]
    await queue.deliver(project(revision=2, suggestions="topk", quality={"blind_share": 0.5}))
    suggested = {name: LABELS[at % 2] for at, name in enumerate(names)}
    await queue.deliver(
        *(selected(name, prelabel={"label": suggested[name], "confidence": 0.5}) for name in names),
    )
    filtered = [task for label in LABELS[:2] for task in await claim(queue, 20, "ann", labels=[label])]
    assert all("suggestion" in task for task in filtered)
    rest = await claim(queue, 24 - len(filtered), "ann")
    hidden = [task for task in rest if "suggestion" not in task]
    assert filtered
    assert hidden == rest, "what is left is what is blind for them"
    assert {suggested[task["sample_id"]] for task in hidden} == set(LABELS[:2])


async def test_an_operator_claims_tasks_by_name_for_whoever_another_tool_has_given_them_to(queue: Running) -> None:
    await queue.deliver(*(selected(name, required_labels=2) for name in ("smp_a", "smp_b", "smp_c")))
    names = [task_id("default", name) for name in ("smp_b", "smp_c")]
    found = await claim(queue, 1, "anna", tasks=names)
    assert [task["id"] for task in found] == names
    assert await claim(queue, 1, "bert", tasks=names) == [], "somebody is at them"
    assert await claim(queue, 1, "bert", tasks=[task_id("default", "smp_no")]) == []
    body = {"tasks": names}
    assert (await queue.call("POST", "/v1/tasks:claim", "reviewer", json=body)).status_code == 403
    answer = await submit(queue, found[0], "cat", "anna", shown="before")
    assert answer.json()["suggestion"]["label"] == "dog"
    (told,) = await queue.data(LabelSubmitted)
    assert (told["suggestion"], told["changed_from_prelabel"]) == ("before", True)
    assert await claim(queue, 1, "anna", tasks=[names[0]]) == [], "nobody answers twice"
    (second,) = await claim(queue, 1, "bert", tasks=[names[0]])
    assert (await submit(queue, second, "cat", "bert")).json()["state"] == "ACCEPTED"
    body = {"epoch": 1, "value": "cat", "shown": "before"}
    assert (await queue.call("POST", f"/v1/tasks/{names[1]}/annotations", "annotator", json=body)).status_code == 403


async def test_what_is_asked_can_be_seen_where_the_queue_is(queue: Running) -> None:
    uri = await queue.blobs.put("samples/default/x", png(3))
    content = Content(uri=uri, sha256=sha256(png(3)), bytes=len(png(3)), media_type="image/png")
    await queue.deliver(selected("smp_a", content=content))
    path = f"/v1/tasks/{task_id('default', 'smp_a')}/content"
    answer = await queue.call("GET", path, "annotator")
    assert answer.content == png(3)
    assert answer.headers["content-type"] == "image/png"
    known = {"if-none-match": answer.headers["etag"]}
    assert (await queue.call("GET", path, "annotator", headers=known)).status_code == 304
    assert (await queue.call("GET", path, "viewer")).status_code == 403
    assert (await queue.call("GET", "/v1/tasks/tsk_x/content", "annotator")).status_code == 404
    await queue.deliver(SampleWithdrawn(project="default", sample_id="smp_a", who="x", why="privacy"))
    assert (await queue.call("GET", path, "annotator")).status_code == 410


async def test_a_blind_project_never_tells_its_suggestion(queue: Running) -> None:
    await queue.deliver(project(revision=2, suggestions="blind"), selected("smp_a"))
    (task,) = await claim(queue)
    assert "suggestion" not in task
    assert "suggestion" not in (await submit(queue, task)).json()


async def test_annotators_see_nothing_that_could_sway_them(queue: Running) -> None:
    await queue.deliver(selected("smp_a", is_audit=True, trigger="audit"))
    path = f"/v1/tasks/{task_id('default', 'smp_a')}"
    shown = (await queue.call("GET", path, "annotator")).json()
    hidden = {"is_audit", "trigger", "prelabel", "priority", "reasons", "weight", "round_id"}
    assert not hidden & set(shown)
    assert hidden <= set((await queue.call("GET", path, "reviewer")).json())


# Answers.


async def test_the_same_answer_again_is_answered_as_before(queue: Running) -> None:
    await queue.deliver(selected("smp_a"))
    (task,) = await claim(queue)
    first = await submit(queue, task)
    again = await submit(queue, task)
    assert (first.status_code, again.status_code, again.json()) == (201, 200, first.json())
    assert (await submit(queue, task, "dog")).status_code == 409
    assert len(await queue.data(LabelAccepted)) == 1


async def test_a_late_answer_with_the_current_epoch_counts(queue: Running) -> None:
    await queue.deliver(selected("smp_a"))
    (task,) = await claim(queue)
    queue.clock.step(1000)
    (sweep,) = [work for _, work in queue.service._loops if work.__name__ == "sweep"]
    await sweep()
    assert (await submit(queue, task)).json()["state"] == "ACCEPTED"


async def test_an_overtaken_answer_counts_until_there_is_a_label_and_then_is_a_draft(queue: Running) -> None:
    await queue.deliver(selected("smp_a"))
    (old,) = await claim(queue, 1, "ann")
    queue.clock.step(121)
    (new,) = await claim(queue, 1, "bob")
    assert (await submit(queue, old, "cat", "ann")).json()["state"] == "ACCEPTED"
    late = await submit(queue, new, "dog", "bob")
    assert (late.status_code, late.json()["type"]) == (409, "urn:halfsure:problem:lease-lost")
    answers = (await record(queue, "smp_a"))["answers"]
    assert [(a["annotator"], a["kind"]) for a in answers] == [("ann", "counted"), ("bob", "draft")]
    assert (await submit(queue, new, "dog", "bob")).status_code == 409
    assert len(await queue.data(LabelSubmitted)) == 1


async def test_three_annotators_agree_or_a_reviewer_decides(queue: Running) -> None:
    await queue.deliver(selected("smp_a", required_labels=3), selected("smp_b", required_labels=2))
    said = {"smp_a": ["cat", "dog", "cat"], "smp_b": ["cat", "dog", "owl"]}
    state = {}
    for number, who in enumerate(["ann", "bob", "cyd"]):
        for task in await claim(queue, 2, who):
            answer = await submit(queue, task, said[task["sample_id"]][number], who)
            state[task["sample_id"]] = answer.json()["state"]
        assert await claim(queue, 2, who) == [], "nobody gets a sample twice"
    assert state == {"smp_a": "ACCEPTED", "smp_b": "DISPUTED"}
    (accepted,) = await queue.data(LabelAccepted)
    assert (accepted["value"], accepted["annotators"], accepted["agreement"]) == ("cat", 3, pytest.approx(2 / 3))
    agreement = (await queue.call("GET", "/v1/agreement")).json()
    assert (agreement["tasks"], len(agreement["pairs"]), agreement["pairs"][1]["agreement"]) == (2, 3, 0.5)
    path = f"/v1/tasks/{task_id('default', 'smp_b')}:resolve"
    assert (await queue.call("POST", path, "annotator", json={"value": "owl"})).status_code == 403
    assert (await queue.call("POST", path, "reviewer", json={"value": "cow"})).status_code == 422
    assert (await queue.call("POST", path, "reviewer", json={"value": "owl"})).json()["state"] == "ACCEPTED"
    assert (await queue.call("POST", path, "reviewer", json={"value": "owl"})).status_code == 409
    assert [event["value"] for event in await queue.data(LabelAccepted)] == ["owl"]


async def test_a_retracted_label_is_asked_again_under_the_next_revision(queue: Running) -> None:
    await queue.deliver(selected("smp_a"))
    (task,) = await claim(queue)
    path = "/v1/samples/smp_a/label:retract"
    assert (await queue.call("POST", path, "reviewer", json={})).status_code == 409
    await submit(queue, task)
    await queue.published()
    assert (await queue.call("POST", path, "annotator", json={})).status_code == 403
    assert (await queue.call("POST", path, "reviewer", json={"why": "wrong"})).json()["state"] == "QUEUED"
    published = await queue.published()
    assert kinds(published) == ["label.retracted", "task.queued"]
    assert (published[0][1]["data"]["label_revision"], published[0][1]["data"]["previous_revision"]) == (2, 1)
    (task,) = await claim(queue)
    await submit(queue, task, "dog")
    (accepted,) = await queue.data(LabelAccepted)
    assert (accepted["value"], accepted["label_revision"]) == ("dog", 3)


async def test_undo_takes_an_answer_back_and_gives_the_task_again(queue: Running) -> None:
    await queue.deliver(selected("smp_a"))
    (task,) = await claim(queue)
    name = (await submit(queue, task)).json()["id"]
    assert name == annotation_id(task["id"], "operator", 1)
    assert (await queue.call("DELETE", f"/v1/annotations/{name}", "annotator")).status_code == 403
    assert (await queue.call("DELETE", "/v1/annotations/ann_no", "annotator")).status_code == 404
    await queue.published()
    undone = (await queue.call("DELETE", f"/v1/annotations/{name}", "operator")).json()
    assert (undone["state"], undone["task"]["lease"]["epoch"]) == ("LEASED", 3)
    assert kinds(await queue.published()) == ["label.retracted", "task.queued", "task.leased"]
    assert (await queue.call("DELETE", f"/v1/annotations/{name}", "operator")).status_code == 200
    assert await queue.published() == []
    assert (await submit(queue, task)).status_code == 409, "what was taken back does not return by a retry"
    assert (await submit(queue, undone["task"], "dog")).json()["label_revision"] == 3


# Refusals.


async def test_refusals(queue: Running) -> None:
    await queue.deliver(selected("smp_a"))
    (task,) = await claim(queue)
    path = f"/v1/tasks/{task['id']}"
    answer = {"epoch": 1, "value": "cat"}
    cases: list[tuple[str, str, str, dict[str, Any], int]] = [
        ("POST", "/v1/tasks:claim", "viewer", {"json": {"n": 1}}, 403),
        ("POST", "/v1/tasks:claim", "annotator", {"json": {"annotator": "bob"}}, 403),
        ("POST", "/v1/tasks:claim", "annotator", {"json": {"n": 0}}, 422),
        ("POST", "/v1/tasks:claim", "annotator", {"json": {"n": 25}}, 422),
        ("POST", "/v1/tasks:claim", "annotator", {"json": {"m": 1}}, 422),
        ("POST", "/v1/tasks:claim", "annotator", {"content": b"{", "headers": JSON}, 400),
        ("POST", "/v1/tasks:claim?project=nowhere", "annotator", {"json": {}}, 404),
        ("POST", f"{path}:heartbeat", "operator", {"json": {"epoch": 2}}, 409),
        ("POST", f"{path}:heartbeat", "annotator", {"json": {"epoch": 1}}, 409),
        ("POST", f"{path}:heartbeat", "operator", {"json": {}}, 422),
        ("POST", f"{path}:release", "operator", {"json": {"epoch": 9}}, 409),
        ("POST", f"{path}:skip", "operator", {"json": {"epoch": 1}}, 422),
        ("POST", "/v1/tasks/tsk_no:heartbeat", "operator", {"json": {"epoch": 1}}, 404),
        ("POST", "/v1/tasks/tsk_no/annotations", "operator", {"json": answer}, 404),
        ("POST", f"{path}/annotations", "operator", {"json": {**answer, "value": "cow"}}, 422),
        ("POST", f"{path}/annotations", "operator", {"json": {**answer, "value": 1}}, 422),
        ("POST", f"{path}/annotations", "operator", {"json": {**answer, "value": None}}, 422),
        ("POST", f"{path}/annotations", "operator", {"json": {**answer, "schema_version": 9}}, 409),
        ("POST", f"{path}/annotations", "operator", {"json": {**answer, "seconds": -1}}, 422),
        ("POST", f"{path}/annotations", "operator", {"content": b'{"epoch":1,"value":NaN}', "headers": JSON}, 422),
        ("POST", f"{path}/annotations", "operator", {"json": {**answer, "epoch": 7}}, 409),
        ("POST", f"{path}/annotations", "annotator", {"json": answer}, 409),
        ("POST", f"{path}:resolve", "reviewer", {"json": {"value": "cat"}}, 409),
        ("POST", "/v1/samples/smp_no/label:retract", "reviewer", {"json": {}}, 404),
        ("GET", "/v1/tasks?state=gone", "viewer", {}, 400),
        ("GET", "/v1/tasks?limit=501", "viewer", {}, 422),
        ("GET", "/v1/tasks?cursor=%20", "viewer", {}, 400),
        ("GET", "/v1/tasks/tsk_no", "viewer", {}, 404),
        ("GET", "/v1/export?format=voc", "viewer", {}, 406),
        ("POST", "/v1/import", "reviewer", {"content": b""}, 403),
        ("POST", "/v1/import?split=mine", "operator", {"content": b""}, 422),
        ("POST", "/v1/import?format=coco", "operator", {"content": b"{}"}, 422),
        ("POST", "/v1/import?format=yolo", "operator", {"content": b"PK\x03\x04 broken"}, 422),
        ("GET", "/v1/export?revision=0123456789abcdef", "viewer", {}, 409),
        ("GET", "/v1/export?snapshot=snp_no", "viewer", {}, 404),
        ("PUT", "/v1/schemas/default", "operator", {"json": {"labels": LABELS}}, 428),
        ("PUT", "/v1/schemas/default", "reviewer", {"json": {"labels": LABELS}}, 403),
        ("GET", "/v1/schemas/nowhere", "viewer", {}, 404),
    ]
    for method, url, role, more, status in cases:
        refused = await queue.call(method, url, role, **more)
        assert refused.status_code == status, f"{method} {url} {more}: {refused.text}"
        assert refused.headers["content-type"] == "application/problem+json"
    assert (await queue.client.get("/v1/stats")).status_code == 401
    assert (await submit(queue, task)).status_code == 201, "no refusal has changed anything"


JSON = {"content-type": "application/json"}


async def test_another_projects_task_is_not_found(queue: Running) -> None:
    await queue.deliver(project("second"), selected("smp_a"))
    (task,) = await claim(queue)
    for method, url in (
        ("GET", f"/v1/tasks/{task['id']}?project=second"),
        ("POST", f"/v1/tasks/{task['id']}:release?project=second"),
        ("POST", f"/v1/tasks/{task['id']}/annotations?project=second"),
    ):
        body = {"json": {"epoch": 1, **({"value": "cat"} if "annot" in url else {})}} if method == "POST" else {}
        assert (await queue.call(method, url, "operator", **body)).status_code == 404
    headers = {"authorization": "Bearer other-token"}
    assert (await queue.client.get("/v1/schemas/default", headers=headers)).status_code == 404


# Lists, schemas, exchange.


async def test_lists_page_through_every_task_once(queue: Running) -> None:
    await queue.deliver_batch([selected(f"smp_{number}") for number in range(25)])
    await submit(queue, (await claim(queue))[0])
    seen: list[str] = []
    cursor = ""
    while cursor is not None:
        page = (await queue.call("GET", f"/v1/tasks?state=queued&limit=10{cursor}")).json()
        seen += [row["sample_id"] for row in page["items"]]
        cursor = f"&cursor={page['cursor']}" if page["cursor"] else None
    assert (len(seen), len(set(seen))) == (24, 24)


@pytest.mark.parametrize(("rule", "left"), [("keep", 0), ("requeue", 1), ("prelabel", 1)])
async def test_a_schema_that_drops_a_used_label_says_what_becomes_of_it(queue: Running, rule: str, left: int) -> None:
    await queue.deliver(project(revision=2, suggestions="topk"), selected("smp_a"), selected("smp_b"))
    for task, value in zip(await claim(queue, 2), ["owl", "cat"], strict=True):
        await submit(queue, task, value)
    await queue.published()
    now = await queue.call("GET", "/v1/schemas/default")
    match = {"if-match": now.headers["etag"]}
    change = {"labels": ["cat", "dog", "cow"]}
    assert (await queue.call("PUT", "/v1/schemas/default", json=change, headers=match)).status_code == 422
    assert (await queue.call("PUT", "/v1/schemas/default", json=change, headers={"if-match": '"9"'})).status_code == 412
    done = await queue.call("PUT", "/v1/schemas/default", json={**change, "on_change": rule}, headers=match)
    assert (done.status_code, done.json()["version"], done.headers["etag"]) == (201, 2, '"2"')
    again = await queue.call("PUT", "/v1/schemas/default", json=change, headers=match)
    assert again.status_code == 412
    assert len(await queue.data(LabelRetracted)) == left
    tasks = await claim(queue, 5)
    assert [(task["sample_id"], task["schema_version"]) for task in tasks] == [("smp_a", 2)] * left
    assert [task["suggestion"]["label"] for task in tasks] == [{"requeue": "dog", "prelabel": "owl"}.get(rule)] * left
    if tasks:
        assert (await submit(queue, tasks[0], "owl")).status_code == 422
        assert (await submit(queue, tasks[0], "cow", schema_version=1)).status_code == 409
        assert (await submit(queue, tasks[0], "cow", schema_version=2)).status_code == 201


async def test_import_takes_each_line_for_itself(queue: Running) -> None:
    row = line(9)
    stored = {"uri": "blob:samples/default/aa/b", "sha256": "a" * 64, "bytes": 3, "media_type": "image/png"}
    known = sample_id("default", "known")
    results = await upload(
        queue,
        [
            row,
            row,
            line(10, "dog", key="own key"),
            {"sample_id": known, "content": stored, "value": "owl"},
            {**row, "value": "cow"},
            {**row, "data": "!"},
            {**row, "data": base64.b64encode(b"no picture").decode()},
            {**row, "nonsense": 1},
            {"row": {"a": 1}, "value": "cat"},
            {"value": "cat"},
            b"{broken",
            b'{"value": NaN}',
            b"[1]",
            {"sample_id": known, "content": {**stored, "uri": "blob:samples/other/aa/b"}, "value": "owl"},
            {"sample_id": known, "content": {**stored, "uri": "blob:samples/default/../../x"}, "value": "owl"},
            {**line(11), "value": ["cat"]},
        ],
        "evaluation",
    )
    expected = [201, 200, 201, 201, 422, 422, 422, 422, 422, 422, 400, 422, 422, 422, 422, 422]
    assert [result["status"] for result in results] == expected
    assert [result["line"] for result in results] == list(range(len(results)))
    content = png(9)
    assert results[0]["sample_id"] == sample_id("default", sha256(content))
    assert queue.blobs.contents[f"blob:samples/default/{sha256(content)[:2]}/{sha256(content)}"] == content
    accepted = await queue.data(LabelAccepted)
    assert [(event["value"], event["split"], event["origin"]) for event in accepted] == [
        (value, "evaluation", "import") for value in ("cat", "dog", "owl")
    ]
    assert (await upload(queue, [{**row, "value": "dog"}]))[0]["status"] == 409
    assert (await stats(queue))["asked"] == 0


@pytest.mark.parametrize("split", ["evaluation", "gold", "train"])
async def test_an_imported_sample_is_never_asked(queue: Running, split: str) -> None:
    (result,) = await upload(queue, [line(1)], split)
    await queue.published()
    for number in range(3):
        await queue.deliver(selected(result["sample_id"], f"rnd_{number}"))
    assert kinds(await queue.published()) == (["task.skipped"] if split == "gold" else [])
    assert await claim(queue) == []


async def test_labels_for_queued_tasks_can_come_from_elsewhere(queue: Running) -> None:
    name = sample_id("default", sha256(png(5)))
    await queue.deliver(selected(name))
    (task,) = await claim(queue)
    assert (await upload(queue, [line(5, "owl")]))[0]["status"] == 201
    assert (await stats(queue))["accepted"] == 1
    assert (await submit(queue, task, "cat")).status_code == 409
    (accepted,) = await queue.data(LabelAccepted)
    assert (accepted["value"], accepted["origin"], accepted["predicted"]["label"]) == ("owl", "import", "dog")


async def test_a_table_takes_rows_with_keys(queue: Running) -> None:
    columns = InputSpec.tabular([TabularColumn(name="a")]).model_dump(mode="json")
    await queue.deliver(project("table", task="tabular-classification", input=columns))
    rows = [{"row": {"a": 1.5}, "value": "cat", "key": key} for key in ("r1", "r2")]
    body = b"\n".join(map(orjson.dumps, rows))
    answer = await queue.call("POST", "/v1/import?project=table", "operator", content=body)
    assert [result["status"] for result in answer.json()["results"]] == [201, 201]
    assert len({result["sample_id"] for result in answer.json()["results"]}) == 2


async def test_export_gives_every_accepted_label_in_both_forms(queue: Running) -> None:
    await upload(queue, [line(shade, LABELS[shade % 3]) for shade in range(250)])
    await queue.deliver(selected("smp_open"))
    answer = await queue.call("GET", "/v1/export?format=jsonl", "viewer")
    rows = [orjson.loads(raw) for raw in answer.text.splitlines()]
    assert (len(rows), len({row["sample_id"] for row in rows})) == (250, 250)
    table = list(csv.DictReader(io.StringIO((await queue.call("GET", "/v1/export?format=csv")).text)))
    assert [row["value"] for row in table] == [row["value"] for row in rows]


# Restarts, replicas, many hands.


async def test_a_restart_in_the_middle_of_a_lease_loses_and_doubles_nothing(tmp_path: Path, ports: Ports) -> None:
    async with started(create, tmp_path, ports=ports) as first:
        await first.deliver(project())
        await first.deliver_batch([selected(f"smp_{number}", priority=number / 10) for number in range(6)])
        held = await claim(first, 2, "ann")
        done = await claim(first, 1, "bob")
        await submit(first, done[0], "dog", "bob")
        before = await stats(first)
    async with started(create, tmp_path, ports=ports) as again:
        assert await stats(again) == before
        assert [task["sample_id"] for task in await claim(again, 9, "cyd")] == ["smp_2", "smp_1", "smp_0"]
        assert (await submit(again, held[0], "cat", "ann")).status_code == 201
        again.clock.step(121)
        assert held[1]["id"] in {task["id"] for task in await claim(again, 9, "dan")}
        (flush,) = [work for _, work in again.service._loops if work.__name__ == "flush"]
        await flush()
        before = await stats(again)
    async with started(create, tmp_path, ports=ports) as third:
        assert await stats(third) == before
        assert before["by_class"] == {"cat": 1, "dog": 1}


@pytest.mark.parametrize("flushed", [False, True])
async def test_a_task_that_was_closed_and_opened_again_is_found_after_a_restart(
    tmp_path: Path, ports: Ports, flushed: bool
) -> None:
    async with started(create, tmp_path, ports=ports) as first:
        await first.deliver(project(), selected("smp_a"), selected("smp_b"))
        for task in await claim(first, 2):
            await submit(first, task)
        if flushed:
            (flush,) = [work for _, work in first.service._loops if work.__name__ == "flush"]
            await flush()
    async with started(create, tmp_path, ports=ports) as again:
        await again.call("POST", "/v1/samples/smp_a/label:retract", json={})
    async with started(create, tmp_path, ports=ports) as third:
        assert [task["sample_id"] for task in await claim(third, 2)] == ["smp_a"]
        assert (await stats(third))["accepted"] == 1


async def test_64_annotators_on_two_replicas_take_every_task_once(
    tmp_path: Path, ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = 7
    print(f"seed {seed}")
    rng = random.Random(seed)
    monkeypatch.setenv("HALFSURE_LABEL_QUEUE_REFRESH_SECONDS", "0")
    names = [f"smp_{number}" for number in range(400)]
    async with (
        started(create, tmp_path, ports=ports, replica=0) as one,
        started(create, tmp_path, ports=ports, replica=1) as two,
    ):
        await one.deliver(project())
        await two.deliver(project())
        await one.deliver_batch([selected(name) for name in names[:200]])
        await two.deliver_batch([selected(name) for name in names[150:]])
        answered, leases = await crowd([one, two], rng, annotators=64)
        assert set(leases.values()) == {1}, "a lease was given twice"
        assert answered == Counter(dict.fromkeys(names, 1))
        await two.service.outbox.drain()
        accepted = [e["data"]["sample_id"] for _, e in await one.published() if e["type"] == LabelAccepted.type]
        assert Counter(accepted) == answered
        for replica in (one, two):
            counts = await stats(replica)
            assert (counts["accepted"], counts["queued"], counts["leased"], counts["asked"]) == (400, 0, 0, 400)


async def test_the_limit_holds_over_replicas(tmp_path: Path, ports: Ports) -> None:
    async with (
        started(create, tmp_path, ports=ports, replica=0) as one,
        started(create, tmp_path, ports=ports, replica=1) as two,
    ):
        await one.deliver(project())
        await two.deliver(project())
        await one.deliver_batch([selected(f"smp_a{number}") for number in range(100)])
        await two.deliver_batch([selected(f"smp_b{number}") for number in range(100)])

        async def grab(replica: Running) -> None:
            body = {"n": 8, "annotator": "ann"}
            await replica.call("POST", "/v1/tasks:claim", "operator", json=body)

        await asyncio.gather(*(grab(replica) for replica in (one, two) * 8))
        page = (await one.call("GET", "/v1/tasks?limit=500")).json()["items"]
        held = [task for task in page if task["lease"] and task["lease"]["holder"] == "ann"]
        assert 8 <= len(held) <= 24


async def test_a_deleted_project_is_forgotten(queue: Running) -> None:
    await queue.deliver(selected("smp_a"))
    gone = project(revision=2).model_copy(update={"deleted": True})
    (tasks,) = [work.__self__ for _, work in queue.service._loops if work.__name__ == "flush"]  # type: ignore[attr-defined]
    assert set(tasks.books) == {"default"}
    await queue.deliver(gone)
    assert (await queue.call("GET", "/v1/stats")).status_code == 404
    assert tasks.books == {}, "the memory of it is given back"


async def test_a_project_that_is_looked_at_while_it_is_deleted_stays_deleted(
    queue: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = queue.state.commit

    async def looked_at(ops: Any) -> Any:
        await queue.call("GET", "/v1/stats")
        return await commit(ops)

    monkeypatch.setattr(queue.state, "commit", looked_at)
    await queue.deliver(project(revision=2).model_copy(update={"deleted": True}))
    assert (await queue.call("GET", "/v1/stats")).status_code == 404
