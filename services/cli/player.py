"""Plays the people of a loop over the public REST API: brings samples, answers questions, watches the models."""

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.cli.datasets import Dataset, Item, Split, agreement
from services.cli.rest import Refused, Rest

CHUNK = 100  # samples in a request
CLAIM = 12  # tasks taken at a time
STALL_SECONDS = 150.0  # without any progress after which the play is given up
TRAINING_SECONDS = 900.0  # that a model may take: on a busy machine longer than people would be kept waiting for it
ANNOTATOR = "oracle"
ENDED = ("SUCCEEDED", "FAILED", "CANCELLED")


class Stalled(Exception):
    """The loop has stopped moving; the message says where."""


@dataclass(frozen=True)
class Plan:
    """What is played."""

    data: Dataset
    split: Split
    strategy: str
    budget: int
    batch: int
    seed: int

    @property
    def project(self) -> str:
        return re.sub(r"[^a-z0-9._-]+", "-", self.data.name.lower()).strip("-._")[:60] or "data"

    @property
    def delta(self) -> float:
        """The gate's tolerance; on few evaluation samples not even an equal model could be told from a worse one."""
        return round(max(0.02, 3 / max(len(self.split.evaluation), 1)), 3) if self.split.evaluation else 0.02

    def document(self) -> dict[str, Any]:
        """The project as retrain-trigger takes it."""
        return {
            "name": self.project,
            "task": self.data.task,
            "labels": list(self.data.labels),
            "input": self.data.input.model_dump(mode="json"),
            "policy": {
                "strategy": self.strategy,
                "cold_start": "random" if self.strategy == "random" else "coverage",
                "batch": self.batch,
                "low_water": 1,
                # The whole pool is on its way; what a killed sidecar had in hand comes again after a good minute.
                "min_pool": len(self.split.pool),
                "settle_seconds": 90,
                # Nobody waits for a question here, so each batch is chosen by the model of all labels before it.
                "wait_seconds": TRAINING_SECONDS,
                "budget": self.budget,
                "seed": self.seed,
                "audit": 1 if self.batch >= 10 else 0,
                "control": 1 if self.batch >= 10 else 0,
            },
            # The age is for a last batch that is smaller than the others.
            "trigger": {"n": self.batch, "min_per_class": 0, "max_age_seconds": 20},
            "gate": {"delta": self.delta},
            "training": {"seed": self.seed},
        }


@dataclass
class Progress:
    """What has happened so far, for whoever shows it."""

    phase: str = "starting"
    pool: int = 0
    ingested: int = 0
    scored: int = 0
    asked: int = 0
    accepted: int = 0
    in_snapshot: int = 0
    training: bool = False
    model_version: str | None = None
    accuracy: float | None = None
    rounds: list[dict[str, Any]] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)


