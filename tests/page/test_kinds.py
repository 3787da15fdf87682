"""Every kind of sample on the page, and every kind of answer to it, as it is on record in the end."""

import asyncio
from typing import Any

import pytest
from page.kinds_of_sample import ARGUED
from page.looking import World, until
from page.stocking import Row

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.page, pytest.mark.timeout(300)]


async def ready(page: Any) -> str:
    """The task on the screen, once its sample is."""
    await page.wait_for_selector("[data-task]")
    await until(page, "!document.querySelector('.stage .loading')")
    return await shown(page)


async def shown(page: Any) -> str:
    return await page.get_attribute("[data-task]", "data-task")


async def saved(page: Any) -> None:
    await until(page, "document.querySelector('.kept')?.textContent === 'All saved'")


async def counted(world: World, name: str, task: str) -> Any:
    """The one answer that counts."""
    (answer,) = [one for one in (await world.task(name, task))["answers"] if one["kind"] == "counted"]
    return answer["value"]


async def sample_page(world: World, name: str) -> str:
    rest = world.rest(name)
    sample = (await rest.get("ingest", "/v1/samples", limit=1))["items"][0]["sample_id"]
    await rest.close()
    return f"/samples/{sample}"


async def test_a_text_is_read_as_text_and_has_several_labels_or_none(kinds: World) -> None:
    async with kinds.page("/label", "letters") as page:
        first = await ready(page)
        assert "invoice" in await page.inner_text(".stage .sample.text")
        for key in "1232":
            await page.keyboard.press(key)
        pressed = "[...document.querySelectorAll('.choice')].map((one) => one.getAttribute('aria-pressed')).join()"
        assert await page.evaluate(pressed) == "true,false,true"
        await page.keyboard.press("Enter")
        second = await shown(page)
        assert second != first
        assert await page.evaluate(pressed) == "false,false,false"
        await page.keyboard.press("Enter")
        await saved(page)
        await page.keyboard.press("u")
        await page.keyboard.press("u")
        assert await shown(page) == first
        assert await page.evaluate(pressed) == "true,false,true"
        await page.keyboard.press("1")
        await page.keyboard.press("Enter")
        await page.keyboard.press("Enter")
        await saved(page)
    assert await counted(kinds, "letters", first) == ["urgent"]
    assert await counted(kinds, "letters", second) == []
    async with kinds.page(await sample_page(kinds, "letters"), "letters") as page:
        await page.wait_for_selector(".stage .sample.text >> text=invoice")


async def test_a_row_says_how_far_from_the_mean_it_is(kinds: World) -> None:
    async with kinds.page("/label", "rows") as page:
        task = await ready(page)
        await page.wait_for_selector("[aria-label^='2.'][aria-label$='standard deviations from the mean']")
        assert await page.locator(".far svg").count() == 2
        assert "auto" in await page.inner_text(".sample.row")
        await page.keyboard.press("2")
        await saved(page)
        await page.keyboard.press("g")
        await page.wait_for_selector(".grid .sample.text >> text=auto")
        for key in ("Shift+ArrowRight", "Shift+ArrowRight", "1"):
            await page.keyboard.press(key)
        await until(page, "document.querySelectorAll('.grid .picked').length === 3")
    assert await counted(kinds, "rows", task) == "bad"
    async with kinds.page(await sample_page(kinds, "rows"), "rows") as page:
        await page.wait_for_selector(".stage .sample.row")


async def test_a_series_is_a_line_a_column_with_its_last_point_marked(kinds: World) -> None:
    async with kinds.page("/label", "machines") as page:
        task = await ready(page)
        assert await page.locator(".series figure").count() == 2
        points = await page.get_attribute(".series polyline >> nth=0", "points")
        assert len(points.split()) == 48
        assert await page.locator(".series .last").count() == 2
        assert "auto" in await page.inner_text(".sample.series")
        await page.keyboard.press("2")
        await saved(page)
    assert await counted(kinds, "machines", task) == "leak"
    async with kinds.page(await sample_page(kinds, "machines"), "machines") as page:
        await page.wait_for_selector(".stage .series figure")


