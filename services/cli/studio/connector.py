"""Both ways between a project's queue and a project of Label Studio, over the public REST of both.

It keeps nothing: a task of theirs names ours, and people's answers here are found by their names. So it can be stopped
anywhere, and what was missed meanwhile is found by looking.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.cli.reaching import QUEUE
from services.cli.rest import Refused, Rest
from services.cli.studio.matching import FREE, Give, Move, Revise, Undo, Wish, moves, settled, wishes
from services.cli.studio.server import Studio
from services.contracts.label_studio import result

BATCH = 50  # tasks in one request
MODEL = "halfsure"
TOGETHER = 8  # tasks looked at or sent at a time
OPEN = ("queued", "labeled", "leased", "disputed")
CLOSED = ("skipped", "retracted")
Told = Callable[[str, int, int], None]  # what is done, how much of it, of how much


@dataclass(frozen=True)
class Options:
    """What goes out: at most so many tasks at a time, and whether people see what the model says."""

    project: str
    most: int = 1000
    predictions: bool = False


class Connector:
    """Looks at both sides and brings each up to date."""

    def __init__(self, rest: Rest, studio: Studio, options: Options, told: Told = lambda *_: None) -> None:
        self._rest = rest
        self._studio = studio
        self._options = options
        self._told = told
        self._settled: dict[int, tuple[Any, ...]] = {}
        self._names: dict[int, str] = {}
        self.counts: Counter[str] = Counter()
        self.number = 0

    async def begin(self) -> int:
        """The number of their project, which is made if there is none."""
        schema = await self._rest.get(QUEUE, f"/v1/schemas/{self._options.project}")
        self.number = await self._studio.project(f"halfsure {self._options.project}", schema["labels"])
        self._names = await self._studio.people()
        return self.number

    async def sync(self) -> None:
        """All of it, once: answers first, so that nothing is sent out that has one."""
        theirs = [row async for row in self._studio.tasks(self.number) if "task_id" in row["data"]]
        await self._each("answers", theirs, self.reconcile)
        await self._send({row["data"]["task_id"]: row for row in theirs})

    async def look(self, numbers: Iterable[int]) -> None:
        """Only these tasks of theirs, which somebody has just been at."""
        for number in numbers:
            row = await self._studio.task(number)
            if row and "task_id" in row["data"]:
                await self.reconcile(row)

    # What comes back.

    async def reconcile(self, row: Mapping[str, Any]) -> None:
        """Make our answers to a task what theirs are; a task that nothing has changed in is not looked at."""
        now = settled(row)
        if self._settled.get(row["id"]) == now:
            return
        people = {one.get("completed_by") for one in row["annotations"] if isinstance(one.get("completed_by"), int)}
        if people - set(self._names):
            self._names = await self._studio.people()
        record = await self._record(row["data"]["task_id"])
        done = True
        wanted = wishes(row["annotations"], self._names)
        for move in moves(wanted, record, row["data"].get("round", "")) if record else ():
            done &= await self._make(move, record["id"], self._shown(row))
        if done:
            self._settled[row["id"]] = now

    async def _record(self, name: str) -> dict[str, Any]:
        try:
            return await self._rest.get(QUEUE, f"/v1/tasks/{name}")
        except Refused as refused:
            if refused.status == 404:
                return {}
            raise

    def _shown(self, row: Mapping[str, Any]) -> str:
        return "before" if any(one["result"] for one in row["predictions"]) else "never"

    async def _make(self, move: Move, task: str, shown: str) -> bool:
        """Whether this need not be tried again; what is refused is counted."""
        try:
            match move:
                case Undo(answer):
                    await self._rest.call("DELETE", QUEUE, f"/v1/annotations/{answer}")
                    self.counts["undone"] += 1
                    return True
                case Revise(wish, first, epoch):
                    await self._answer(task, wish, epoch, {"revises": first})
                    self.counts["revised"] += 1
                    return True
                case _:
                    return await self._claimed(move.wish, task, shown, skip=not isinstance(move, Give))
        except Refused as refused:
            if refused.status not in (409, 422):
                raise
            self.counts["refused"] += 1
            return True

    async def _claimed(self, wish: Wish, task: str, shown: str, *, skip: bool) -> bool:
        claim = {"annotator": wish.annotator, "tasks": [task]}
        found = await self._rest.post(QUEUE, "/v1/tasks:claim", json=claim)
        if not found:
            leased = (await self._record(task)).get("state") == "LEASED"
            self.counts["waiting" if leased else "late"] += 1
            return not leased
        epoch = found["tasks"][0]["lease"]["epoch"]
        if skip:
            body = {"epoch": epoch, "annotator": wish.annotator, "reason": "skipped in Label Studio", "requeue": True}
            await self._rest.post(QUEUE, f"/v1/tasks/{task}:skip", json=body)
        else:
            await self._answer(task, wish, epoch, {"shown": shown})
        self.counts["skipped" if skip else "answers"] += 1
        return True

    async def _answer(self, task: str, wish: Wish, epoch: int, more: Mapping[str, Any]) -> None:
        body = {"epoch": epoch, "annotator": wish.annotator, "value": wish.value, **more}
        if wish.seconds is not None:
            body["seconds"] = wish.seconds
        await self._rest.post(QUEUE, f"/v1/tasks/{task}/annotations", json=body)

    # What goes out.

    async def _send(self, theirs: Mapping[str, Mapping[str, Any]]) -> None:
        open_ = {row["id"]: row for row in await self._listed(OPEN)}
        withdrawn = {row["id"] for row in await self._listed(CLOSED) if row["withdrawn"]}
        gone = {name for name, row in theirs.items() if name in withdrawn or _over(row, open_.get(name))}
        await self._each("removals", [theirs[name] for name in sorted(gone)], self._remove)
        there = {name: row for name, row in theirs.items() if name in open_ and name not in gone}
        free = [row for name, row in open_.items() if name not in there and row["state"] in FREE]
        pictures = [row for row in free if (row["content"] or {}).get("media_type", "").startswith("image/")]
        self.counts["not pictures"] += len(free) - len(pictures)
        chosen = sorted(pictures, key=lambda row: -row["priority"])[: max(0, self._options.most - len(there))]
        if chosen:
            needed = max(row["required_labels"] for row in chosen)
            await self._studio.tune(self.number, maximum_annotations=needed)
        await self._add(chosen)
        kept = [(open_[name], row) for name, row in there.items() if not row["annotations"]]
        await self._each("ranks", kept, self._rank)

    async def _listed(self, states: Sequence[str]) -> list[dict[str, Any]]:
        return await self._rest.everything(QUEUE, "/v1/tasks", state=list(states))

    async def _add(self, chosen: Sequence[Mapping[str, Any]]) -> None:
        """One request after the other: at two at a time, it hangs predictions on each other's tasks."""
        for start in range(0, len(chosen), BATCH):
            rows: list[dict[str, Any]] = []
            part = chosen[start : start + BATCH]
            await self._each("pictures", part, lambda ours, rows=rows: self._picture(ours, rows))
            await self._studio.add(self.number, rows)
            self.counts["sent"] += len(rows)
            self._told("tasks", start + len(rows), len(chosen))

    async def _picture(self, ours: Mapping[str, Any], rows: list[dict[str, Any]]) -> None:
        async with self._rest.stream(QUEUE, f"/v1/tasks/{ours['id']}/content") as answer:
            content = await answer.aread()
        media = ours["content"]["media_type"]
        name = f"{ours['sample_id']}.{media.partition('/')[2].partition('+')[0]}"
        stored = await self._studio.upload(self.number, name, content, media)
        data = {**stored, "task_id": ours["id"], "sample_id": ours["sample_id"], "round": ours["round_id"]}
        rows.append({"data": data, "predictions": [self._prediction(ours)]})

    def _prediction(self, ours: Mapping[str, Any]) -> dict[str, Any]:
        """How sure we are, by which they order their stream; and, if people are to see it, of what.

        All are of one "model", since they order by those of one version alone.
        """
        says = ours["prelabel"] if self._options.predictions else None
        shown = result(says["label"]) if says else []
        return {"model_version": MODEL, "score": round(1 - ours["priority"], 6), "result": shown}

    async def _rank(self, pair: tuple[Mapping[str, Any], Mapping[str, Any]]) -> None:
        ours, row = pair
        wanted = self._prediction(ours)
        if not any(all(one[name] == wanted[name] for name in wanted) for one in row["predictions"]):
            await self._studio.predict(row, wanted)
            self.counts["ranked"] += 1

    async def _remove(self, row: Mapping[str, Any]) -> None:
        await self._studio.remove(self.number, row)
        self._settled.pop(row["id"], None)
        self.counts["removed"] += 1

    async def _each(self, what: str, rows: Sequence[Any], work: Callable[[Any], Any]) -> None:
        limit, done = asyncio.Semaphore(TOGETHER), 0

        async def one(row: Any) -> None:
            nonlocal done
            async with limit:
                await work(row)
            done += 1
            self._told(what, done, len(rows))

        tasks = [asyncio.create_task(one(row)) for row in rows]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _over(row: Mapping[str, Any], ours: Mapping[str, Any] | None) -> bool:
    """Whether a task of theirs asks for nothing any more: nobody has answered, and it is closed here or asked anew."""
    if any(not one.get("was_cancelled") for one in row["annotations"]):
        return False
    if ours is None:
        return not row["annotations"]
    return bool(row["annotations"]) and ours["round_id"] != row["data"].get("round")
