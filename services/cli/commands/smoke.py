"""`halfsure smoke`: does one sample go all the way?"""

import asyncio
import time
from pathlib import Path

from services.cli.commands.loop import announced, on_own_stack
from services.cli.datasets import Split, digits, split
from services.cli.player import Plan, Player, Stalled
from services.cli.rest import Rest
from services.cli.settings import StackSettings
from services.cli.terminal import ProfileOption, app, load_settings, out

PATIENCE_SECONDS = 30.0
POOL, EVALUATION, TEST, LABELS = 40, 60, 60, 20
# What a sample's history says when it has gone all the way to a label.
STATIONS = ("sample.ingested", "sample.scored", "sample.selected", "label.accepted")


@app.command()
def smoke(profile: ProfileOption = None) -> None:
    """Follow one sample from ingest to a label, a training run and the model in service; about ten seconds.

    Ends with 0 when it has passed every station, and otherwise says at which it stopped.
    """
    asyncio.run(_smoke(load_settings(None, profile)))


async def _smoke(settings: StackSettings) -> None:
    await on_own_stack(settings, "smoke", _follow)


async def _follow(_: Path, settings: StackSettings) -> None:
    parts = split(digits(), 0)
    few = Split(parts.pool[:POOL], parts.evaluation[:EVALUATION], parts.test[:TEST])
    plan = Plan(digits(), few, "uncertainty_coverage", LABELS, LABELS, 0)
    stack, _version = announced(settings)
    async with stack.running():
        rest = Rest(stack.url, stack.token, plan.project)
        try:
            player = Player(rest, plan, stack.app_ids)
            await player.make_project()
            progress = await player.play()
            sample = next(iter(player.answered.values()))
            await _passed(rest, sample)
            _serves(progress.model_version)
        finally:
            await rest.close()


async def _passed(rest: Rest, sample: str) -> None:
    """Ingest hears of a label by the bus, on a device through the uplink: it is given a moment."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        story = await rest.get("ingest", f"/v1/samples/{sample}/history")
        seen = [event["type"] for event in story["events"]]
        missing = [station for station in STATIONS if station not in seen]
        if not missing:
            break
        if time.monotonic() > deadline:
            raise Stalled(f"{sample} has not passed {missing[0]}; it has passed {', '.join(seen)}")
        await asyncio.sleep(0.2)
    for station in STATIONS:
        out.print(f"{sample} has passed {station}", highlight=False)


def _serves(version: str | None) -> None:
    """The player has asked infer for every version that was promoted, until it answered."""
    if version is None:
        raise Stalled("no model was promoted; `GET /v1/runs` of retrain-trigger says why")
    out.print(f"its label is in {version}, which infer serves", highlight=False)
