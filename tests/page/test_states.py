"""What the page says when things are not as usual: a sample that is broken, a token that goes, another model."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from page.looking import World, until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.page, pytest.mark.timeout(300)]


@pytest.fixture
def tokens(world: World) -> Iterator[dict[str, str]]:
    """A viewer's and an annotator's token, for as long as the test lasts."""
    file = world.stack.home.tokens_file
    before = file.read_text()
    made = {role: f"{role}-of-the-page" for role in ("viewer", "annotator")}
    rows = [
        {"sha256": hashlib.sha256(token.encode()).hexdigest(), "subject": role, "role": role, "projects": ["*"]}
        for role, token in made.items()
    ]
    file.write_text(json.dumps({"tokens": json.loads(before)["tokens"] + rows}))
    yield made
    file.write_text(before)


async def ready(page: Any) -> str:
    await page.wait_for_selector("[data-task]")
    await until(page, "!document.querySelector('.stage .loading')")
    return await page.get_attribute("[data-task]", "data-task")


async def saved(page: Any) -> None:
    await until(page, "document.querySelector('.kept')?.textContent === 'All saved'")


async def test_a_sample_that_cannot_be_shown_is_skipped_and_told_of(world: World) -> None:
    broken: list[str] = []

    async def garble(route: Any) -> None:
        task = route.request.url.split("/tasks/")[1].partition("/")[0]
        if broken and task not in broken:
            return await route.continue_()
        broken.append(task)
        await route.fulfill(status=200, content_type="image/png", body=b"\x89PNG and nothing more")

    async with world.page("/settings") as page:
        await page.route("**/content*", garble)
        await page.get_by_role("link", name="Label", exact=True).click()
        await page.wait_for_selector(".strip .past >> text=skip")
        assert await ready(page) not in broken
        await saved(page)
        await page.unroute("**/content*")
    record = await world.task("waiting", broken[0])
    assert (record["state"], record["skip_reason"]) == ("SKIPPED", "cannot be shown")


async def test_a_skip_that_was_sent_is_taken_back_like_an_answer(world: World) -> None:
    async with world.page("/label") as page:
        task = await ready(page)
        await page.keyboard.press("s")
        await page.keyboard.press("3")
        await page.keyboard.press("4")
        await saved(page)
        assert (await world.task("waiting", task))["state"] == "SKIPPED"
        await page.get_by_role("button", name="Answer again: skipped").click()
        assert await page.get_attribute("[data-task]", "data-task") == task
        await page.keyboard.press("5")
        await saved(page)
    record = await world.task("waiting", task)
    assert (record["state"], record["value"]) == ("ACCEPTED", "5")


async def test_a_viewer_reads_and_changes_nothing(world: World, tokens: dict[str, str]) -> None:
    async with world.page("/models", "learning", token=tokens["viewer"]) as page:
        await page.wait_for_selector(".card.active")
        names = await page.locator("nav[aria-label=Views] a").all_inner_texts()
        assert {"Dashboard", "Models", "Try it", "Samples"} == set(names)
        for name in ("Promote", "Roll back"):
            assert await page.get_by_role("button", name=name).count() == 0
    async with world.page("/label", "learning", token=tokens["viewer"]) as page:
        await page.wait_for_selector("text=Label is not for this token")


async def test_whoever_is_signed_out_keeps_what_they_answered(world: World, tokens: dict[str, str]) -> None:
    file = world.stack.home.tokens_file
    known = file.read_text()
    async with world.page("/label", token=tokens["annotator"]) as page:
        task = await ready(page)
        file.write_text(json.dumps({"tokens": [t for t in json.loads(known)["tokens"] if t["subject"] != "annotator"]}))
        rest = world.rest("waiting")

        async def refused() -> bool:
            answer = await page.evaluate(
                f"fetch('/v1/me', {{headers: {{authorization: 'Bearer {tokens['annotator']}'}}}}).then((a) => a.status)"
            )
            return answer == 401

        for _ in range(200):
            if await refused():
                break
            await page.wait_for_timeout(100)
        await page.keyboard.press("6")
        await page.wait_for_selector("text=1 answer is kept in this browser")
        file.write_text(known)
        for _ in range(200):
            if not await refused():
                break
            await page.wait_for_timeout(100)
        await page.get_by_label("Token").fill(tokens["annotator"])
        await page.get_by_role("button", name="Open").click()
        await page.wait_for_selector("[data-task]")
        await saved(page)
        await rest.close()
    assert [(one["value"], one["kind"]) for one in (await world.task("waiting", task))["answers"]] == [("6", "counted")]


async def test_another_model_is_told_of_and_moves_nothing(world: World) -> None:
    rest = world.rest("learning")
    models = (await rest.get("retrain-trigger", "/v1/models"))["items"]
    active = next(one["version"] for one in models if one["state"] == "ACTIVE")
    other = next(one["version"] for one in models if one["version"] != active)
    async with world.page("/label", "learning") as page:
        task = await ready(page)
        await until(page, "document.querySelector('.live.on')")
        for version in (other, active):
            how = {"reason": "a test", "force": True}
            await rest.post("retrain-trigger", f"/v1/models/{version}:activate", json=how)
        await page.wait_for_selector("text=Another model is in service")
        assert await page.get_attribute("[data-task]", "data-task") == task
        await page.get_by_role("button", name="Close").click()
        assert await page.locator(".banner").count() == 0
    await rest.close()


async def test_the_guide_has_examples_and_the_goal_is_ones_own(world: World) -> None:
    async with world.page("/settings") as page:
        await page.get_by_label("Answers a day").fill("30")
        await page.get_by_label("Answers a day").blur()
        await page.get_by_role("link", name="Label", exact=True).click()
        await ready(page)
        await page.keyboard.press("7")
        await page.wait_for_selector("text=/1 of 30 today/")
        await saved(page)
        await page.keyboard.press("h")
        await page.wait_for_selector("dialog.drawer .examples canvas")
        await page.keyboard.press("Escape")
        await page.wait_for_selector("dialog", state="detached")
        await page.keyboard.press("l")
        await page.get_by_label("Part of the label's name").fill("3")
        await page.keyboard.press("Enter")
        await page.wait_for_selector("text=/2 of 30 today/")
        await saved(page)


async def test_every_figure_has_its_numbers(world: World) -> None:
    """Each chart of the dashboard as a table and as CSV; what random choice needed comes from a replay's report."""
    async with world.page("/dashboard", "learning") as page:
        await page.wait_for_selector("figure .chart")
        figures = await page.locator("figure.figure").count()
        assert figures >= 8
        for name in ("Table of", "CSV of"):
            assert await page.get_by_role("button", name=name).count() == figures
        async with page.expect_download() as started:
            await page.get_by_role("button", name="CSV of How the work goes").click()
        text = (await (await started.value).path()).read_bytes().decode()
        assert text.startswith("what,value\r\n")
        assert "seconds, p50" in text
        for service in ("ingest", "infer", "select-uncertain", "label-queue", "retrain-trigger"):
            assert await page.locator("tr", has_text=service).filter(has_text="ready").count() == 1
        curve = [{"labels": n, "accuracy": n / 500} for n in range(0, 501, 50)]
        file = {"name": "report.json", "mimeType": "application/json"}
        report = {**file, "buffer": json.dumps({"baseline_random": curve}).encode()}
        await page.set_input_files(".pick input", report)
        await page.wait_for_selector("text=/Labels saved against random choice: \\d+ \\(95 %: -?\\d+ to \\d+\\)/")
        await page.set_input_files(".pick input", {**file, "buffer": b"{}"})
        await page.wait_for_selector("text=is no report of a replay")
