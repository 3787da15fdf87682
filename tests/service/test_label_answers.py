"""label-queue with several labels and with boxes: what is an answer, what many amount to, and what is told of them."""

import base64
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from conftest import Running, started
from crowd import CONTENT, claim, submit
from kinds import SPECS
from PIL import Image

from services.contracts.events import (
    LabelAccepted,
    LabelRetracted,
    LabelSubmitted,
    ProjectUpdated,
    SampleSelected,
    Top,
)
from services.contracts.ids import task_id
from services.contracts.tasks import kind_of
from services.contracts.values import checked
from services.label_queue.app import create
from services.runtime.ports import Ports

LABELS = ["cat", "dog", "owl"]
DETECTION, SEVERAL = "image-detection", "image-multi-label"


def project(task: str, revision: int = 1, **more: Any) -> ProjectUpdated:
    document = {
        "name": "default",
        "task": task,
        "labels": LABELS,
        "input": SPECS[kind_of(task)].model_dump(mode="json"),
        "extractor": {"artefact": CONTENT, "manifest": CONTENT},
        "quality": {"gold_share": 0.0, "blind_share": 0.0},
        "suggestions": "topk",
        "revision": revision,
        **more,
    }
    return ProjectUpdated(project="default", revision=revision, document=document)


def box(x: float = 0.1, label: str = "cat", **more: float) -> dict[str, Any]:
    return {"label": label, "x": x, "y": 0.1, "width": 0.2, "height": 0.2, **more}


def boxes(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"boxes": list(rows)}


def selected(name: str, prelabel: Top | None = None, **more: Any) -> SampleSelected:
    return SampleSelected.model_validate(
        {
            "project": "default",
            "sample_id": name,
            "round_id": "rnd_1",
            "content": CONTENT,
            "priority": 0.5,
            "reasons": ["margin"],
            "policy": {"id": "default", "version": 1},
            "strategy": "margin",
            "seed": 1,
            "prelabel": prelabel.model_dump() if prelabel else None,
            "model_version": "mdl_1",
            **more,
        }
    )


