"""label-queue: questions that move to another place or give way, and those that somebody is at. Rows 4.20, 4.21, D7."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from conftest import Running, started
from crowd import claim, project, selected, submit

from services.contracts.envelope import wrap
from services.contracts.events import SampleEvicted, SampleReranked, TaskQueued, TaskSkipped, Top
from services.contracts.ids import task_id
from services.label_queue.app import create
from services.runtime.ports import Ports


@pytest.fixture
async def queue(tmp_path: Path, ports: Ports) -> AsyncIterator[Running]:
    async with started(create, tmp_path, ports=ports) as running:
        await running.deliver(project())
        await running.deliver(*(selected(name, priority=at) for name, at in (("a", 0.9), ("b", 0.5), ("c", 0.1))))
        await running.published()
        yield running


def reranked(name: str, priority: float, version: str = "mdl_2", **more: Any) -> SampleReranked:
    fields = {"project": "default", "sample_id": name, "round_id": "rnd_1", "model_version": version, **more}
    return SampleReranked(priority=priority, prelabel=Top(label="cat", confidence=0.7), **fields)


def evicted(name: str, why: Any = "evicted", round_id: str = "rnd_1") -> SampleEvicted:
    return SampleEvicted(project="default", sample_id=name, round_id=round_id, why=why)


async def order(running: Running) -> list[str]:
    return [task["sample_id"] for task in await claim(running, 10)]


async def test_what_waits_moves_to_its_new_place_on_every_replica(queue: Running, tmp_path: Path, ports: Ports) -> None:
    async with started(create, tmp_path, ports=ports, replica=1) as other:
        await queue.deliver(reranked("c", 0.95), reranked("a", 0.2), reranked("a", 0.2))
        task = (await other.call("GET", f"/v1/tasks/{task_id('default', 'c')}")).json()
        assert (task["priority"], task["model_version"], task["prelabel"]["label"]) == (0.95, "mdl_2", "cat")
    async with started(create, tmp_path, ports=ports, replica=1) as other:
        assert await order(other) == ["c", "b", "a"]


async def test_the_replica_that_hears_of_it_hands_tasks_out_in_the_new_order(queue: Running) -> None:
    await queue.deliver_batch([reranked("c", 0.95), reranked("a", 0.2)])
    assert await order(queue) == ["c", "b", "a"]


async def test_the_newest_model_has_the_last_word_in_whatever_order_it_comes(queue: Running) -> None:
    now = queue.clock.now()
    second, third = (
        orjson.loads(wrap(reranked(name, priority, version), siteid="test", service="test", now=now + later))
        for name, priority, version, later in (
            ("c", 0.95, "mdl_2", timedelta()),
            ("c", 0.7, "mdl_3", timedelta(seconds=9)),
        )
    )
    assert await queue.deliver_raw(SampleReranked.topic, [third]) == ["SUCCESS"]
    assert await queue.deliver_raw(SampleReranked.topic, [second]) == ["SUCCESS"]
    task = (await queue.call("GET", f"/v1/tasks/{task_id('default', 'c')}")).json()
    assert (task["priority"], task["model_version"]) == (0.7, "mdl_3")
    assert await order(queue) == ["a", "c", "b"]


async def test_who_is_at_a_question_keeps_it_and_finds_it_unchanged(queue: Running) -> None:
    """Rows D7, 4.20, 4.21: leased ones untouched."""
    (task,) = await claim(queue)
    await queue.deliver(reranked("a", 0.0), evicted("a"), evicted("a", "expired"))
    assert await queue.data(TaskSkipped) == []
    now = (await queue.call("GET", f"/v1/tasks/{task['id']}")).json()
    assert (now["state"], now["priority"], now["model_version"]) == ("LEASED", 0.9, "mdl_1")
    assert (await submit(queue, task)).status_code == 201


@pytest.mark.parametrize("why", ["evicted", "expired"])
async def test_what_waits_gives_way_once_and_may_be_asked_again_in_another_round(queue: Running, why: str) -> None:
    await queue.deliver(evicted("b", why), evicted("b", why))
    (skip,) = await queue.data(TaskSkipped)
    assert (skip["sample_id"], skip["reason"]) == ("b", why)
    assert await order(queue) == ["a", "c"]
    await queue.deliver(selected("b"))
    assert await queue.data(TaskQueued) == [], "the same round does not bring it back"
    await queue.deliver(selected("b", round_id="rnd_2"))
    (queued,) = await queue.data(TaskQueued)
    assert queued["lease_epoch"] == skip["lease_epoch"] + 1


async def test_what_is_answered_unknown_or_of_another_round_is_left_alone(queue: Running) -> None:
    (task,) = await claim(queue)
    assert (await submit(queue, task)).status_code == 201
    await queue.published()
    await queue.deliver(evicted("a"), reranked("a", 0.0), evicted("nobody"), evicted("b", round_id="rnd_0"))
    assert await queue.data(TaskSkipped) == []
    assert await order(queue) == ["b", "c"]