async def drag(page: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    """From and to fractions of the picture."""
    at = [await place(page, *point) for point in (start, end)]
    await page.mouse.move(*at[0])
    await page.mouse.down()
    await page.mouse.move(*at[1], steps=3)
    await page.mouse.up()


async def place(page: Any, x: float, y: float) -> tuple[float, float]:
    """Where on the screen a fraction of the picture, which is 4 to 3, lies."""
    stage = await page.locator("svg.editor").bounding_box()
    width = min(stage["width"], stage["height"] * 4 / 3, 320 * 40)
    height = width * 3 / 4
    left, top = stage["x"] + (stage["width"] - width) / 2, stage["y"] + (stage["height"] - height) / 2
    return left + x * width, top + y * height


def near(box: Row, label: str, *sides: float) -> bool:
    """Within a pixel and a half of a 320 by 240 picture."""
    found = [box[name] for name in ("x", "y", "width", "height")]
    return box["label"] == label and all(abs(a - b) < 0.0065 for a, b in zip(found, sides, strict=True))


async def test_boxes_are_dragged_moved_and_taken_back(kinds: World) -> None:
    async with kinds.page("/label?mode=box", "scenes") as page:
        task = await ready(page)
        await drag(page, (0.1, 0.1), (0.4, 0.4))
        await page.keyboard.press("2")
        await drag(page, (0.25, 0.25), (0.35, 0.25))  # the chosen box itself, by ten per cent
        await drag(page, (0.5, 0.4), (0.6, 0.5))  # its lower right corner
        for key in ("ArrowRight", "Shift+ArrowDown", "Alt+ArrowLeft"):
            await page.keyboard.press(key)
        await page.keyboard.press("Escape")
        await page.keyboard.press("1")
        await drag(page, (0.7, 0.6), (0.9, 0.9))
        await page.keyboard.press("Delete")
        await page.keyboard.press("Control+z")
        assert await page.locator("[data-box]").count() == 2
        await page.keyboard.press("Enter")
        await saved(page)
    boxes = (await counted(kinds, "scenes", task))["boxes"]
    assert len(boxes) == 2
    assert near(boxes[0], "bright", 0.2 + 1 / 320, 0.1 + 10 / 240, 0.4 - 1 / 320, 0.4)
    assert near(boxes[1], "dark", 0.7, 0.6, 0.2, 0.3)


async def test_a_box_needs_no_pointer(kinds: World) -> None:
    """WCAG 2.1.1 and 2.5.7: made, moved, sized and left by keys alone, and told to a screen reader."""
    async with kinds.page("/label", "scenes") as page:
        task = await ready(page)
        await page.keyboard.press("a")
        for key in ("Shift+ArrowLeft", "Shift+ArrowUp", "Alt+Shift+ArrowRight", "Alt+Shift+ArrowDown", "2"):
            await page.keyboard.press(key)
        await page.keyboard.press("a")
        await page.focus("[data-box='0']")
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.getAttribute('aria-label')") == "bright, box 2 of 2"
        await page.keyboard.press("n")
        await until(page, "document.activeElement.getAttribute('aria-label') === 'bright, box 1 of 2'")
        await page.keyboard.press("n")
        await page.keyboard.press("Delete")
        await page.keyboard.press("Enter")
        await saved(page)
    (box,) = (await counted(kinds, "scenes", task))["boxes"]
    assert near(box, "bright", 0.35 - 10 / 320, 0.35 - 10 / 240, 0.3 + 10 / 320, 0.3 + 10 / 240)


async def test_four_taps_make_a_box(kinds: World) -> None:
    how = {"viewport": {"width": 820, "height": 1180}, "has_touch": True}
    async with kinds.page("/label", "scenes", **how) as page:
        task = await ready(page)
        await page.get_by_role("button", name="Four clicks").tap()
        for point in ((0.2, 0.1), (0.1, 0.3), (0.25, 0.5), (0.5, 0.2)):
            await page.touchscreen.tap(*await place(page, *point))
        await until(page, "document.querySelectorAll('[data-box]').length === 1")
        await page.get_by_role("button", name="Confirm").tap()
        await saved(page)
    (box,) = (await counted(kinds, "scenes", task))["boxes"]
    assert near(box, "dark", 0.1, 0.1, 0.4, 0.4)


async def test_what_the_model_sees_comes_after_the_answer_and_may_take_its_place(kinds: World) -> None:
    """Row 4.22, for boxes: no claim has them; where they differ, they are dashed, and a key changes to them."""
    claims: list[str] = []

    async def note(response: Any) -> None:
        if response.url.partition("?")[0].endswith("tasks:claim") and response.status == 200:
            claims.append(await response.text())

    async with kinds.page("/settings", "scenes") as page:
        page.on("response", lambda response: asyncio.ensure_future(note(response)))
        await page.get_by_role("link", name="Label", exact=True).click()
        task = await ready(page)
        assert await page.locator(".dashed").count() == 0
        await page.keyboard.press("Enter")
        await page.wait_for_selector(".second .dashed")
        assert await page.locator(".second .dashed").count() == 2
        await page.keyboard.press("n")
        await saved(page)
    assert claims
    assert not any("suggestion" in claim for claim in claims)
    record = await kinds.task("scenes", task)
    assert [one["kind"] for one in record["answers"]] == ["revised", "counted"]
    assert record["answers"][0]["value"] == {"boxes": []}
    assert record["value"] == record["prelabel"]["value"]
    assert near(record["value"]["boxes"][0], "dark", 0.0, 0.0, 0.5, 0.5)


async def test_boxes_that_are_told_before_are_taken_over_and_corrected(kinds: World) -> None:
    async with kinds.page("/label", "told") as page:
        task = await ready(page)
        await until(page, "document.querySelectorAll('.editor .dashed').length === 2")
        await page.mouse.click(*await place(page, 0.75, 0.75))  # one of them
        assert await page.locator("[data-box]").count() == 1
        await page.keyboard.press("Control+z")
        await page.keyboard.press("y")  # all of them
        await until(page, "document.querySelectorAll('[data-box]').length === 2")
        await page.keyboard.press("n")
        await page.keyboard.press("Delete")
        await page.keyboard.press("Enter")
        await saved(page)
        assert await page.locator(".second").count() == 0
        yes = await shown(page)
        await page.keyboard.press("b")
        await page.keyboard.press("y")
        await saved(page)
    (box,) = (await counted(kinds, "told", task))["boxes"]
    assert near(box, "bright", 0.5, 0.5, 0.5, 0.5)
    assert len((await counted(kinds, "told", yes))["boxes"]) == 2


async def test_disputed_boxes_are_settled_with_one_answer_or_a_corrected_one(kinds: World) -> None:
    rest = kinds.rest("argued")
    listed = await rest.get("label-queue", "/v1/tasks", state="disputed", limit=3)
    await rest.close()
    tasks = [one["id"] for one in listed["items"]]
    assert len(tasks) == 3
    async with kinds.page("/review", "argued") as page:
        await page.wait_for_selector(".dispute .opinions li:nth-child(3) .edge")
        grace = page.locator(".dispute").first.locator("li").filter(has_text="grace")
        await grace.get_by_role("button").click()
        await until(page, "document.querySelectorAll('.dispute').length === 2")
        await page.locator(".dispute").first.get_by_role("button", name="Another").click()
        await page.focus("dialog [data-box='0']")
        await page.keyboard.press("Shift+ArrowDown")
        await page.locator("dialog").get_by_role("button", name="bright").click()
        await page.locator("dialog").get_by_role("button", name="Decide").click()
        await until(page, "document.querySelectorAll('.dispute').length === 1")
    values = [(await kinds.task("argued", task))["value"] for task in tasks]
    found = [value["boxes"] for value in values if value]
    assert [ARGUED[1]] in found
    (other,) = [one for one in found if one != [ARGUED[1]]]
    assert near(other[0], "bright", 0.1, 0.1 + 10 / 240, 0.3, 0.3)
