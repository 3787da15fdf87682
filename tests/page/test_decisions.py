"""What reviewers and operators settle on the page: disputes between annotators, and events that were not handled."""

import pytest
from conftest import wait_until
from page.looking import World, until
from page.stocking import answered, ingest, project, queued

from services.cli.datasets import digits
from services.contracts.events import SampleSelected
from services.contracts.ids import sample_id, task_id

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.page, pytest.mark.timeout(300)]

TWICE = {"first_batch": 12, "batch": 12, "min_pool": 12, "required_labels": 2, "settle_seconds": 0.2}


async def test_a_dispute_is_settled_with_one_of_the_answers_or_with_another(world: World) -> None:
    data = digits()
    how = {"policy": TWICE, "quality": {"gold_share": 0.0}, "trigger": {"n": 1000}}
    rest = await project(world, "disputed", data.task, data.labels, data.input, **how)
    await ingest(rest, [item.body for item in data.items[100:112]])
    await queued(rest, 12)
    first, second = await answered(rest, [("ada", "1"), ("grace", "2"), ("linus", "3")], 2)
    await rest.close()
    assert {(await world.task("disputed", one))["state"] for one in (first, second)} == {"DISPUTED"}
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
    found = [await world.task("disputed", one) for one in (first, second)]
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
