"""The cloud's side of the iotedge profile alone: its servers, label-queue and retrain-trigger, on this host's loopback.

python tests/edge/cloud.py HOME     HOME/ready.json says how to reach it, once it can be; until it is ended
"""

import asyncio
import json
import signal
import sys
from pathlib import Path

from services.cli.profiles import PROFILES
from services.cli.settings import StackSettings
from services.cli.specs import applications, infrastructure, sidecar_name
from services.cli.stack import Stack
from services.cli.supervisor import Supervisor


async def serve(home: Path) -> None:
    stack = Stack(StackSettings(profile="iotedge", home=home))
    plan = stack.plan()
    place = next(place for place in PROFILES["iotedge"] if place.name == "cloud")
    names = {*place.backing, *place.apps, *map(sidecar_name, place.apps), "placement", "scheduler"}
    specs = [spec for spec in (*infrastructure(plan), *applications(plan)) if spec.name in names]
    supervisor = Supervisor(specs, start_timeout=120, stop_grace=10, hung_after=30)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    try:
        await supervisor.start()
        ports = {name: plan.ports[name] for name in ("servicebus", "azurite", "label_queue", "retrain_trigger")}
        ready = {"ports": ports, "signature": plan.signature, "token": stack.token}
        (home / "ready.tmp").write_text(json.dumps({**ready, "tokens": plan.home.tokens_file.read_text()}))
        (home / "ready.tmp").replace(home / "ready.json")
        await ended.wait()
    finally:
        await supervisor.stop()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]).resolve()))
