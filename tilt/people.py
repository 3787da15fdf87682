"""What people do, for the buttons in Tilt: send samples, answer questions, ask for a training run."""

import argparse
import asyncio
import base64
import json
import subprocess
from pathlib import Path

from services.cli.datasets import Item, Split, digits
from services.cli.player import Plan
from services.cli.rest import Refused, Rest
from services.contracts.ids import sample_id, sha256

PORTS = {"ingest": 8101, "infer": 8102, "select-uncertain": 8103, "label-queue": 8104, "retrain-trigger": 8105}
SECRET = ("kubectl", "-n", "halfsure", "get", "secret", "halfsure-operator", "-o", "jsonpath={.data.token}")
CHUNK = 100
ANNOTATOR = "tilt"


def token(where: str) -> str:
    """The operator's, from the stack's folder or from the cluster's secret."""
    if where == "machine":
        return Path(".halfsure/token").read_text().strip()
    return base64.b64decode(subprocess.run(SECRET, capture_output=True, check=True).stdout).decode()


def plan() -> Plan:
    data = digits()
    return Plan(data, Split(data.items, (), ()), "uncertainty_coverage", len(data.items), 10, 0)


async def project(rest: Rest, plan: Plan) -> None:
    """Make it, or find that it is there."""
    document = plan.document()
    document["policy"] |= {"min_pool": 50, "settle_seconds": 5}
    try:
        await rest.post("retrain-trigger", "/v1/projects", json=document)
    except Refused as refused:
        if refused.status != 409:
            raise
    for _ in range(200):
        try:
            await rest.get("ingest", "/v1/samples", limit=1)
            return
        except Refused as refused:
            if refused.status != 404:
                raise
        await asyncio.sleep(0.1)


async def send(rest: Rest, plan: Plan) -> None:
    await project(rest, plan)
    sent = (await rest.get("ingest", "/v1/stats")).get("stored", 0)
    chunk = plan.data.items[sent : sent + CHUNK]
    content = "\n".join(json.dumps(item.body) for item in chunk).encode()
    headers = {"content-type": "application/x-ndjson"}
    await rest.post("ingest", "/v1/samples:batch", content=content, headers=headers)
    print(f"{len(chunk)} samples sent, {sent} before them")


async def annotate(rest: Rest, plan: Plan) -> None:
    truth: dict[str, Item] = {sample_id(plan.project, sha256(item.content)): item for item in plan.data.items}
    answered = 0
    while True:
        body = {"annotator": ANNOTATOR, "n": 10}
        answer = await rest.post("label-queue", "/v1/tasks:claim", json=body)
        tasks = answer["tasks"] if answer else []
        if not tasks:
            break
        for task in tasks:
            given = {"annotator": ANNOTATOR, "epoch": task["lease"]["epoch"], "value": truth[task["sample_id"]].label}
            name = task.get("id") or task["task_id"]
            await rest.post("label-queue", f"/v1/tasks/{name}/annotations", json=given)
        answered += len(tasks)
    print(f"{answered} questions answered, and none is open")


async def retrain(rest: Rest, _: Plan) -> None:
    run = await rest.post("retrain-trigger", "/v1/runs", json={"reason": "manual", "force": True})
    print(f"run {run['run_id']} is {run['state']}")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["send", "annotate", "retrain"])
    parser.add_argument("--on", choices=["machine", "cluster"], default="machine", help="where the loop runs")
    options = parser.parse_args()
    played = plan()
    rest = Rest(lambda app_id: f"http://127.0.0.1:{PORTS[app_id]}", token(options.on), played.project)
    try:
        await {"send": send, "annotate": annotate, "retrain": retrain}[options.action](rest, played)
    finally:
        await rest.close()


if __name__ == "__main__":
    asyncio.run(main())
