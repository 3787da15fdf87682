"""A browser in front of a whole stack: its pages, and what they ask for."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx2

from services.cli.rest import Rest
from services.cli.stack import Stack
from services.contracts.envelope import CONTENT_TYPE, wrap
from services.contracts.events import Event

ROOT = Path(__file__).parents[2]
OUT = ROOT / "out" / "labels"
AXE = ROOT / "services" / "portal" / "web" / "node_modules" / "axe-core" / "axe.min.js"
DELAY = 80  # ms added to every answer
PROBE = """
window.paints = []; window.pressed = [];
const shown = () => document.querySelector('[data-task]')?.dataset.task;
addEventListener('keydown', (event) => {
  const [began, before] = [event.timeStamp, shown()];
  if (!before) return;
  pressed.push([before, event.key]);
  const look = () => {
    const now = shown();
    if (now && now !== before && !document.querySelector('.stage .loading')) {
      // A message that is posted in a frame arrives once the frame is painted.
      const channel = new MessageChannel();
      channel.port1.onmessage = () => paints.push(performance.now() - began);
      channel.port2.postMessage(0);
    } else if (performance.now() - began < 5000) requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
}, true);
"""


async def until(page: Any, what: str, seconds: float = 30) -> None:
    """Until an expression is true on the page, whose policy forbids to evaluate it there again and again."""
    deadline = time.monotonic() + seconds
    while not await page.evaluate(what):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        await asyncio.sleep(0.02)


class World:
    """The running stack, and the browser that looks at it."""

    def __init__(self, stack: Stack, browser: Any) -> None:
        self.stack = stack
        self.browser = browser
        self.url = stack.url("portal")
        self.foreign: list[str] = []
        self.called: set[tuple[str, str]] = set()

    def rest(self, project: str) -> Rest:
        """The public API by way of the portal, as the page has it."""
        return Rest(lambda app_id: f"{self.url}/api/{app_id}", self.stack.token, project)

    @asynccontextmanager
    async def page(
        self, path: str, project: str = "waiting", delay: int = 0, token: str | None = None, **how: Any
    ) -> AsyncIterator[Any]:
        """A page of its own; what it asks of other hosts is noted, and an error on it fails the test."""
        context = await self.browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **how})
        page = await context.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", self._note)
        await page.add_init_script(PROBE)
        if delay:
            session = await context.new_cdp_session(page)
            await session.send("Network.enable")
            limits = {"offline": False, "latency": delay, "downloadThroughput": -1, "uploadThroughput": -1}
            await session.send("Network.emulateNetworkConditions", limits)
        await page.goto(f"{self.url}{path}{'&' if '?' in path else '?'}{urlencode(self.credentials(project, token))}")
        try:
            yield page
        finally:
            # As somebody who goes elsewhere: the page then lets go of what it holds.
            await page.goto("about:blank")
            await page.wait_for_timeout(300)
            await context.close()
        assert errors == []

    def credentials(self, project: str, token: str | None = None) -> dict[str, str]:
        return {"token": token or self.stack.token, "project": project}

    def _note(self, request: Any) -> None:
        if not request.url.startswith(self.url):
            self.foreign.append(request.url)
        else:
            self.called.add((request.method, request.url[len(self.url) :].partition("?")[0]))

    async def publish(self, event: Event) -> None:
        """Through a sidecar, as any service does."""
        body = wrap(event, siteid="local", service="test", now=datetime.now(UTC))
        headers = {"dapr-api-token": self.stack.secrets.dapr_api, "content-type": CONTENT_TYPE}
        url = f"http://127.0.0.1:{self.stack.ports['ingest_http']}/v1.0/publish/pubsub/{event.topic}"
        async with httpx2.AsyncClient() as client:
            answer = await client.post(url, content=body, headers=headers)
        assert answer.status_code == 204, answer.text

    async def task(self, project: str, name: str) -> dict[str, Any]:
        rest = self.rest(project)
        try:
            return await rest.get("label-queue", f"/v1/tasks/{name}")
        finally:
            await rest.close()
