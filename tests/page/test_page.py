"""The page in Chromium in front of a whole stack: it keeps up with the hand, loses nothing, and is for everybody."""

import asyncio
import gzip
import io
import re
import statistics
from collections.abc import Mapping
from typing import Any

import pytest
from page.looking import AXE, DELAY, OUT, ROOT, World, until
from PIL import Image

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.page, pytest.mark.timeout(300)]

VIEWS = {
    "label": ("/label", "waiting"),
    "grid": ("/label?mode=grid", "waiting"),
    "binary": ("/label?mode=binary", "learning"),
    "empty": ("/label", "empty"),
    "boxes": ("/label", "told"),
    "text": ("/label", "letters"),
    "row": ("/label", "rows"),
    "series": ("/label", "machines"),
    "review": ("/review", "argued"),
    "dashboard": ("/dashboard", "learning"),
    "models": ("/models", "learning"),
    "try": ("/try", "learning"),
    "samples": ("/samples", "learning"),
    "people": ("/people", "learning"),
    "deadletters": ("/deadletters", "learning"),
    "settings": ("/settings", "learning"),
}
IN_THE_DOCS = {("label", "light"), ("grid", "dark"), ("boxes", "light"), ("series", "dark"), ("dashboard", "light")}


async def ready(page: Any) -> None:
    """Until a sample is shown, and those after it have been fetched."""
    await page.wait_for_selector("[data-task]")
    await until(page, "!document.querySelector('.stage .loading')")
    await page.wait_for_timeout(800)


async def saved(page: Any, seconds: float = 30) -> None:
    await until(page, "document.querySelector('.kept')?.textContent === 'All saved'", seconds)


async def answers(world: World, project: str, pressed: list[list[str]]) -> Mapping[str, list[tuple[str, str]]]:
    """What the server has on record of each task that was answered."""
    found = {}
    for task, _ in pressed:
        record = await world.task(project, task)
        found[task] = [(one["value"], one["kind"]) for one in record["answers"]]
    return found


async def test_the_next_sample_is_painted_before_the_finger_is_up(world: World, report: dict[str, Any]) -> None:
    async with world.page("/label", delay=DELAY) as page:
        await ready(page)
        for at in range(100):
            await page.keyboard.press(str(at % 10))
            await until(page, f"paints.length > {at}")
            await page.wait_for_timeout(150)
        paints = await page.evaluate("paints")
        await saved(page)
    report["key_to_paint_p95_ms"] = round(statistics.quantiles(paints, n=20)[-1], 1)
    report["key_to_paint_p50_ms"] = round(statistics.median(paints), 1)
    report["keys_measured"] = len(paints)
    assert report["key_to_paint_p95_ms"] <= 50


async def test_a_burst_of_keys_and_a_killed_queue_lose_nothing(world: World, report: dict[str, Any]) -> None:
    async with world.page("/label", delay=DELAY) as page:
        await ready(page)
        for at in range(10):
            await page.keyboard.press(str(at))
            if at == 4:
                world.stack.kill("label-queue")
        pressed = await page.evaluate("pressed")
        assert len(dict(pressed)) == 10
        await world.stack.wait_ready("label-queue")
        await saved(page, 60)
    found = await answers(world, "waiting", pressed)
    report["burst_lost"] = sum(found[task] == [] for task, _ in pressed)
    report["burst_twice"] = sum(len(found[task]) > 1 for task, _ in pressed)
    assert found == {task: [(key, "counted")] for task, key in pressed}


async def test_what_was_answered_without_a_server_is_kept_over_a_reload_and_sent_once(world: World) -> None:
    """The page is there, the services are not: answers wait in the browser, through a reload, for one that is."""
    async with world.page("/label") as page:
        await ready(page)
        await page.route("**/api/**", lambda route: route.abort())
        for key in "12345":
            await page.keyboard.press(key)
        await until(page, "document.querySelector('.kept').textContent.includes('5 kept in this browser')")
        pressed = await page.evaluate("pressed")
        assert len(pressed) == 5
        assert list((await answers(world, "waiting", pressed)).values()) == [[]] * 5
        await page.reload()
        await page.wait_for_selector("text=The server does not answer")
        await page.unroute("**/api/**")
        await page.wait_for_selector("[data-task]")
        await saved(page)
    assert await answers(world, "waiting", pressed) == {task: [(key, "counted")] for task, key in pressed}


async def test_undo_takes_back_what_was_sent_and_what_was_not(world: World) -> None:
    async with world.page("/label", delay=DELAY) as page:
        await ready(page)
        first = await page.get_attribute("[data-task]", "data-task")
        for key in "12":
            await page.keyboard.press(key)
        await saved(page)
        for _ in "12":
            await page.keyboard.press("u")
        assert await page.get_attribute("[data-task]", "data-task") == first
        for key in "34":
            await page.keyboard.press(key)
        await saved(page)
        pressed = [pair for pair in await page.evaluate("pressed") if pair[1] != "u"]
    found = await answers(world, "waiting", pressed)
    assert list(found.values()) == [[("1", "void"), ("3", "counted")], [("2", "void"), ("4", "counted")]]