class Player:
    """One play of one plan against a running stack."""

    pause = 0.2
    """Seconds between two looks while there is nothing to answer."""

    def __init__(
        self, rest: Rest, plan: Plan, app_ids: Sequence[str], show: Callable[[Progress], None] = lambda _: None
    ) -> None:
        self._rest = rest
        self._plan = plan
        self._app_ids = app_ids
        self._show = show
        self.labels: dict[str, str] = {}  # sample -> its true label, of all that was brought
        self.answered: dict[str, str] = {}  # task -> sample
        self._judged: set[str] = set()
        self._seen_counts: dict[str, Counter[str]] = {}
        self._moved_at = time.monotonic()
        self.progress = Progress(pool=len(plan.split.pool))

    async def make_project(self) -> None:
        """Say what is to be learnt."""
        self._enter("making the project")
        await self._rest.post("retrain-trigger", "/v1/projects", json=self._plan.document())
        # They hear of it by the bus.
        deadline = time.monotonic() + STALL_SECONDS
        while not await self._known():
            if time.monotonic() > deadline:
                raise Stalled("ingest and label-queue have not heard of the project; `halfsure logs` may say why")
            await asyncio.sleep(0.1)

    async def play(self) -> Progress:
        """From an empty project to the last label's model. Raises Stalled, Refused or ConnectionError."""
        self._enter("pinning the evaluation set")
        for chunk in _chunks(self._plan.split.evaluation):
            await self._import(chunk)
        self._enter("samples stream in")
        for chunk in _chunks(self._plan.split.pool):
            await self._ingest(chunk)
            await self._look()
        self._enter("the loop runs")
        while not await self._done():
            worked = await self._annotate()
            await self._look()
            if not worked:
                self._watch_for_stall()
                await asyncio.sleep(self.pause)
        self._enter("done")
        return self.progress

    async def _known(self) -> bool:
        try:
            await self._rest.get("ingest", "/v1/samples", limit=1)
            await self._rest.get("label-queue", "/v1/tasks", limit=1)
        except Refused as refused:
            if refused.status != 404:
                raise
            return False
        return True

    # What people do.

    async def _import(self, chunk: Sequence[Item]) -> None:
        body = _ndjson([{**item.body, "value": item.label} for item in chunk])
        answer = await self._rest.post("label-queue", "/v1/import", params={"split": "evaluation"}, **body)
        _all_taken(answer, "evaluation sample")

    async def _ingest(self, chunk: Sequence[Item]) -> None:
        answer = await self._rest.post("ingest", "/v1/samples:batch", **_ndjson([item.body for item in chunk]))
        rows = _all_taken(answer, "sample")
        for item, row in zip(chunk, rows, strict=True):
            self.labels[row["sample_id"]] = item.label
        self.progress.ingested = len(self.labels)
        self._moved()

    async def _annotate(self) -> int:
        """Take tasks and answer them truly; how many were answered."""
        tasks = await self._claim()
        for task in tasks:
            await self._answer(task)
        if tasks:
            self._moved()
        return len(tasks)

    async def _claim(self) -> list[dict[str, Any]]:
        retries = self._rest.retries
        try:
            body = {"annotator": ANNOTATOR, "n": CLAIM}
            answer = await self._rest.post("label-queue", "/v1/tasks:claim", json=body)
        except Refused as refused:
            if refused.status != 429:
                raise
            answer = None
        tasks = answer["tasks"] if answer else []
        if tasks or retries == self._rest.retries:
            return tasks
        # The answer to a claim was lost with the service that gave it: the leases are still ours.
        held = await self._rest.get("label-queue", "/v1/tasks", state="LEASED", limit=500)
        return [task for task in held["items"] if (task["lease"] or {}).get("holder") == ANNOTATOR]

    async def _answer(self, task: dict[str, Any]) -> None:
        label = self.labels[task["sample_id"]]
        task_id = task.get("id") or task["task_id"]
        body = {"annotator": ANNOTATOR, "epoch": task["lease"]["epoch"], "value": label}
        await self._rest.post("label-queue", f"/v1/tasks/{task_id}/annotations", json=body)
        self.answered[task_id] = task["sample_id"]

    # What is watched.

    async def _look(self) -> None:
        """Refresh the counts, and measure every model that has come into service since."""
        progress = self.progress
        selection = await self._rest.get("select-uncertain", "/v1/stats")
        labels = await self._rest.get("label-queue", "/v1/stats")
        accepted = labels["accepted"] - labels["imported"]
        if (selection["seen"], accepted) != (progress.scored, progress.accepted):
            self._moved()
        progress.scored, progress.asked, progress.accepted = selection["seen"], labels["asked"], accepted
        await self._look_at_runs()
        await self._count_events()
        self._show(progress)

    async def _look_at_runs(self) -> None:
        runs = (await self._rest.get("retrain-trigger", "/v1/runs", limit=500))["items"]
        self.progress.training = any(run["state"] not in ENDED for run in runs)
        ended = [run for run in runs if run["state"] in ENDED and run["run_id"] not in self._judged]
        for run in reversed(ended):  # as they were begun
            if run["state"] != "SUCCEEDED":
                raise Stalled(f"training run {run['run_id']} ended as {run['state']}: {run.get('error')}")
            await self._measure(run)
            self._judged.add(run["run_id"])
            self._moved()

    async def _measure(self, run: dict[str, Any]) -> None:
        """A promoted version is asked for until it answers; its accuracy is that on the test set."""
        progress = self.progress
        if run["promoted"]:
            progress.model_version = run["model_version"]
            await self._until_serving(run["model_version"])
            progress.accuracy = await self._accuracy(run["model_version"])
        # Without an imported evaluation set a share of the answers is held out for the gate, in the same snapshot.
        counts = run["snapshot"]["counts"]
        progress.in_snapshot = counts["train"] + counts["evaluation"] - len(self._plan.split.evaluation)
        gate = run.get("gate") or {}
        progress.rounds.append(
            {
                "labels": progress.in_snapshot,
                "unlabelled": (run["pool"] or {"count": 0})["count"],  # samples without a label that it learnt from too
                "accuracy": round(progress.accuracy or 0.0, 4),
                "model_version": progress.model_version,
                "promoted": run["promoted"],
                "candidate": run["model_version"],
                "why": "; ".join(gate.get("reasons", [])),
            }
        )

    async def _until_serving(self, version: str) -> None:
        # A sidecar that was killed with the news in hand has it handed out again after a good minute.
        deadline = time.monotonic() + STALL_SECONDS
        while time.monotonic() < deadline:
            loaded = await self._rest.get("infer", "/v1/loaded-models")
            if any(model["version"] == version and model["active"] for model in loaded["items"]):
                return
            await asyncio.sleep(0.1)
        raise Stalled(f"{version} was promoted, but infer does not serve it; `halfsure logs infer` may say why")

    async def _accuracy(self, version: str) -> float:
        """Share of the test set that the version in service labels truly; of several labels, the mean agreement."""
        right = 0.0
        for chunk in _chunks(self._plan.split.test):
            answer = await self._rest.post("infer", "/v1/predict", json={"inputs": [item.body for item in chunk]})
            if answer["model_version"] != version:
                raise Stalled(f"infer answers with {answer['model_version']} although {version} is active")
            pairs = zip(answer["predictions"], chunk, strict=True)
            right += sum(agreement(prediction["value"], item.label) for prediction, item in pairs)
        return right / len(self._plan.split.test)

    async def _count_events(self) -> None:
        """Add up what each service says it has published; a restarted one counts from zero again."""
        for app_id in self._app_ids:
            text = await self._rest.get(app_id, "/metrics")
            now = Counter(
                {m[1]: int(float(m[2])) for m in re.finditer(r'events_published_total\{type="([^"]+)"\} (\S+)', text)}
            )
            before = self._seen_counts.get(app_id, Counter())
            for kind, count in now.items():
                self.progress.events[kind] += count - before[kind] if count >= before[kind] else count
            self._seen_counts[app_id] = now

    async def _done(self) -> bool:
        progress, wanted = self.progress, min(self._plan.budget, len(self._plan.split.pool))
        labelled = progress.accepted >= wanted and progress.in_snapshot >= wanted
        return labelled and not progress.training

    def _enter(self, phase: str) -> None:
        self.progress.phase = phase
        self._moved()
        self._show(self.progress)

    def _moved(self) -> None:
        self._moved_at = time.monotonic()

    def _watch_for_stall(self) -> None:
        patience = TRAINING_SECONDS if self.progress.training else STALL_SECONDS
        if time.monotonic() - self._moved_at > patience:
            raise Stalled(
                f"nothing has moved for {patience:.0f} s: {self.progress.asked} labels asked for, "
                f"{self.progress.accepted} in, {len(self.progress.rounds)} models judged; `halfsure logs` may say why"
            )


def _chunks(items: Sequence[Item]) -> list[Sequence[Item]]:
    return [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]


def _ndjson(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    content = "\n".join(json.dumps(row) for row in rows).encode()
    return {"content": content, "headers": {"content-type": "application/x-ndjson"}}


def _all_taken(answer: dict[str, Any], what: str) -> list[dict[str, Any]]:
    rows = answer["results"]
    if bad := [row for row in rows if row["status"] >= 400]:
        raise Stalled(f"{len(bad)} of {len(rows)} were refused, the first {what}: {bad[0]}")
    return rows
