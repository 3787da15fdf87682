"""What reviewers and operators settle on the page: disputes between annotators, and events that were not handled."""

from typing import Any

import pytest
from conftest import wait_until
from page.looking import World, until
from page.stocking import ingest, project, queued

from services.cli.datasets import digits
from services.contracts.events import SampleSelected
from services.contracts.ids import sample_id, task_id

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.page, pytest.mark.timeout(300)]

TWICE = {"first_batch": 12, "batch": 12, "min_pool": 12, "required_labels": 2, "settle_seconds": 0.2}


async def disagree(world: World, name: str) -> list[dict[str, Any]]:
    """A project in which three people have answered two samples, each otherwise; the tasks."""
    data = digits()
    rest = await project(
        world, name, data.task, data.labels, data.input, policy=TWICE, quality={"gold_share": 0.0}, trigger={"n": 1000}
    )
    await ingest(rest, [item.body for item in data.items[100:112]])
    await queued(rest, 12)
    tasks: list[dict[str, Any]] = []
    for who, value in (("ada", "1"), ("grace", "2"), ("linus", "3")):
        answer = await rest.post("label-queue", "/v1/tasks:claim", json={"annotator": who, "n": 12})
        claimed = {task["id"]: task for task in answer["tasks"]}
        tasks = tasks or list(claimed.values())[:2]
        for task in tasks:
            said = {"annotator": who, "epoch": claimed[task["id"]]["lease"]["epoch"], "value": value, "seconds": 1}
            await rest.post("label-queue", f"/v1/tasks/{task['id']}/annotations", json=said)
        for task in claimed.values():
            if task["id"] not in {one["id"] for one in tasks}:
                lease = {"annotator": who, "epoch": task["lease"]["epoch"]}
                await rest.post("label-queue", f"/v1/tasks/{task['id']}:release", json=lease)
    await rest.close()
    return tasks


async def test_a_dispute_is_settled_with_one_of_the_answers_or_with_another(world: World) -> None:
    first, second = await disagree(world, "disputed")
    assert {(await world.task("disputed", one["id"]))["state"] for one in (first, second)} == {"DISPUTED"}
    async with world.page("/review", "disputed") as page:
        await page.wait_for_selector(".dispute:nth-child(2)")
        assert await page.locator(".dispute").count() == 2
        await page.locator(".dispute").first.get_by_role("button", name="2", exact=True).click()
        await page.wait_for_selector("text=Decided: 2.")
        await until(page, "document.querySelectorAll('.dispute').length === 1")
        await page.locator(".dispute").get_by_role("button", name="Another").click()
        await page.locator("dialog").get_by_role("button", name="7", exact=True).click()
        await page.wait_for_selector("text=Decided: 7.")
        await page.wait_for_selector("text=No disputes")
    found = [await world.task("disputed", one["id"]) for one in (first, second)]
    assert sorted(one["value"] for one in found) == ["2", "7"]
    assert {(one["state"], one["resolved_by"]) for one in found} == {("ACCEPTED", "operator")}
    assert [len(one["answers"]) for one in found] == [3, 3]


async def test_a_dead_letter_is_replayed_once_what_it_lacked_is_there(world: World) -> None:
    """An event of a project that nobody knows is kept; after the project is made, replay gives what it would have."""
    name = sample_id("later", "0" * 64)
    content = {"uri": "blob:samples/later/00/x", "sha256": "0" * 64, "bytes": 1, "media_type": "image/png"}
    await world.publish(
        SampleSelected.model_validate(
            {
                **{"project": "later", "sample_id": name, "round_id": "rnd_1", "content": content, "priority": 0.5},
                **{"reasons": ["a test"], "policy": {"id": "default", "version": 1}, "strategy": "margin", "seed": 0},
            }
        )
    )
    async with world.page("/deadletters", "learning") as page:
        letter = page.locator(".card").filter(has_text="sample.selected").filter(has_text="label-queue")
        await letter.wait_for(timeout=30_000)
        await letter.get_by_role("button", name="Replay").click()
        await page.wait_for_selector("text=It is refused as before: There is no project 'later'.")
        data = digits()
        rest = await project(world, "later", data.task, data.labels, data.input)
        await letter.get_by_role("button", name="Replay").click()
        await page.wait_for_selector("text=Handled.")
        await letter.wait_for(state="detached")
        discard = page.get_by_role("button", name="Discard")
        while left := await discard.count():
            await discard.first.click()
            await until(page, f"document.querySelectorAll('.card').length < {left}")
        await page.wait_for_selector("text=None: every event was handled.", timeout=30_000)

    async def asked() -> bool:
        return (await rest.get("label-queue", f"/v1/tasks/{task_id('later', name)}"))["state"] == "QUEUED"

    await wait_until(asked, 20)
    await rest.close()