@pytest.fixture
async def queue(tmp_path: Path, ports: Ports, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    monkeypatch.setenv("HALFSURE_LABEL_QUEUE_QUALITY_SECONDS", "0")
    async with started(create, tmp_path, ports=ports) as running:
        yield running


async def by_class(queue: Running) -> dict[str, int]:
    return (await queue.call("GET", "/v1/stats")).json()["by_class"]


async def test_boxes_are_suggested_answered_and_accepted(queue: Running) -> None:
    said = Top(label="cat", confidence=0.7, value=boxes(box(0.1), box(0.5, "dog")))
    await queue.deliver(project(DETECTION), selected("smp_a", said), selected("smp_b", said))
    assert (await queue.call("GET", "/v1/schemas/default")).json()["task"] == DETECTION
    first, second = await claim(queue, 2)
    assert first["suggestion"]["value"] == said.value
    assert (await submit(queue, first, said.value)).status_code == 201
    answer = await submit(queue, second, boxes(box(0.5, "dog"), box(0.1000004)), seconds=3)
    assert (answer.status_code, answer.json()["value"]) == (201, said.value)
    assert (await submit(queue, second, said.value)).status_code == 200, "the same answer in another form"
    published = [event for _, event in await queue.published()]
    given = [event["data"] for event in published if event["type"] == LabelSubmitted.type]
    assert [row["changed_from_prelabel"] for row in given] == [False, False]
    accepted = [event["data"] for event in published if event["type"] == LabelAccepted.type]
    assert [row["value"] for row in accepted] == [said.value] * 2
    assert accepted[0]["predicted"]["value"] == said.value
    assert await by_class(queue) == {"cat": 2, "dog": 2}


async def test_a_moved_box_is_a_change_and_no_disagreement(queue: Running) -> None:
    await queue.deliver(project(DETECTION), selected("smp_a", Top(label="cat", confidence=0.7, value=boxes(box()))))
    (task,) = await claim(queue)
    await submit(queue, task, boxes(box(0.12)))
    (given,) = await queue.data(LabelSubmitted)
    assert given["changed_from_prelabel"] is True
    (who,) = (await queue.call("GET", "/v1/annotators", "reviewer")).json()["items"]
    assert who["blind_gap"]["shown"]["share"] == 1.0


BAD: list[tuple[str, Any, str, str]] = [
    (DETECTION, "cat", "/value", "no-boxes"),
    (DETECTION, boxes(box(), box(0.9)), "/value/boxes/1/x", "outside"),
    (DETECTION, boxes(box(width=0)), "/value/boxes/0", "no-area"),
    (DETECTION, boxes(box(label="fox")), "/value/boxes/0/label", "unknown-label"),
    (DETECTION, boxes({"label": "cat"}), "/value/boxes/0/x", "no-boxes"),
    (SEVERAL, "cat", "/value", "no-list"),
    (SEVERAL, ["cat", "fox"], "/value/1", "unknown-label"),
    (SEVERAL, ["cat", "cat"], "/value/1", "twice"),
]


@pytest.mark.parametrize(("task", "value", "pointer", "code"), BAD)
async def test_what_is_no_answer_is_refused_at_its_place(
    queue: Running, task: str, value: Any, pointer: str, code: str
) -> None:
    await queue.deliver(project(task), selected("smp_a"))
    (asked,) = await claim(queue)
    refused = await submit(queue, asked, value)
    assert refused.status_code == 422
    fault = refused.json()["errors"][0]
    assert (fault["pointer"], fault["code"]) == (pointer, code)
    assert (await submit(queue, asked, boxes() if task == DETECTION else [])).status_code == 201, "nothing is an answer"
    assert await by_class(queue) == {}


async def answered(queue: Running, *values: Any, name: str = "smp_a") -> dict[str, Any]:
    for at, value in enumerate(values):
        (task,) = await claim(queue, annotator=f"ann{at}")
        answer = await submit(queue, task, value, annotator=f"ann{at}")
        assert answer.status_code == 201, answer.text
    return (await queue.call("GET", f"/v1/tasks/{task_id('default', name)}")).json()


async def test_two_who_draw_nearly_the_same_agree_on_the_mean(queue: Running) -> None:
    await queue.deliver(project(DETECTION), selected("smp_a", required_labels=2))
    task = await answered(queue, boxes(box(0.1), box(0.5, "dog")), boxes(box(0.14), box(0.5, "dog")))
    assert (task["state"], task["value"], task["agreement"]) == ("ACCEPTED", boxes(box(0.12), box(0.5, "dog")), 1.0)
    assert checked(task["value"], DETECTION, LABELS) == task["value"]


async def test_who_cannot_agree_leaves_it_to_a_reviewer_who_is_told_what_most_drew(queue: Running) -> None:
    await queue.deliver(project(DETECTION), selected("smp_a", required_labels=2))
    dog = box(0.6, "dog")
    task = await answered(queue, boxes(box(0.1), dog), boxes(box(0.2), dog), boxes(box(0.1, "owl"), dog))
    assert task["state"] == "DISPUTED"
    assert task["suggested_answer"]["value"] == boxes(dog)
    path = f"/v1/tasks/{task['id']}:resolve"
    bad = await queue.call("POST", path, "reviewer", json={"value": boxes(box(0.95))})
    assert (bad.status_code, bad.json()["errors"][0]["pointer"]) == (422, "/value/boxes/0/x")
    done = await queue.call("POST", path, "reviewer", json={"value": boxes(dog, box(0.12))})
    assert (done.json()["state"], done.json()["value"]) == ("ACCEPTED", boxes(box(0.12), dog))
    assert done.json()["agreement"] == pytest.approx(1 / 3)


async def test_lists_are_accepted_whole(queue: Running) -> None:
    await queue.deliver(project(SEVERAL), selected("smp_a", required_labels=2))
    task = await answered(queue, ["dog", "cat"], ["cat"], ["cat", "dog"])
    assert (task["state"], task["value"]) == ("ACCEPTED", ["cat", "dog"])
    assert task["agreement"] == pytest.approx(2 / 3)
    assert await by_class(queue) == {"cat": 1, "dog": 1}
    told = (await queue.call("GET", "/v1/agreement")).json()
    assert {row["value"]: row["agreement"] for row in told["classes"]} == {"cat": 1.0, "dog": pytest.approx(0.5)}
    assert sorted(pair["agreement"] for pair in told["pairs"]) == [0.0, 0.0, 1.0]
    people = {row["annotator"]: row for row in (await queue.call("GET", "/v1/annotators", "reviewer")).json()["items"]}
    assert people["ann1"]["reliability"] < people["ann0"]["reliability"]


async def test_only_what_the_model_takes_for_a_label_is_claimed_by_it(queue: Running) -> None:
    said = {
        "smp_a": Top(label="cat", confidence=0.7, value=["cat", "owl"]),
        "smp_b": Top(label="dog", confidence=0.7, value=["dog"]),
        "smp_c": Top(label="owl", confidence=0.2, value=[]),
    }
    await queue.deliver(project(SEVERAL), *(selected(name, top) for name, top in said.items()))
    tasks = await claim(queue, 3, labels=["owl", "dog"])
    assert sorted(task["sample_id"] for task in tasks) == ["smp_a", "smp_b"]


@pytest.mark.parametrize("task", [DETECTION, SEVERAL])
async def test_a_schema_that_drops_a_label_asks_again_about_what_has_it(queue: Running, task: str) -> None:
    values = [["cat", "owl"], ["cat"], []]
    if task == DETECTION:
        values = [boxes(*(box(at / 3, name) for at, name in enumerate(names))) for names in values]
    await queue.deliver(project(task), *(selected(f"smp_{at}") for at in range(3)))
    given = {}
    for asked, value in zip(await claim(queue, 3), values, strict=True):
        given[asked["sample_id"]] = (await submit(queue, asked, value)).json()["value"]
    etag = {"if-match": (await queue.call("GET", "/v1/schemas/default")).headers["etag"]}
    change: dict[str, Any] = {"labels": ["cat"]}
    refused = await queue.call("PUT", "/v1/schemas/default", json=change, headers=etag)
    assert (refused.status_code, refused.json()["detail"].startswith("owl:")) == (422, True)
    change["on_change"] = "prelabel"
    assert (await queue.call("PUT", "/v1/schemas/default", json=change, headers=etag)).status_code == 201
    assert [row["sample_id"] for row in await queue.data(LabelRetracted)] == ["smp_0"]
    (again,) = await claim(queue, 3)
    assert again["suggestion"]["value"] == given["smp_0"]
    assert (await submit(queue, again, given["smp_0"])).status_code == 422
    assert await by_class(queue) == {"cat": 1}


async def test_a_gold_box_is_met_by_one_that_overlaps(queue: Running) -> None:
    await queue.deliver(project(DETECTION, quality={"gold_share": 0.5, "blind_share": 0.0}))
    lines = []
    for shade in range(40):
        file = io.BytesIO()
        Image.new("L", (4, 4), shade).save(file, "PNG")
        data = base64.b64encode(file.getvalue()).decode()
        lines.append(orjson.dumps({"data": data, "media_type": "image/png", "value": boxes(box())}))
    answer = await queue.call("POST", "/v1/import?split=gold", "operator", content=b"\n".join(lines))
    assert {row["status"] for row in answer.json()["results"]} == {201}
    await queue.deliver_batch([selected(f"smp_{at}") for at in range(20)])
    tasks = await claim(queue, 20, annotator="ann")
    for task in tasks:
        await submit(queue, task, boxes(box(0.12)), annotator="ann")
    rows = (await queue.call("GET", "/v1/annotators", "reviewer")).json()["items"]
    (who,) = [row for row in rows if row["annotator"] == "ann"]
    assert who["gold"]["share"] == 1.0


async def test_books_count_the_same_after_a_restart(tmp_path: Path, ports: Ports) -> None:
    values = [boxes(box(0.1), box(0.4, "dog")), boxes(box(0.1)), boxes()]
    told = []
    for at in range(2):
        (tmp_path / str(at)).mkdir()
        async with started(create, tmp_path / str(at), ports=ports) as running:
            if not at:
                await running.deliver(project(DETECTION), *(selected(f"smp_{n}") for n in range(3)))
                for task, value in zip(await claim(running, 3), values, strict=True):
                    await submit(running, task, value)
            told.append((await by_class(running), (await running.call("GET", "/v1/export")).headers["etag"]))
    assert told[0] == told[1]
    assert told[0][0] == {"cat": 2, "dog": 1}


@pytest.mark.parametrize(
    ("task", "good", "bad"),
    [
        ("text-classification", {"text": "the cat sat", "value": "cat"}, {"text": "x", "value": ["cat"]}),
        ("text-multi-label", {"text": "the cat sat", "value": ["dog", "cat"]}, {"text": "x", "value": "cat"}),
        ("series-classification", {"points": [{"a": 1, "b": 2}] * 3, "value": "cat"}, {"points": [], "value": "cat"}),
        ("tabular-multi-label", {"row": {"a": 1, "b": 2}, "value": []}, {"row": {"a": 1}, "value": []}),
    ],
)
async def test_texts_and_windows_come_with_their_labels_and_go_out_again(
    queue: Running, task: str, good: dict[str, Any], bad: dict[str, Any]
) -> None:
    await queue.deliver(project(task))
    body = b"\n".join(map(orjson.dumps, (good, bad)))
    rows = (await queue.call("POST", "/v1/import", "operator", content=body)).json()["results"]
    assert [row["status"] for row in rows] == [201, 422]
    value = checked(good["value"], task, LABELS)
    assert [row["value"] for row in await queue.data(LabelAccepted)] == [value]
    for form in ("jsonl", "csv", "parquet"):
        out = await queue.call("GET", f"/v1/export?format={form}")
        again = await queue.call("POST", f"/v1/import?format={form}", "operator", content=out.content)
        assert [row["status"] for row in again.json()["results"]] == [200], form
    refused = await queue.call("GET", "/v1/export?format=coco")
    assert (refused.status_code, f"cannot carry {task}" in refused.json()["detail"]) == (406, True)
