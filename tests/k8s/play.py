"""What runs in the cluster's client pod: the demo's player, or a steady load. Each line of output is JSON.

python play.py play BUDGET BATCH      brings samples, answers, says how far it is, then what the counts are
python play.py load SECONDS           predicts and claims without retrying, and counts what fails
"""

import asyncio
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2

from services.cli.datasets import digits, split
from services.cli.player import Plan, Player, Progress
from services.cli.rest import Rest

APPS = ("ingest", "infer", "select-uncertain", "label-queue", "retrain-trigger")
TOKEN = Path("token").read_text().strip()
URLS = json.loads(os.environ.get("PLAY_URLS", "{}"))  # by app id, where they are not the cluster's


def url(app_id: str) -> str:
    return URLS.get(app_id, f"http://halfsure-{app_id}")


def say(**row: Any) -> None:
    print(json.dumps(row), flush=True)


async def counts(rest: Rest, plan: Plan, progress: Progress) -> dict[str, Any]:
    """What was lost and doubled between a sample's way in and its label's place in exactly one snapshot."""
    tasks = await rest.everything("label-queue", "/v1/tasks")
    asked = Counter(task["sample_id"] for task in tasks if task["state"] == "ACCEPTED" and task["round_id"])
    runs = (await rest.everything("retrain-trigger", "/v1/runs"))[::-1]  # as they were begun
    new: Counter[str] = Counter()
    seen: set[str] = set()
    doubled = sum(count - 1 for count in asked.values())
    for run in runs:
        rows = (await rest.get("retrain-trigger", f"/v1/snapshots/{run['snapshot']['id']}/content"))["train"]
        ids = [row["sample_id"] for row in rows]
        doubled += len(ids) - len(set(ids))
        new.update(set(ids) - seen)
        seen |= set(ids)
    doubled += sum(count - 1 for count in new.values())
    lost = (len(plan.split.pool) - progress.scored) + (plan.budget - len(asked)) + len(set(asked) - set(new))
    letters = {app: len((await rest.get(app, "/v1/deadletters"))["items"]) for app in APPS}
    return {
        "ingested": progress.ingested,
        "scored": progress.scored,
        "asked": len(asked),
        "accepted": progress.accepted,
        "in_snapshots": len(new),
        "models": len(runs),
        "accuracy": progress.accuracy,
        "lost": lost,
        "doubled": doubled,
        "dead_letters": sum(letters.values()),
        "runs": Counter(run["state"] for run in runs),
    }


async def play(budget: int, batch: int) -> None:
    data = digits()
    plan = Plan(data, split(data, 0), "uncertainty_coverage", budget, batch, 0)
    rest = Rest(url, TOKEN, plan.project)
    said = ""

    def show(progress: Progress) -> None:
        nonlocal said
        row = {name: getattr(progress, name) for name in ("phase", "ingested", "scored", "asked", "accepted")}
        row |= {"models": len(progress.rounds), "accuracy": progress.accuracy}
        if (line := json.dumps(row)) != said:
            said = line
            print(line, flush=True)

    player = Player(rest, plan, APPS, show)
    await player.make_project()
    progress = await player.play()
    say(final=await counts(rest, plan, progress))
    await rest.close()


async def load() -> None:
    """Predictions and claims side by side, each once: what a client sees that never tries again."""
    data = digits()
    plan = Plan(data, split(data, 0), "uncertainty_coverage", 1, 1, 0)
    inputs = [item.body for item in plan.split.test[:4]]
    ok: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    reading = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with httpx2.AsyncClient(headers=headers, timeout=30, trust_env=False) as http:

        async def client(app_id: str, path: str, body: dict[str, Any]) -> None:
            while not reading.done():
                try:
                    answer = await http.post(url(app_id) + path, params={"project": plan.project}, json=body)
                    reason = None if answer.status_code < 400 else f"{answer.status_code} {answer.text[:200]}"
                except httpx2.HTTPError as error:
                    reason = repr(error)
                if reason is None:
                    ok[app_id] += 1
                else:
                    failed[f"{app_id}: {reason}"] += 1
                await asyncio.sleep(0.05)

        say(started=True)
        await asyncio.gather(
            client("infer", "/v1/predict", {"inputs": inputs}),
            client("infer", "/v1/predict", {"inputs": inputs}),
            client("label-queue", "/v1/tasks:claim", {"annotator": "load", "n": 1}),
            client("label-queue", "/v1/tasks:claim", {"annotator": "load", "n": 1}),
        )
    say(ok=ok, failed=failed, failures=sum(failed.values()))


if __name__ == "__main__":
    what, *numbers = sys.argv[1:]
    asyncio.run(play(*map(int, numbers)) if what == "play" else load())