async def test_a_skip_says_why_and_can_be_taken_back(world: World) -> None:
    async with world.page("/label") as page:
        await ready(page)
        task = await page.get_attribute("[data-task]", "data-task")
        await page.keyboard.press(" ")
        await page.keyboard.press("1")
        await page.keyboard.press("Backspace")
        assert await page.get_attribute("[data-task]", "data-task") == task
        await page.keyboard.press("s")
        await page.keyboard.press("2")
        await saved(page)
    record = await world.task("waiting", task)
    assert (record["state"], record["skip_reason"]) == ("SKIPPED", "bad sample")


async def test_the_model_speaks_after_the_answer_and_both_are_on_record(world: World) -> None:
    """Row 4.22: the suggestion is in no claim; where it differs, one key keeps the answer or changes it."""
    claims: list[str] = []

    async def note(response: Any) -> None:
        if response.url.partition("?")[0].endswith("tasks:claim") and response.status == 200:
            claims.append(await response.text())

    async with world.page("/label", "learning") as page:
        page.on("response", lambda response: asyncio.ensure_future(note(response)))
        await page.reload()
        await ready(page)
        for _ in range(12):
            task = await page.get_attribute("[data-task]", "data-task")
            prelabel = (await world.task("learning", task or ""))["prelabel"]["label"]
            other = str((int(prelabel) + 1) % 10)
            await page.keyboard.press(other)
            await saved(page)
            if await page.locator(".second").count():
                break
        await page.keyboard.press("n")
        await saved(page)
    record = await world.task("learning", task or "")
    assert [(one["value"], one["kind"]) for one in record["answers"]] == [(other, "revised"), (prelabel, "counted")]
    assert record["answers"][1]["revises"] == record["answers"][0]["id"]
    assert record["answers"][0]["suggestion"] == "after"
    assert claims
    assert not any("suggestion" in claim or "prelabel" in claim for claim in claims)


async def test_many_at_once_by_keyboard_alone(world: World) -> None:
    async with world.page("/label?mode=grid") as page:
        await page.wait_for_selector(".grid [role=option]")
        await page.wait_for_timeout(500)
        for key in "123":
            await page.keyboard.press(key)
        await page.keyboard.press("x")
        await until(page, "document.querySelectorAll('.grid .picked').length === 3")
        await page.keyboard.press("Enter")
        await until(page, "document.querySelector('.label [role=status]').textContent.includes('3 saved, 1 left out')")
        await saved(page)


async def test_it_works_by_tab_and_enter_where_single_keys_are_off(world: World) -> None:
    """WCAG 2.1.4: keys of one character can be switched off, and changed."""
    async with world.page("/settings") as page:
        await page.get_by_role("checkbox").uncheck()
        await page.get_by_role("link", name="Label", exact=True).click()
        await ready(page)
        task = await page.get_attribute("[data-task]", "data-task")
        await page.keyboard.press("3")
        await page.keyboard.press("s")
        assert await page.get_attribute("[data-task]", "data-task") == task
        await page.get_by_role("button", name="7", exact=True).focus()
        await page.keyboard.press("Enter")
        await saved(page)
        assert (await answers(world, "waiting", [[task or "", "7"]]))[task or ""] == [("7", "counted")]
        await page.get_by_role("link", name="Settings").click()
        await page.get_by_role("checkbox").check()
        await page.get_by_role("button", name="Change for: Skip this sample").click()
        await page.keyboard.press("q")
        await page.get_by_role("link", name="Label", exact=True).click()
        await ready(page)
        await page.keyboard.press("s")
        assert await page.locator("dialog[open]").count() == 0
        await page.keyboard.press("q")
        await page.wait_for_selector("dialog[open]")


async def test_on_a_phone_by_touch(world: World) -> None:
    how = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
    async with world.page("/label", **how) as page:
        await ready(page)
        task = await page.get_attribute("[data-task]", "data-task")
        button = page.get_by_role("button", name="4", exact=True)
        box = await button.bounding_box()
        assert min(box["width"], box["height"]) >= 44
        await button.tap()
        await saved(page)
        assert (await answers(world, "waiting", [[task or "", "4"]]))[task or ""] == [("4", "counted")]
        width = await page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390
        OUT.joinpath("screenshots").mkdir(parents=True, exist_ok=True)
        await page.screenshot(path=OUT / "screenshots" / "label-phone.png")


async def test_it_says_why_there_is_nothing_to_ask(world: World) -> None:
    rest = world.rest("empty")
    document = {"name": "empty", "task": "image-classification", "labels": ["a", "b"]}
    spec = (await world.rest("waiting").get("retrain-trigger", "/v1/projects/waiting"))["input"]
    await rest.post("retrain-trigger", "/v1/projects", json={**document, "input": spec})
    await rest.close()
    async with world.page("/label", "empty") as page:
        await page.wait_for_selector("text=Nothing to ask right now")


async def test_the_token_leaves_the_address(world: World) -> None:
    async with world.page("/label") as page:
        await page.wait_for_selector("[data-task]")
        assert "token" not in page.url
        assert not await page.evaluate(
            "JSON.stringify(localStorage).includes(sessionStorage.getItem('halfsure.token'))"
        )
        assert not await page.evaluate("document.cookie")


