"""A program that plays some annotators against a label-queue until there is nothing left: it is there to be killed.

It journals what it has been given and what was acknowledged, so that whoever kills it knows what must not be lost.
"""

import argparse
import asyncio
import json
import random
import time
from pathlib import Path
from typing import Any

import httpx2

DONE = "queued=0; leased=0"


class Client:
    """One process's annotators, over one connection pool."""

    def __init__(self, http: httpx2.AsyncClient, journal: Path, rng: random.Random) -> None:
        self._http = http
        self._rng = rng
        self._journal = journal.open("a", buffering=1)

    async def annotate(self, who: str) -> None:
        idle = 0
        while idle < 3:
            answer = await self._patiently("/v1/tasks:claim", {"n": self._rng.randint(1, 12), "annotator": who})
            idle = idle + 1 if answer.status_code == 204 and answer.headers.get("x-queue") == DONE else 0
            if answer.status_code != 200:
                await asyncio.sleep(0.3)
                continue
            for task in answer.json()["tasks"]:
                self._note("claimed", who, task)
            for task in answer.json()["tasks"]:
                await self._answer(who, task)

    async def _answer(self, who: str, task: dict[str, Any]) -> None:
        body = {"epoch": task["lease"]["epoch"], "annotator": who, "value": self._rng.choice(task["labels"])}
        answer = await self._patiently(f"/v1/tasks/{task['id']}/annotations", body)
        if answer.status_code in (200, 201):
            self._note("accepted", who, task, value=body["value"], state=answer.json()["state"])
        elif answer.json().get("type") != "urn:halfsure:problem:lease-lost":
            raise RuntimeError(f"{answer.status_code} {answer.text}")

    async def _patiently(self, path: str, body: dict[str, Any]) -> httpx2.Response:
        """The same request again and again while the service is away."""
        while True:
            try:
                answer = await self._http.post(path, json=body)
                if (answer.status_code < 500 and answer.status_code != 409) or "lease-lost" in answer.text:
                    return answer
            except httpx2.TransportError:
                pass
            await asyncio.sleep(0.1 + 0.2 * self._rng.random())

    def _note(self, what: str, who: str, task: dict[str, Any], **more: Any) -> None:
        row = {"what": what, "who": who, "task": task["id"], "epoch": task["lease"]["epoch"], "at": time.time(), **more}
        self._journal.write(json.dumps(row) + "\n")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("url", "token", "journal", "seed"):
        parser.add_argument(name)
    parser.add_argument("names", nargs="+")
    given = parser.parse_args()
    headers = {"authorization": f"Bearer {given.token}"}
    async with httpx2.AsyncClient(base_url=given.url, headers=headers, timeout=20, trust_env=False) as http:
        client = Client(http, Path(given.journal), random.Random(int(given.seed)))
        await asyncio.gather(*(client.annotate(name) for name in given.names))


if __name__ == "__main__":
    asyncio.run(main())
