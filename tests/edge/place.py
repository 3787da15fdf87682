"""One place of the iotedge profile alone, its servers and services on this host's loopback, until it is ended.

    python tests/edge/place.py cloud HOME --site north --site south
    python tests/edge/place.py device HOME

HOME/environment.json, where it is there, goes before the environment that the profile gives. With HALFSURE_CHAOS in it
the services have a clock that can be made to jump (tests/chaos/serve.py). HOME/ready.json says how the place is
reached, once it can be. The portal is left out, and so is the forwarder that a network stands in for here.
"""

import argparse
import asyncio
import json
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import yaml

from services.cli.infrastructure import infrastructure
from services.cli.plan import Plan
from services.cli.ports import port_key
from services.cli.process import ProcessSpec
from services.cli.profiles import PROFILES, Place
from services.cli.settings import StackSettings, default_root
from services.cli.specs import applications, sidecar_name
from services.cli.stack import Stack
from services.cli.supervisor import Supervisor
from services.uplink.traffic import UP

LEFT_OUT = ("portal", "wan")
WITNESS = "witness"  # a subscription of the tests' own to whatever goes up
CHAOS = default_root() / "tests" / "chaos" / "serve.py"


async def serve(name: str, home: Path, sites: Sequence[str]) -> None:
    stack = Stack(StackSettings(profile="iotedge", home=home))
    plan = stack.plan()
    place = next(place for place in PROFILES["iotedge"] if place.name == name)
    supervisor = Supervisor(specs_of(plan, place, sites), start_timeout=240, stop_grace=10, hung_after=30)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    try:
        await supervisor.start()
        kinds = [port_key(name) for name in (*place.backing, *place.apps) if name not in LEFT_OUT]
        ports = {kind: plan.ports[kind] for kind in kinds}
        keys = plan.home.model_keys[1].read_text()
        ready = {"ports": ports, "signature": plan.signature, "token": stack.token, "model_keys": keys}
        (home / "ready.tmp").write_text(json.dumps({**ready, "tokens": plan.home.tokens_file.read_text()}))
        (home / "ready.tmp").replace(home / "ready.json")
        await ended.wait()
    finally:
        await supervisor.stop()


def specs_of(plan: Plan, place: Place, sites: Sequence[str]) -> list[ProcessSpec]:
    """The processes of the place, in the environment that the test gives."""
    names = {*place.backing, *place.apps, *map(sidecar_name, place.apps)} | (
        {"placement", "scheduler"} if place.control else set()
    )
    names -= {*LEFT_OUT, *map(sidecar_name, LEFT_OUT)}
    file = plan.home.path / "environment.json"
    given: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    found = [spec for spec in (*infrastructure(plan), *applications(plan)) if spec.name in names]
    return [replace(spec, env={**spec.env, **given}, command=_command(plan, spec, given, sites)) for spec in found]


def _command(plan: Plan, spec: ProcessSpec, given: dict[str, str], sites: Sequence[str]) -> tuple[str, ...]:
    if spec.name == "servicebus":
        named = [word for site in sites for word in ("--site", site)]
        return (*spec.command, "--subscriptions", str(_subscriptions(plan)), *named)
    if "HALFSURE_CHAOS" in given and spec.command[1:3] == ("-m", "services.runtime"):
        return (spec.command[0], str(CHAOS), *spec.command[3:])
    return spec.command


def _subscriptions(plan: Plan) -> Path:
    """Those of the product, and one of the witness to each topic of what goes up."""
    rows = [
        {"kind": "Subscription", "scopes": [WITNESS], "spec": {"pubsubname": "pubsub", "topic": topic}}
        for topic in sorted({event.topic for event in UP})
    ]
    own = plan.run_file.path.with_name("subscriptions.yaml").read_text()
    path = plan.home.path / "subscriptions.yaml"
    path.write_text(f"{own}\n---\n{yaml.safe_dump_all(rows)}")
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("place", choices=[place.name for place in PROFILES["iotedge"]])
    parser.add_argument("home", type=Path)
    parser.add_argument("--site", action="append", default=[], help="a site that the cloud knows besides the first")
    options = parser.parse_args()
    asyncio.run(serve(options.place, options.home.resolve(), options.site))