async def test_models_are_promoted_and_rolled_back_and_the_page_follows_live(world: World) -> None:
    rest = world.rest("learning")
    older = (await rest.get("retrain-trigger", "/v1/models"))["items"][-1]["version"]
    await rest.post("retrain-trigger", f"/v1/models/{older}:activate", json={"reason": "a test", "force": True})
    await rest.close()
    async with world.page("/models", "learning") as page:
        await page.wait_for_selector(".card.active code")
        before = await page.get_attribute(".card.active code", "title")
        await page.get_by_role("button", name="Roll back").click()
        await page.get_by_label("Why").fill("a test")
        await page.locator("dialog").get_by_role("button", name="Roll back").click()
        await until(page, f"document.querySelector('.card.active code').title !== '{before}'")
        rest = world.rest("learning")
        await rest.post("retrain-trigger", f"/v1/models/{before}:activate", json={"reason": "a test", "force": True})
        await rest.close()
        await until(page, f"document.querySelector('.card.active code').title === '{before}'", 5)


async def test_a_dropped_sample_is_judged_and_goes_into_the_loop(world: World) -> None:
    """Row 3.11."""
    file = io.BytesIO()
    Image.linear_gradient("L").resize((8, 8)).save(file, "PNG")
    async with world.page("/try", "learning") as page:
        picture = {"name": "x.png", "mimeType": "image/png", "buffer": file.getvalue()}
        await page.set_input_files("input[type=file]", picture)
        await page.wait_for_selector("text=/Uncertainty 0\\.\\d\\d|Uncertainty 1\\.00/")
        await page.get_by_role("button", name="Put it into the loop").click()
        await page.wait_for_url("**/samples/smp_*")
        await page.wait_for_selector("text=Came in")


async def _box(page: Any) -> None:
    for key in ("y", "n", "Delete"):
        await page.keyboard.press(key)


async def _nothing(page: Any) -> None:
    """As it is."""


VIEWED = {"boxes": _box}  # what is done before a picture is taken


async def test_every_view_is_for_everybody_in_both_themes(kinds: World, report: dict[str, Any]) -> None:
    """Row 4.3: no violation that axe finds, and a picture of each for people to look at."""
    shots = OUT / "screenshots"
    shots.mkdir(parents=True, exist_ok=True)
    axe = AXE.read_text()
    found: list[str] = []
    for theme in ("light", "dark"):
        for name, (path, project) in VIEWS.items():
            async with kinds.page(path, project, color_scheme=theme) as page:
                await page.wait_for_selector("main :is(h1, [data-task], .grid, .notice)")
                await page.wait_for_timeout(1500)
                await VIEWED.get(name, _nothing)(page)
                picture = await page.screenshot(path=shots / f"{name}-{theme}.png")
                _small(picture, f"views/{name}-{theme}", (480, 300), 48)
                if (name, theme) in IN_THE_DOCS:
                    _small(picture, f"{name}-{theme}")
                await page.evaluate(axe)
                result = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
                found += [
                    f"{name} {theme}: {one['id']} {node['target']} {node['failureSummary']}"
                    for one in result["violations"]
                    for node in one["nodes"]
                ]
    report["axe_violations"] = len(found)
    report["views_checked"] = 2 * len(VIEWS)
    assert found == []


def _small(picture: bytes, name: str, size: tuple[int, int] = (960, 600), colours: int = 200) -> None:
    """For the docs: smaller, and of few colours."""
    image = Image.open(io.BytesIO(picture)).convert("RGB").resize(size, Image.Resampling.LANCZOS)
    path = OUT / "docs" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    image.quantize(colours, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(path, optimize=True)
    assert path.stat().st_size < 60_000


async def test_it_is_small_and_asks_nothing_of_anybody_else(world: World, report: dict[str, Any]) -> None:
    """Last: of all that the pages above have asked for, nothing went to another host, and all of it is public."""
    report["js_gzip_bytes"] = len(gzip.compress((ROOT / "services/portal/static/app.js").read_bytes()))
    report["external_requests"] = len(world.foreign)
    assert world.foreign == []
    assert report["js_gzip_bytes"] <= 40 * 1024
    public: dict[str, list[re.Pattern[str]]] = {}
    rest = world.rest("waiting")
    for app_id in world.stack.app_ids:
        described = (
            await rest.get(app_id, "/v1/openapi.json")
            if app_id != "portal"
            else {"paths": {"/v1/me": 0, "/v1/events": 0}}
        )
        public[app_id] = [re.compile(re.sub(r"\{[^}]*\}", "[^/:]+", path)) for path in described["paths"]]
    await rest.close()
    calls = {path for _, path in world.called if path.startswith(("/api/", "/v1/"))}
    assert len(calls) > 20
    for path in calls:
        _, _, app_id, route = path.split("/", 3) if path.startswith("/api/") else ("", "", "portal", path[1:])
        assert any(one.fullmatch(f"/{route}") for one in public[app_id]), path
